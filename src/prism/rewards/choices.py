"""Multiple choice: which option a text commits to, by letter, by the option's text, or by both."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prism.rewards.comparison import compare_statement
from prism.rewards.formulas import Outcome
from prism.rewards.normalization import strip_phrases, text_key
from prism.rewards.quantities import read_quantity
from prism.rewards.yes_no import meaning_of, read_yes_no

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter and the text written after it; letter "" says that several options were named."""

    letter: str
    text: str = ""


SEVERAL = Choice("")

_LONE_LETTER = re.compile(r"[(\[{]*([A-Za-z])[)\]}.:]*")
_GROUND_TRUTH = re.compile(r"(?:\(([A-J])\)|([A-J])\s*[.:)])\s*(?!.*[,;]\s*[A-J]\s*[.:)=])(\S.*)")
_SEVERAL_LETTERS = re.compile(r"(?:[Bb]oth )?[(\[]?[A-J][)\]]?(?:(?:\s?[,;&和及]\s?|\s|,? and )[(\[]?[A-J][)\]]?)+")
_LETTER_RUN = re.compile(r"[A-J]{2,10}")
_LETTER_FOLLOWS = r"(?=[(\[{]*[A-Ja-j]\b)"
_COMMITMENT = re.compile(
    r"\b(?:(?:answer|option|choice|letter|it|that)(?:\s+(?:is|would be|must be|should be)|'s|\s*:)?"
    r"|choose|select|pick|get|go with)\s*[:,]?\s+(?:(?:option|choice|letter)\s+)?(?=[(\[{]*[A-Ja-j]\b|not\b)"
    rf"|\bnot [(\[]?[A-J][)\]]?[.,;]\s+{_LETTER_FOLLOWS}"
    rf"|\b(?:therefore|thus|hence|so|only|but|ans(?:wer)?[.:])\s*,?\s+(?:option\s+|choice\s+)?{_LETTER_FOLLOWS}"
    r"|(?<!不)(?:(?:故|应|应该|我)?选(?:择|项)?|答案|选项)\s*[是为选:]*\s*",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|never|cannot)\b[^,.;]*$|(?:n't\b|不)[^,.;]*$", re.IGNORECASE)
_LEADING = re.compile(r"[(\[{]*([A-J])([)\]}]*)(?![A-Za-z0-9'^_])(.*)")
_LEADING_LOWER = re.compile(r"(?:\(([a-j])\)|([a-j])[.:)])\s+(.*)")
_ANOTHER_OPTION = re.compile(r"(?:[,;/\\&]|(?i:or|and|vs)\b|或|和)\s*(?i:(?:or|and)\b)?\s*[(\[{]*[A-J](?![A-Za-z0-9'])")
_HEDGE = re.compile(
    r"\b(?i:or|maybe|possibly|perhaps|no|wait|actually|also)\b,?\s*(?:[a-z']+\s){0,2}[(\[{]*[A-J](?![A-Za-z0-9'])"
)
_CORRECTION = re.compile(r"\b(?i:no|wait|actually)\b[,.]?\s*[(\[{]*[A-J](?![A-Za-z0-9'])")
_LETTER_IN_PARENTHESES = re.compile(r"(?<![a-zA-Z])\([A-J]\)\s")
_REASON_FOLLOWS = re.compile(r"[,.;:(\s]*(?:because|since|as|not|rather)\b")
_ARGUMENTS_FOLLOW = re.compile(r"\((?:[a-z]\)|[^()]*,)")
_TEXT_FOLLOWS = re.compile(r"[.:)]+\s*|,?\s*(?=\()|[—-]\s+")
_LETTERS_FOLLOW = re.compile(r"[(\[{]*[A-Ja-j](?:[)\]}.:,/]|$)")
_REMARK_FOLLOWS = re.compile(
    r"(?:,\s*)?(?:not|rather than|because|since|as|is (?:the |my )?(?:correct|right|answer|best|true))\b|[,;]"
    r"|(?:选?项)?(?:是?正确的?|是?对的?)?$"
)
_LABELLED_THINGS = """
angle animal arc area atom bag ball bar basket beaker bird block book bottle box boy brand bucket bulb button car card
case cat cell chart child circle circuit city class coin column company compound cone container country cube cup curve
cylinder diagram dog door edge element event face figure fish flask function girl glass graph group house image island
item jar lamp layer line liquid location machine man material metal method model node object organ panel part path
person picture piece place plan plane planet plant player plot point position process product pulley quadrant ray
rectangle region resistor road room route row sample section segment set shape shop side site species sphere square
stage star state statement station step store street structure student substance switch table tank team test town train
tree triangle truck tube type vertex village wheel wire woman worker zone
"""
_LABELLED = re.compile(rf"(?i:(?:the )?(?:{'|'.join(_LABELLED_THINGS.split())})) [(\[]?([A-Z])[)\]]?")
_MAX_LABEL_WORDS = 3
"""A longer text after the letter is rather a remark than the option's text."""
_MIN_MENTION_CHARS = 3
_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|cannot|except|unlike|without|rather than|instead of)\b|n't\b|不|非", re.IGNORECASE
)


def compare_choice(prediction: str, ground_truth: str, choices: Sequence[str] | None) -> Outcome | None:
    """Compare cleaned texts as choices of one option; None if the ground truth names no option."""
    target = _target(ground_truth, choices or ())
    if _is_labelled(prediction, ground_truth if target is None else target.text or target.letter):
        return True
    if target is None:
        return None if choices else _compare_several(prediction, ground_truth)
    letters = LETTERS[: len(choices)] if choices else LETTERS
    chosen = read_choice(prediction, letters)
    if chosen == SEVERAL:
        return False
    if chosen is None:
        return _compare_text(prediction, target, choices or ())
    if chosen.letter == target.letter:
        return not _contradicts(chosen, target, choices or ())
    return bool(target.text) and compare_statement(prediction, target.text).outcome is True


def _is_labelled(prediction: str, label: str) -> bool:
    """`line B` where the thing is called B, in the figure or as an option's text; not where the line is denied."""
    lone = _LONE_LETTER.fullmatch(label)
    labelled = _LABELLED.fullmatch(strip_phrases(prediction)) if lone else None
    if not lone or not labelled or labelled[1] != lone[1]:
        return False
    return not _NEGATION.search(prediction.partition(labelled[0])[0])


def _compare_several(prediction: str, ground_truth: str) -> bool | None:
    """`A and C` against `AC`: sets of letters, at least one of them written as a list."""
    sets = []
    for text in (prediction, ground_truth):
        is_run = _LETTER_RUN.fullmatch(text) and list(text) == sorted(set(text))
        listed = _SEVERAL_LETTERS.fullmatch(text)
        if not (is_run or listed):
            return None
        sets.append((set(re.findall(r"\b[A-J]\b", text)) if listed else set(text), bool(listed)))
    (first, is_first_listed), (second, is_second_listed) = sets
    return first == second if is_first_listed or is_second_listed else None


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
    commitments = [match for match in _COMMITMENT.finditer(text) if match.end() < len(text)]
    if commitments and _is_negated(text, commitments[-1]):
        return None
    choice = _leading_choice(text[commitments[-1].end() :] if commitments else text)
    return choice if choice is None or choice == SEVERAL or choice.letter in letters else None


def _is_negated(text: str, commitment: re.Match[str]) -> bool:
    """`I don't think it is B`; but of `not A but B` the negation belongs to A."""
    is_denied = _NEGATED.search(text[: commitment.start()]) is not None
    return is_denied != commitment.group().startswith("but")


def _leading_choice(text: str) -> Choice | None:
    lone = _LONE_LETTER.fullmatch(text)
    if lone:
        return Choice(lone[1].upper())
    lower = _LEADING_LOWER.fullmatch(text)
    if lower:
        if _ANOTHER_OPTION.match(lower[3].upper()):
            return SEVERAL
        return Choice((lower[1] or lower[2]).upper(), lower[3])
    leading = _LEADING.fullmatch(text)
    if not leading:
        return None
    letter, closing, rest = leading.groups()
    if _ARGUMENTS_FOLLOW.match(rest):  # F(x) and G(1, 2)
        return None
    rest = rest.strip()
    if _names_another(rest):
        return SEVERAL
    follows = _TEXT_FOLLOWS.match(rest)
    if closing or follows:
        option = rest[follows.end() :] if follows else rest
        return SEVERAL if _LETTERS_FOLLOW.match(option) else Choice(letter, option)
    if not rest or _REMARK_FOLLOWS.match(rest):
        return Choice(letter)
    # `C 12` names an option with its text, `A triangle` and `I think` do not.
    return Choice(letter, rest) if letter not in "AI" and rest[0] in "0123456789$\\" else None


def _names_another(rest: str) -> bool:
    """Whether what follows a letter takes it back or adds another; a reason may name the options it rules out."""
    is_hedged = _HEDGE.search(rest) and not _REASON_FOLLOWS.match(rest)
    takes_back = _CORRECTION.search(rest) or _LETTER_IN_PARENTHESES.search(rest)
    return bool(is_hedged or takes_back or _ANOTHER_OPTION.match(rest))


def _compare_text(prediction: str, target: Choice, choices: Sequence[str]) -> Outcome:
    """The option's text instead of its letter; it must not be the text of another option as well."""
    meaning = meaning_of(target.text)
    if meaning is not None:
        return read_yes_no(strip_phrases(prediction)) is meaning
    if not target.text:
        return False
    outcome = compare_statement(prediction, target.text).outcome
    others = [choice for choice in choices if text_key(choice) != text_key(target.text)]
    if outcome is False:
        return bool(choices) and _mentions_only(prediction, target.text, others)
    if any(compare_statement(prediction, choice).outcome is True for choice in others):
        return outcome is True and text_key(prediction) == text_key(target.text)
    return outcome


def _mentions_only(prediction: str, text: str, others: Sequence[str]) -> bool:
    """`It will increase`, where `increase` is an option and no other option is named besides."""
    if _NEGATION.search(prediction) or not text[:1].isalpha() or len(text) < _MIN_MENTION_CHARS:
        return False
    remaining, is_mentioned = prediction.casefold(), False
    for option in sorted((text, *others), key=len, reverse=True):  # so that a longer option hides one inside it
        remaining, count = re.subn(rf"(?<!\w){re.escape(option.casefold())}(?!\w)", "\0", remaining)
        if count and option != text:
            return False
        is_mentioned = is_mentioned or bool(count)
    return is_mentioned


def _contradicts(chosen: Choice, target: Choice, choices: Sequence[str]) -> bool:
    """The right letter with the text of another option; without a list of them, with another number or word."""
    if not chosen.text or not target.text or compare_statement(chosen.text, target.text).outcome is True:
        return False
    if choices:
        return any(compare_statement(chosen.text, choice).outcome is True for choice in choices)
    if read_quantity(target.text) is not None:
        return read_quantity(chosen.text) is not None
    first, second = (set(text.casefold().split()) for text in (chosen.text, target.text))
    return max(len(first), len(second)) <= _MAX_LABEL_WORDS and first.isdisjoint(second)
