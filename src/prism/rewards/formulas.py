"""Formulas as LaTeX: equal by exact arithmetic, different, or a pair that only computer algebra can decide."""

import re
from dataclasses import dataclass
from fractions import Fraction

from prism.rewards.exact import is_same_formula
from prism.rewards.normalization import text_key
from prism.rewards.quantities import read_quantity
from prism.rewards.units import DEGREE, PERCENT, RADIAN, Unit, read_unit


@dataclass(frozen=True, slots=True)
class SymbolicPair:
    """Two LaTeX expressions; constants may differ by `tolerance` (0: exactly equal)."""

    prediction: str
    ground_truth: str
    tolerance: Fraction = Fraction(0)


Outcome = bool | tuple[SymbolicPair, ...]
"""True, False, or the symbolic comparisons that must all hold."""

_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_SHORT_WORD = re.compile(r"(?<![^ (])[A-Za-z]{2}(?![^ )])")
_SHORT_WORD_LIST = "is it to of in or so by we an do he no on if be up my us"
_SHORT_WORDS = frozenset(_SHORT_WORD_LIST.split())
_FUNCTION_NAMES = "sin cos tan cot sec csc log exp sqrt arcsin arccos arctan sinh cosh tanh abs"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_PLAIN_FUNCTION = re.compile(rf"(?<![\\A-Za-z])({'|'.join(sorted(_FUNCTIONS - {'abs', 'sqrt'}))}|ln|pi)(?![A-Za-z])")
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)")
_MATH_MARK = re.compile(r"[0-9\\^+*/=|!-]")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]*\}")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*°")
_STATEMENT = re.compile(r"\\(?:perp|parallel|cong|sim|approx|in|emptyset)(?![A-Za-z])|[-=]>")
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_PI = re.compile(r"\\?pi(?![A-Za-z])")
_INFINITY = re.compile(r"^[-+]?\\infty$")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_TWO_NUMBERS = re.compile(r"(?<![_0-9])[0-9]+ [0-9]")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_ATTACHED_UNIT = re.compile(r"(.*[0-9})])\s*([A-Za-z]{2,5}(?:\^\{?[0-9]\}?)?|[°%]|[一-鿿]{1,4})$")
_LETTER_OUTSIDE_COMMAND = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")


def compare_formulas(prediction: str, ground_truth: str) -> Outcome:
    (first, first_unit), (second, second_unit) = split_unit(prediction), split_unit(ground_truth)
    if not (is_formula(first) and is_formula(second)):
        return False
    if not (_MATH_MARK.search(first) or _MATH_MARK.search(second)):
        return False
    if any((mark.search(first) is None) != (mark.search(second) is None) for mark in (_INFINITY, _RELATION)):
        return False
    scale = _scale(first_unit, second_unit, first, second)
    if scale is None:
        return False
    if not scale and text_key(first) == text_key(second):
        return True
    decimal = read_quantity(second)
    is_rounded = decimal is not None and decimal.number.is_decimal and read_quantity(first) is None
    tolerance = decimal.number.step / 2 if decimal is not None and is_rounded else Fraction(0)
    left, right = f"{scale}({latex(first)})" if scale else latex(first), latex(second)
    exact = is_same_formula(left, right, tolerance)
    return (SymbolicPair(left, right, tolerance),) if exact is None else exact


def _scale(first: Unit | None, second: Unit | None, first_text: str, second_text: str) -> str | None:
    """The factor between two units as LaTeX, "" for one; None if they do not measure the same.

    An angle in degrees is also compared with a multiple of π without a unit.
    """
    if first == DEGREE and (second == RADIAN or (second is None and _PI.search(second_text))):
        return r"\frac{\pi}{180} \cdot "
    if second == DEGREE and (first == RADIAN or (first is None and _PI.search(first_text))):
        return r"\frac{180}{\pi} \cdot "
    if not (first and second) or first == second:
        return ""
    if first.dimension != second.dimension or first.offset != second.offset:
        return None
    factor = first.factor / second.factor
    return rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot "


def is_formula(text: str) -> bool:
    """No words: algebra would read a word as a product of letters, and so equate anagrams. No statement either."""
    return (
        bool(text)
        and text[-1] not in "+-*/=^"
        and not _TWO_NUMBERS.search(text)
        and all(character.isascii() or character in "°μ" for character in text)
        and not _STATEMENT.search(text)
        and _SHORT_WORDS.isdisjoint(map(str.lower, _SHORT_WORD.findall(text)))
        and all(word in _FUNCTIONS or read_unit(word) is not None for word in _WORD.findall(_ENVIRONMENT.sub("", text)))
    )


def has_variables(text: str) -> bool:
    return _LETTER_OUTSIDE_COMMAND.search(split_unit(text)[0]) is not None


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


def latex(text: str) -> str:
    text = _PLAIN_ROOT.sub(r"\\sqrt{\1}", _THOUSANDS.sub("", text))
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text).replace("μ", r"\mu ")
    if _TRIGONOMETRY.search(text):
        return _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    return text.replace("°", "")
