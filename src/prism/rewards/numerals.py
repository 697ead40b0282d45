"""Numbers read exactly: decimals, thousands groups, powers of ten, fractions, ratios, and words."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from prism.rewards.number_words import read_words

_MAX_EXPONENT = 400
"""Powers of ten beyond this are left unread, so that a short text cannot ask for gigabytes of digits."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value. `step` is the unit of the last written digit, 0 for a fraction (which is exact)."""

    value: Fraction
    step: Fraction
    is_decimal: bool = False
    """Written with digits after the decimal point."""
    is_scientific: bool = False

    def scaled(self, factor: Fraction) -> "Number":
        if factor == 1:
            return self
        return Number(self.value * factor, self.step * abs(factor), self.is_decimal, self.is_scientific)


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?!,?[0-9])|[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = (
    r"(?:\s*(?:\\times|\\cdot|\*|[xX])\s*10\s*\^\s*(?:\{\s*([-+]?[0-9]{1,4})\s*\}|([-+]?[0-9]{1,4}))"
    r"|[eE]([-+]?[0-9]{1,4})(?![0-9A-Za-z]))"
)
_PLAIN = re.compile(rf"({_DECIMAL}){_POWER}?")
_POWER_OF_TEN = re.compile(r"10\s*\^\s*(?:\{\s*([-+]?[0-9]{1,4})\s*\}|([-+]?[0-9]{1,4}))(?![0-9^])")
_FRACTION = re.compile(rf"({_DECIMAL})\s*(?:/|out of)\s*({_DECIMAL})(?![0-9/])")
_RATIO = re.compile(rf"({_DECIMAL})(?:\s*[:比]\s*| to )({_DECIMAL})(?![0-9:]| to |\s*[:比])")
_MIXED = re.compile(r"([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9/])")
_LATEX_FRACTION = re.compile(
    rf"([0-9]*)\s*\\frac\s*\{{\s*([-+]?)\s*({_DECIMAL})\s*\}}\s*\{{\s*([-+]?)\s*({_DECIMAL})\s*\}}"
)
_REPEATING = re.compile(r"([0-9]+)\.([0-9]*)\\(?:overline|dot|bar)\s*\{([0-9]+)\}")
_CONTINUED = re.compile(r"([0-9]+)\.([0-9]{0,20}?)([0-9]{1,6})\3+\\ldots")
_SIGN = re.compile(r"\s*(?:(minus|negative|负)|([-+]?))\s*(?![-+])", re.IGNORECASE)
_MULTIPLIER = re.compile(r"\s*(?:(dozen|hundred|thousand|million|billion|trillion)\b|([百千万亿]))", re.IGNORECASE)
_MULTIPLIERS = {
    "dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip


def read_number(text: str) -> tuple[Number, str] | None:
    """The number a cleaned text begins with, and the rest of the text; None if there is none."""
    sign_match = _SIGN.match(text)
    if sign_match is None:
        return None
    (word, sign), start = sign_match.groups(), sign_match.end()
    read = _read_literal(text, start)
    if read is None and not sign:
        words = read_words(text[start:])
        read = (Number(words[0], Fraction(words[0].denominator == 1)), start + words[1]) if words else None
    if read is None:
        return None
    number, end = read
    multiplier = _MULTIPLIER.match(text, end)
    if multiplier:
        number = number.scaled(Fraction(_MULTIPLIERS[(multiplier[1] or multiplier[2]).lower()]))
        end = multiplier.end()
    return number.scaled(_MINUS_ONE) if word or sign == "-" else number, text[end:]


def _read_literal(text: str, start: int) -> tuple[Number, int] | None:
    if text[start : start + 1] not in _FIRST_CHARACTERS:
        return None
    for pattern, build in _LITERALS:
        match = pattern.match(text, start)
        number = build(match) if match else None
        if match and number is not None:
            return number, match.end()
    return None


def _repeating(match: re.Match[str]) -> Number:
    whole, head, cycle = match.groups()
    tail = Fraction(int(cycle), 10 ** len(head) * (10 ** len(cycle) - 1))
    return Number(_decimal(f"{whole}.{head or 0}") + tail, Fraction(0))


def _latex_fraction(match: re.Match[str]) -> Number | None:
    whole, sign_above, above, sign_below, below = match.groups()
    if whole and (sign_above or sign_below):
        return None
    sign = -1 if (sign_above == "-") != (sign_below == "-") else 1
    return _quotient(sign * _decimal(above), _decimal(below), int(whole or 0))


def _quotient(above: Fraction, below: Fraction, whole: int = 0) -> Number | None:
    return Number(whole + above / below, Fraction(0)) if below else None


def _plain(match: re.Match[str]) -> Number | None:
    literal, *exponents = match.groups()
    exponent_text = next((exponent for exponent in exponents if exponent), None)
    exponent = int(exponent_text or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    decimals = len(literal.partition(".")[2])
    number = Number(_decimal(literal), Fraction(1, 10**decimals), decimals > 0, exponent_text is not None)
    return number.scaled(Fraction(10) ** exponent) if exponent else number


def _power_of_ten(exponent: str) -> Number | None:
    if abs(int(exponent)) > _MAX_EXPONENT:
        return None
    value = Fraction(10) ** int(exponent)
    return Number(value, value, is_scientific=True)


_MINUS_ONE = Fraction(-1)
_FIRST_CHARACTERS = frozenset("0123456789.\\")
_LITERALS = (
    (_REPEATING, _repeating),
    (_CONTINUED, _repeating),
    (_POWER_OF_TEN, lambda match: _power_of_ten(match[1] or match[2])),
    (_LATEX_FRACTION, _latex_fraction),
    (_MIXED, lambda match: _quotient(Fraction(int(match[2])), Fraction(int(match[3])), int(match[1]))),
    (_FRACTION, lambda match: _quotient(_decimal(match[1]), _decimal(match[2]))),
    (_RATIO, lambda match: _quotient(_decimal(match[1]), _decimal(match[2]))),
    (_PLAIN, _plain),
)


def _decimal(literal: str) -> Fraction:
    return Fraction(Decimal(literal.replace(",", "").replace(" ", "")))
