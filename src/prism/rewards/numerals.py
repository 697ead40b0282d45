"""Number literals read exactly: decimals, thousands groups, powers of ten, fractions, ratios, words."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

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
        return Number(self.value * factor, self.step * abs(factor), self.is_decimal, self.is_scientific)


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?!,?[0-9])|[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = (
    r"(?:\s*(?:\\times|\\cdot|\*|[xX])\s*10\s*\^\s*(?:\{\s*([-+]?[0-9]{1,4})\s*\}|([-+]?[0-9]{1,4}))"
    r"|[eE]([-+]?[0-9]{1,4})(?![0-9A-Za-z]))"
)
_PLAIN = re.compile(rf"({_DECIMAL}){_POWER}?")
_FRACTION = re.compile(rf"({_DECIMAL})\s*/\s*({_DECIMAL})(?![0-9/])")
_RATIO = re.compile(rf"({_DECIMAL})\s*:\s*({_DECIMAL})(?![0-9:])")
_MIXED = re.compile(r"([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9/])")
_LATEX_FRACTION = re.compile(
    rf"([0-9]*)\s*\\frac\s*\{{\s*([-+]?)\s*({_DECIMAL})\s*\}}\s*\{{\s*([-+]?)\s*({_DECIMAL})\s*\}}"
)
_REPEATING = re.compile(r"([0-9]+)\.([0-9]*)\\(?:overline|dot|bar)\s*\{([0-9]+)\}")
_SIGN = re.compile(r"\s*([-+]?)\s*")
_MULTIPLIER = re.compile(r"\s*(?:(dozen|hundred|thousand|million|billion|trillion)\b|([百千万亿]))", re.IGNORECASE)
_MULTIPLIERS = {
    "dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip


def read_number(text: str) -> tuple[Number, str] | None:
    """The number a cleaned text begins with, and the rest of the text; None if there is none."""
    sign_match = _SIGN.match(text)
    assert sign_match is not None  # the pattern matches the empty string
    sign = -1 if sign_match[1] == "-" else 1
    read = _read_unsigned(text, sign_match.end()) or (_read_words(text) if not sign_match[1] else None)
    if read is None:
        return None
    number, end = read
    multiplier = _MULTIPLIER.match(text, end)
    if multiplier:
        number = number.scaled(Fraction(_MULTIPLIERS[(multiplier[1] or multiplier[2]).lower()]))
        end = multiplier.end()
    return number.scaled(Fraction(sign)), text[end:]


def _read_unsigned(text: str, start: int) -> tuple[Number, int] | None:
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
    return number.scaled(Fraction(10) ** exponent)


_LITERALS = (
    (_REPEATING, _repeating),
    (_LATEX_FRACTION, _latex_fraction),
    (_MIXED, lambda match: _quotient(Fraction(int(match[2])), Fraction(int(match[3])), int(match[1]))),
    (_FRACTION, lambda match: _quotient(_decimal(match[1]), _decimal(match[2]))),
    (_RATIO, lambda match: _quotient(_decimal(match[1]), _decimal(match[2]))),
    (_PLAIN, _plain),
)


def _decimal(literal: str) -> Fraction:
    return Fraction(Decimal(literal.replace(",", "").replace(" ", "")))


_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS, _TENS = _UNIT_WORDS.split(), _TEN_WORDS.split()
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_ENGLISH = re.compile(
    rf"({'|'.join(_TENS)})(?:[- ]({'|'.join(_UNITS[1:10])}))?\b|({'|'.join(_UNITS)})\b", re.IGNORECASE
)
_CHINESE_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE = re.compile("[零〇一二三四五六七八九两十]{1,4}")


def _read_words(text: str) -> tuple[Number, int] | None:
    """Number words below one hundred, English or Chinese."""
    match = _ENGLISH.match(text)
    if match:
        value = sum(_WORDS[word.lower()] for word in match.groups() if word)
        return Number(Fraction(value), Fraction(1)), match.end()
    match = _CHINESE.match(text)
    value = _chinese_value(match.group()) if match else None
    return (Number(Fraction(value), Fraction(1)), match.end()) if match and value is not None else None


def _chinese_value(characters: str) -> int | None:
    tens, mark, ones = characters.partition("十")
    if not mark:
        return _CHINESE_DIGITS[characters] if len(characters) == 1 else None
    if len(tens) > 1 or len(ones) > 1 or "十" in ones:
        return None
    return 10 * _CHINESE_DIGITS.get(tens, 1) + _CHINESE_DIGITS.get(ones, 0)
