"""Does a given answer say the same as the ground truth: correct, wrong or unverifiable.

Conventions beyond those of `quantities` and `choices`: a hedge (`5 or 6`) is not an answer; coordinate
parentheses may be dropped; a:b stands for a/b; a value bound to another name is wrong; an answer that
holds another answer tag is wrong. What plain rules cannot decide goes to computer algebra in a separate
process; a time-out, a failure or a ground truth nobody can read makes the answer unverifiable, which is
never the same as wrong.
"""

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prism.rewards.choices import compare_choice
from prism.rewards.comparison import Outcome, SymbolicPair, compare
from prism.rewards.normalization import clean, strip_lead_in, text_key
from prism.rewards.symbolic import SymbolicChecker, SymbolicCounts, SymbolicResult, default_checker

MAX_ANSWER_CHARS = 2000


class Verdict(StrEnum):
    CORRECT = "correct"
    WRONG = "wrong"
    UNVERIFIABLE = "unverifiable"


@dataclass(frozen=True, slots=True)
class VerifierCounts:
    """Counts since the process began: verdicts, and what the slow path met."""

    correct: int
    wrong: int
    unverifiable: int
    symbolic: SymbolicCounts


_TAG = re.compile(r"</?\s*(?:answer|think|caption)\s*>", re.IGNORECASE)
_YES_NO = {
    **dict.fromkeys(("yes", "true", "是", "是的", "对", "正确"), True),
    **dict.fromkeys(("no", "false", "否", "不", "不是", "不对", "错", "错误", "不正确"), False),
}
_LEADING_YES_NO = re.compile(
    r"(yes|no|true|false)(?:\s*[,.;:!(]|\s+(?:it|they|he|she|there|because|since|this|that)\b)(.*)", re.IGNORECASE
)
_STATED_VALUE = re.compile(r".*\b(?:is|are|equals|has|have|contains|there are)\s+(.+)", re.IGNORECASE)
_NOT_STATED = re.compile(r"\b(?:not|n't|than|least|most|between|or|if|either|cannot|no)\b", re.IGNORECASE)

_counts = dict.fromkeys(Verdict, 0)
_counts_lock = threading.Lock()


def verifier_counts() -> VerifierCounts:
    with _counts_lock:
        verdicts = {verdict.value: count for verdict, count in _counts.items()}
    return VerifierCounts(**verdicts, symbolic=default_checker().counts)


def verify_answer(
    prediction: str,
    ground_truth: str,
    *,
    equivalents: Sequence[str] = (),
    choices: Sequence[str] | None = None,
    checker: SymbolicChecker | None = None,
) -> Verdict:
    """Compare the content of an answer tag with the ground truth or any of its `equivalents`.

    `choices` are the option texts in order A, B, …; then letter and text stand for each other.
    Raises RewardError only if the slow path cannot be started at all.
    """
    verdict = _verify(prediction, [ground_truth, *equivalents], choices, checker)
    with _counts_lock:
        _counts[verdict] += 1
    return verdict


def _verify(
    prediction: str, ground_truths: list[str], choices: Sequence[str] | None, checker: SymbolicChecker | None
) -> Verdict:
    raw_targets = [text.strip() for text in ground_truths if text.strip()]
    if not raw_targets:
        return Verdict.UNVERIFIABLE
    if max(len(prediction), *map(len, raw_targets)) > MAX_ANSWER_CHARS:
        return Verdict.CORRECT if prediction.strip() in raw_targets else Verdict.UNVERIFIABLE
    targets = [clean(text) for text in raw_targets]
    candidate = clean(prediction)
    if not candidate or _TAG.search(candidate):
        return Verdict.WRONG
    options = [clean(choice) for choice in choices] if choices else None
    pending: list[tuple[SymbolicPair, ...]] = []
    for target in targets:
        outcome = _decide(candidate, target, options)
        if outcome is True:
            return Verdict.CORRECT
        if outcome is not False:
            pending.append(outcome)
    verdicts = {_check_pairs(pairs, checker or default_checker()) for pairs in pending}
    return next(verdict for verdict in _BY_PRECEDENCE if verdict in verdicts or verdict is Verdict.WRONG)


_BY_PRECEDENCE = (Verdict.CORRECT, Verdict.UNVERIFIABLE, Verdict.WRONG)


def _decide(prediction: str, ground_truth: str, options: Sequence[str] | None) -> Outcome:
    if text_key(prediction) == text_key(ground_truth):
        return True
    by_choice = compare_choice(prediction, ground_truth, options)
    if by_choice is not None:
        return by_choice
    truth = _YES_NO.get(ground_truth.casefold())
    if truth is not None:
        return _read_yes_no(strip_lead_in(prediction)) is truth
    stated = strip_lead_in(prediction)
    outcome = compare(stated, ground_truth)
    if outcome is not False:
        return outcome
    sentence = _STATED_VALUE.fullmatch(stated)
    if sentence and not _NOT_STATED.search(stated):
        return compare(sentence[1], ground_truth)
    return False


def _read_yes_no(text: str) -> bool | None:
    """The leading yes or no decides, unless the sentence ends on the opposite."""
    text = text.casefold().rstrip("!")
    if text in _YES_NO:
        return _YES_NO[text]
    leading = _LEADING_YES_NO.fullmatch(text)
    if not leading:
        return None
    stance = _YES_NO[leading[1]]
    last_word = leading[2].rsplit(" ", 1)[-1].strip("!.,;:()")
    return stance if _YES_NO.get(last_word, stance) is stance else None


def _check_pairs(pairs: Iterable[SymbolicPair], checker: SymbolicChecker) -> Verdict:
    """All pairs must be equal; one certain difference decides over failures elsewhere."""
    verdict = Verdict.CORRECT
    for pair in pairs:
        result = checker.check(pair.prediction, pair.ground_truth, pair.tolerance)
        if result in (SymbolicResult.DIFFERENT, SymbolicResult.UNREADABLE_PREDICTION):
            return Verdict.WRONG
        if result is not SymbolicResult.EQUAL:
            verdict = Verdict.UNVERIFIABLE
    return verdict
