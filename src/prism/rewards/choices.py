"""Multiple choice: which option a text commits to, by letter, by the option's text, or by both."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prism.rewards.comparison import Outcome, compare
from prism.rewards.normalization import text_key
from prism.rewards.quantities import read_quantity

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter and the text written after it; letter "" says that several options were named."""

    letter: str
    text: str = ""


SEVERAL = Choice("")

_LONE_LETTER = re.compile(r"[(\[{]*([A-Za-z])[)\]}.:]*")
_GROUND_TRUTH = re.compile(r"(?:\(([A-J])\)|([A-J])\s*[.:)])\s*(\S.*)")
_COMMITMENT = re.compile(
    r"\b(?:(?:answer|option|choice|it|that)(?:\s+(?:is|must be|should be)|'s|\s*:)?|choose|select|pick|go with)\s*:?\s+"
    r"(?:(?:option|choice)\s+)?(?=[(\[{]*[A-Ja-j]\b|not\b)|(?:故?选择?|答案)[是为:\s]*",
    re.IGNORECASE,
)
_LEADING = re.compile(r"[(\[{]*([A-J])([)\]}]*)(?![A-Za-z0-9'^_])\s*(.*)")
_LEADING_LOWER = re.compile(r"(?:\(([a-j])\)|([a-j])[.:)])\s+(.*)")
_ANOTHER_OPTION = re.compile(r"(?:,|/|&|or\b|and\b|或|和)\s*(?:or\b|and\b)?\s*[(\[{]*[A-J](?![A-Za-z0-9'])")
_TEXT_FOLLOWS = re.compile(r"[.:)]+\s*|,?\s*(?=\()|[—-]\s+")
_REMARK_FOLLOWS = re.compile(r"(?:,\s*)?(?:not|because|since|as|is (?:the )?(?:correct|right|answer|best|true))\b|[,;]")


def compare_choice(prediction: str, ground_truth: str, choices: Sequence[str] | None) -> Outcome | None:
    """Compare cleaned texts as choices of one option; None if the ground truth names no option."""
    target = _target(ground_truth, choices or ())
    if target is None:
        return None
    letters = LETTERS[: len(choices)] if choices else LETTERS
    chosen = read_choice(prediction, letters)
    if chosen == SEVERAL:
        return False
    if chosen is None:
        return _compare_text(prediction, target, choices or ())
    if chosen.letter == target.letter:
        return not _contradicts(chosen, target, choices or ())
    return bool(target.text) and compare(prediction, target.text) is True


def _target(ground_truth: str, choices: Sequence[str]) -> Choice | None:
    """The right option: a letter, a letter with text, or the exact text of one of `choices`."""
    lone = _LONE_LETTER.fullmatch(ground_truth)
    letter = lone[1] if lone and not choices else lone[1].upper() if lone else ""
    if choices:
        key = text_key(ground_truth)
        by_text = [index for index, choice in enumerate(choices) if text_key(choice) == key]
        if len(by_text) == 1:
            return Choice(LETTERS[by_text[0]], ground_truth) if by_text[0] < len(LETTERS) else None
        if letter and letter in LETTERS[: len(choices)]:
            return Choice(letter, choices[LETTERS.index(letter)])
    elif letter and letter in LETTERS:
        return Choice(letter)
    worded = _GROUND_TRUTH.fullmatch(ground_truth)
    return Choice(worded[1] or worded[2], worded[3]) if worded else None


def read_choice(text: str, letters: str = LETTERS) -> Choice | None:
    """The option a cleaned text commits to last: `B`, `(b)`, `B. 45°`, `The answer is not A, it is C`.

    None if it names none; `A triangle` and `I` in a sentence name none. `SEVERAL` for `A or B`.
    """
    lone = _LONE_LETTER.fullmatch(text)
    if lone:
        return Choice(lone[1].upper()) if lone[1].upper() in letters else None
    commitments = [match.end() for match in _COMMITMENT.finditer(text)]
    choice = _leading_choice(text[commitments[-1] :] if commitments else text)
    return choice if choice is None or choice == SEVERAL or choice.letter in letters else None


def _leading_choice(text: str) -> Choice | None:
    lone = _LONE_LETTER.fullmatch(text)
    if lone:
        return Choice(lone[1].upper())
    lower = _LEADING_LOWER.fullmatch(text)
    if lower:
        return Choice((lower[1] or lower[2]).upper(), lower[3])
    leading = _LEADING.fullmatch(text)
    if not leading:
        return None
    letter, closing, rest = leading.groups()
    if _ANOTHER_OPTION.match(rest):
        return SEVERAL
    follows = _TEXT_FOLLOWS.match(rest)
    if closing or follows:
        option = rest[follows.end() :] if follows else rest
        return SEVERAL if _LONE_LETTER.fullmatch(option) else Choice(letter, option)
    if not rest or _REMARK_FOLLOWS.match(rest):
        return Choice(letter)
    # `C 12` names an option with its text, `A triangle` and `I think` do not.
    return Choice(letter, rest) if letter not in "AI" and rest[0] in "0123456789$\\" else None


def _compare_text(prediction: str, target: Choice, choices: Sequence[str]) -> Outcome:
    """The option's text instead of its letter; it must not be the text of another option as well."""
    if not target.text:
        return False
    outcome = compare(prediction, target.text)
    if outcome is not False and any(
        compare(prediction, choice) is True for choice in choices if text_key(choice) != text_key(target.text)
    ):
        return outcome is True and text_key(prediction) == text_key(target.text)
    return outcome


def _contradicts(chosen: Choice, target: Choice, choices: Sequence[str]) -> bool:
    """The right letter with the text of another option, or without a list of them with another number."""
    if not chosen.text or not target.text or compare(chosen.text, target.text) is True:
        return False
    if choices:
        return any(compare(chosen.text, choice) is True for choice in choices)
    return read_quantity(chosen.text) is not None and read_quantity(target.text) is not None
