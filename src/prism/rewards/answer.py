"""Does a given answer say the same as the ground truth: correct, wrong or unverifiable.

Conventions beyond those of `quantities` and `choices`: words are compared without case, article, accents
and plural; a hedge (`5 or 6`) is not an answer, unless both say the same; coordinate parentheses may be
dropped; a:b stands for a/b; an angle in degrees equals the multiple of π; members joined by "and" may
change places if they are words; a value bound to another name is wrong; an answer that holds another
answer tag is wrong. What plain rules cannot decide goes to computer algebra in a separate
process; a time-out, a failure or a ground truth nobody can read makes the answer unverifiable, which is
never the same as wrong.
"""

import re
import time
from collections.abc import Sequence

from prism.rewards.choices import compare_choice
from prism.rewards.comparison import Finding, compare_statement
from prism.rewards.formulas import SymbolicPair
from prism.rewards.normalization import clean, strip_phrases, text_key
from prism.rewards.symbolic import SymbolicChecker, SymbolicResult, default_checker
from prism.rewards.verdict import Rule, Tally, Verdict, VerifierCounts
from prism.rewards.yes_no import meaning_of, read_yes_no

MAX_ANSWER_CHARS = 2000

_TAG = re.compile(r"</?\s*(?:answer|think|caption)\s*>", re.IGNORECASE)
_LEAST_SECONDS = 0.05
_tally = Tally()


def verifier_counts() -> VerifierCounts:
    return _tally.counts(default_checker().counts)


def verify_answer(
    prediction: str,
    ground_truth: str,
    *,
    equivalents: Sequence[str] = (),
    choices: Sequence[str] | None = None,
    checker: SymbolicChecker | None = None,
) -> Verdict:
    """Compare the content of an answer tag with the ground truth or any of its `equivalents`.

    `choices` are the option texts in order A, B, …; then letter and text stand for each other. Takes no
    longer than the checker's time limit, beside the start of a worker process and waiting for other threads.
    Raises RewardError only if the slow path cannot be started at all.
    """
    verdict = _verify(prediction, [ground_truth, *equivalents], choices, checker or default_checker())
    _tally.add(verdict)
    return verdict


def _verify(
    prediction: str, ground_truths: list[str], choices: Sequence[str] | None, checker: SymbolicChecker
) -> Verdict:
    raw_targets = [text.strip() for text in ground_truths if text.strip()]
    if not raw_targets:
        return Verdict("unverifiable", Rule.NO_GROUND_TRUTH)
    if max(len(prediction), *map(len, raw_targets)) > MAX_ANSWER_CHARS:
        return Verdict("correct" if prediction.strip() in raw_targets else "unverifiable", Rule.TOO_LONG)
    candidate = clean(prediction)
    if not candidate:
        return Verdict("wrong", Rule.NO_PREDICTION)
    if _TAG.search(candidate):
        return Verdict("wrong", Rule.EXTRA_TAG)
    options = [clean(choice) for choice in choices] if choices else None
    findings = [_decide(candidate, clean(target), options) for target in raw_targets]
    decided = next((finding for finding in findings if finding.outcome is True), None)
    if decided:
        return Verdict("correct", decided.rule)
    pending = [finding.outcome for finding in findings if not isinstance(finding.outcome, bool)]
    return _check_all(pending, checker) if pending else Verdict("wrong", findings[0].rule)


def _decide(prediction: str, ground_truth: str, options: Sequence[str] | None) -> Finding:
    if text_key(prediction) == text_key(ground_truth):
        return Finding(True, Rule.TEXT)
    by_choice = compare_choice(prediction, ground_truth, options)
    if by_choice is not None:
        return Finding(by_choice, Rule.CHOICE)
    truth = meaning_of(ground_truth)
    if truth is not None:
        return Finding(read_yes_no(strip_phrases(prediction)) is truth, Rule.YES_NO)
    return compare_statement(prediction, ground_truth)


def _check_all(alternatives: Sequence[tuple[SymbolicPair, ...]], checker: SymbolicChecker) -> Verdict:
    """Correct if all pairs of one alternative are equal. All share one time limit."""
    deadline = time.monotonic() + checker.timeout_seconds
    verdicts = []
    for pairs in alternatives:
        verdicts.append(_check_pairs(pairs, checker, deadline))
        if verdicts[-1].is_correct:
            return verdicts[-1]
    return next((verdict for verdict in verdicts if verdict.is_unverifiable), verdicts[0])


def _check_pairs(pairs: Sequence[SymbolicPair], checker: SymbolicChecker, deadline: float) -> Verdict:
    """One certain difference decides over failures elsewhere."""
    verdict = Verdict("correct", Rule.ALGEBRA)
    for pair in pairs:
        remaining = max(_LEAST_SECONDS, deadline - time.monotonic())
        result = checker.check(pair.prediction, pair.ground_truth, pair.tolerance, timeout_seconds=remaining)
        if result in (SymbolicResult.DIFFERENT, SymbolicResult.UNREADABLE_PREDICTION):
            return Verdict("wrong", Rule.ALGEBRA)
        if result is not SymbolicResult.EQUAL:
            verdict = Verdict("unverifiable", _FAILURES[result])
    return verdict


_FAILURES = {
    SymbolicResult.TIMEOUT: Rule.TIMEOUT,
    SymbolicResult.TOO_LONG: Rule.TOO_LONG,
    SymbolicResult.ERROR: Rule.CHECKER_ERROR,
    SymbolicResult.UNREADABLE_GROUND_TRUTH: Rule.UNREADABLE,
}
