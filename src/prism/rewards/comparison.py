"""Whether two cleaned answers say the same, decided without a computer algebra system where possible.

The outcome is True, False, or the symbolic comparisons that must all hold for the answers to agree.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from prism.rewards.normalization import text_key
from prism.rewards.quantities import is_same_quantity, is_same_time, read_quantity
from prism.rewards.structure import Value, read_value
from prism.rewards.units import DEGREE, PERCENT, Unit, read_unit


@dataclass(frozen=True, slots=True)
class SymbolicPair:
    """Two LaTeX expressions; constants may differ by `tolerance` (0: exactly equal)."""

    prediction: str
    ground_truth: str
    tolerance: Fraction = Fraction(0)


Outcome = bool | tuple[SymbolicPair, ...]

_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_FUNCTION_NAMES = "sin cos tan cot sec csc log exp sqrt arcsin arccos arctan sinh cosh tanh abs"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_PLAIN_FUNCTION = re.compile(rf"(?<![\\A-Za-z])({'|'.join(sorted(_FUNCTIONS - {'abs', 'sqrt'}))}|ln|pi)(?![A-Za-z])")
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)")
_MATH_MARK = re.compile(r"[0-9\\^+*/=|!-]")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]*\}")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*°")
_STATEMENT = re.compile(r"\\(?:perp|parallel|cong|sim)(?![A-Za-z])")
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_ATTACHED_UNIT = re.compile(r"(.*[0-9})])\s*([A-Za-z]{2,5}(?:\^\{?[0-9]\}?)?|[°%])$")
_LETTER_OUTSIDE_COMMAND = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")


def compare(prediction: str, ground_truth: str) -> Outcome:
    """Compare two texts as `clean` leaves them."""
    decided = _compare_as_written(prediction, ground_truth)
    return _compare_values(read_value(prediction), read_value(ground_truth)) if decided is None else decided


def all_of(outcomes: Iterable[Outcome]) -> Outcome:
    pairs: tuple[SymbolicPair, ...] = ()
    for outcome in outcomes:
        if outcome is False:
            return False
        if outcome is not True:
            pairs += outcome
    return pairs or True


def _compare_as_written(prediction: str, ground_truth: str) -> bool | None:
    """Equal texts, quantities or clock times; None where these do not decide."""
    if text_key(prediction) == text_key(ground_truth):
        return True
    first, second = read_quantity(prediction), read_quantity(ground_truth)
    if first and second:
        return is_same_quantity(first, second)
    return is_same_time(prediction, ground_truth)


def _compare_values(prediction: Value, ground_truth: Value) -> Outcome:
    labels = prediction.label, ground_truth.label
    if all(labels) and labels[0] != labels[1] and not any(_is_word(label) for label in labels):
        return False
    if prediction.items and ground_truth.items:
        return _compare_lists(prediction, ground_truth)
    if prediction.items or ground_truth.items:
        return False
    texts = prediction.text, ground_truth.text
    if any(labels) != all(labels) and any("=" in text for text in texts):
        # `y = 2x + 3` against `2x - y + 3 = 0`: two equations, though only one reads as a binding.
        first, second = (f"{label}={text}" if label else text for label, text in zip(labels, texts, strict=True))
        return _symbolic(first, second)
    decided = _compare_as_written(*texts)
    return _symbolic(*texts) if decided is None else decided


def _is_word(label: str) -> bool:
    return len(label) > 3 and label.islower() and label.isalpha()


def _compare_lists(prediction: Value, ground_truth: Value) -> Outcome:
    first, second = prediction.items, ground_truth.items
    if len(first) != len(second):
        return False
    if prediction.brackets and ground_truth.brackets and prediction.brackets != ground_truth.brackets:
        return False
    labels = [[item.label for item in items] for items in (first, second)]
    if all(labels[0]) and sorted(labels[0]) == sorted(labels[1]) and len(set(labels[0])) == len(first):
        by_label = {item.label: item for item in first}
        return all_of(_compare_values(by_label[item.label], item) for item in second)
    are_points = all(item.items for item in (*first, *second))
    if prediction.is_ordered and ground_truth.is_ordered and not are_points:
        return all_of(_compare_values(*pair) for pair in zip(first, second, strict=True))
    return _compare_unordered(first, second)


def _compare_unordered(first: tuple[Value, ...], second: tuple[Value, ...]) -> Outcome:
    """Match equal members; what only algebra can match is left as one pair of sets."""
    remaining, unmatched, has_pairs = list(second), [], False
    for item in first:
        outcomes = [_compare_values(item, candidate) for candidate in remaining]
        if True in outcomes:
            remaining.pop(outcomes.index(True))
            continue
        unmatched.append(item)
        has_pairs = has_pairs or any(outcomes)
    if not unmatched:
        return True
    if not has_pairs:
        return False
    if len(unmatched) == 1:
        return _compare_values(unmatched[0], remaining[0])
    return (SymbolicPair(_latex_set(unmatched), _latex_set(remaining)),)


def _latex_set(items: Iterable[Value]) -> str:
    return rf"\{{{', '.join(_latex(item.text) for item in items)}\}}"


def _symbolic(prediction: str, ground_truth: str) -> Outcome:
    if not (_is_wordless(prediction) and _is_wordless(ground_truth)):
        return False
    if _STATEMENT.search(prediction) or _STATEMENT.search(ground_truth):  # nothing algebra could decide
        return False
    if not (_MATH_MARK.search(prediction) or _MATH_MARK.search(ground_truth)):
        return False
    (first, first_unit), (second, second_unit) = split_unit(prediction), split_unit(ground_truth)
    scale = ""
    if first_unit and second_unit:
        if first_unit.dimension != second_unit.dimension:
            return False
        factor = first_unit.factor / second_unit.factor
        scale = "" if factor == 1 else rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot "
    if not scale and text_key(first) == text_key(second):
        return True
    decimal = read_quantity(second)
    is_rounded = decimal is not None and decimal.number.is_decimal and read_quantity(first) is None
    tolerance = decimal.number.step / 2 if decimal is not None and is_rounded else Fraction(0)
    left = rf"{scale}\left({_latex(first)}\right)" if scale else _latex(first)
    return (SymbolicPair(left, _latex(second), tolerance),)


def _is_wordless(text: str) -> bool:
    """Formulas only: algebra would read a word as a product of letters, and so equate anagrams."""
    return (
        bool(text)
        and all(character.isascii() or character in "°Ω" for character in text)
        and all(word in _FUNCTIONS or read_unit(word) is not None for word in _WORD.findall(_ENVIRONMENT.sub("", text)))
    )


def split_unit(text: str) -> tuple[str, Unit | None]:
    r"""Take a unit off the end of a formula: `3\sqrt{3} cm^2`. Inside trigonometry `°` belongs to the formula."""
    words = text.split()
    for count in (3, 2, 1):
        head, tail = " ".join(words[:-count]), " ".join(words[-count:])
        if head and _may_be_unit(head, tail):
            unit = read_unit(tail)
            if unit is not None:
                return head, unit
    attached = _ATTACHED_UNIT.fullmatch(text)
    unit = read_unit(attached[2]) if attached else None
    if attached and unit and not (unit in (DEGREE, PERCENT) and _TRIGONOMETRY.search(text)):
        return attached[1], unit
    return text, None


def _may_be_unit(head: str, tail: str) -> bool:
    """A lone letter after an expression with variables is another variable, not a unit."""
    return tail[:1].isalpha() and (len(tail) > 1 or not _LETTER_OUTSIDE_COMMAND.search(head))


def _latex(text: str) -> str:
    text = _PLAIN_ROOT.sub(r"\\sqrt{\1}", _THOUSANDS.sub("", text))
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text)
    if _TRIGONOMETRY.search(text):
        return _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    return text.replace("°", "")
