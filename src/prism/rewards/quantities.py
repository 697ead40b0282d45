"""Quantities: a number with a unit, a counted noun or nothing, and when two of them say the same.

Conventions: a unit, currency sign, degree or percent sign or counted noun on one side only is ignored;
two units must agree after conversion. A prediction that is exact or written with more digits may round
to the decimals of the ground truth; one with fewer digits, and a rounded decimal for an exact ground
truth (fraction, root, π), is wrong.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from prism.rewards.numerals import Number, read_number
from prism.rewards.units import DEGREE, PERCENT, Unit, read_unit, split_currency


@dataclass(frozen=True, slots=True)
class Quantity:
    number: Number
    unit: Unit | None = None
    noun: str = ""


_APPROXIMATELY = re.compile(r"(?:about|around|roughly|approximately|approx\.?|\\approx)\s*", re.IGNORECASE)
_ARC = re.compile(r"([0-9]+)\s*°\s*([0-9]+(?:\.[0-9]+)?)\s*'\s*(?:([0-9]+(?:\.[0-9]+)?)\s*(?:''|\"))?")
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-5][0-9])|\s*o'?\s?clock|(?=\s*[ap]\.?m))\s*(?:([ap])\.?m\.?)?", re.IGNORECASE)
_NOUN = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]{3,})?")
_COUNTERS = frozenset("人个只本支辆名位块张条件棵朵岁次种页")
# Words after a number that change its value or turn it into a comparison, not something counted.
_NOT_COUNTED_WORDS = (
    "less more fewer than plus minus times over under and not squared cubed half halves third thirds quarter quarters "
    "fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth "
    "hundredths thousandth thousandths below negative power mod sin cos tan log sqrt dozen hundred thousand million "
    "billion divided multiplied until from but"
)
_NOT_COUNTED = frozenset(_NOT_COUNTED_WORDS.split())


@lru_cache(maxsize=8192)
def read_quantity(text: str) -> Quantity | None:
    """A cleaned text that is one quantity and nothing else."""
    text = _APPROXIMATELY.sub("", text, count=1) if _APPROXIMATELY.match(text) else text
    arc = _ARC.fullmatch(text)
    if arc:
        degrees = Fraction(arc[1]) + Fraction(arc[2]) / 60 + Fraction(arc[3] or 0) / 3600
        return Quantity(Number(degrees, Fraction(0)), DEGREE)
    percent_prefix, text = text.startswith("百分之"), text.removeprefix("百分之")
    currency, amount = split_currency(text)
    read = read_number(amount)
    if read is None:
        return None
    number, rest = read[0], read[1].strip()
    if percent_prefix or currency is not None:
        unit = PERCENT if percent_prefix else currency
        return Quantity(number, unit) if not rest or read_unit(rest) == unit else None
    return _with_rest(number, rest)


def _with_rest(number: Number, rest: str) -> Quantity | None:
    if not rest:
        return Quantity(number)
    unit = read_unit(rest)
    if unit is not None:
        return Quantity(number, unit)
    if rest in _COUNTERS or (_NOUN.fullmatch(rest) and _NOT_COUNTED.isdisjoint(rest.lower().split())):
        return Quantity(number, noun=rest.lower().rsplit(" ", 1)[-1].removesuffix("s"))
    return None


def is_same_quantity(prediction: Quantity, ground_truth: Quantity) -> bool:
    has_unit = [bool(quantity.unit or quantity.noun) for quantity in (prediction, ground_truth)]
    if all(has_unit):
        if prediction.unit is None or ground_truth.unit is None:
            return prediction.noun == ground_truth.noun != "" and is_same_number(prediction.number, ground_truth.number)
        if prediction.unit.dimension != ground_truth.unit.dimension:
            return False
        factor = prediction.unit.factor / ground_truth.unit.factor
        return is_same_number(prediction.number.scaled(factor), ground_truth.number)
    if is_same_number(prediction.number, ground_truth.number):
        return True
    # One bare side: 50% may also be written 0.5.
    if prediction.unit == PERCENT:
        return is_same_number(prediction.number.scaled(Fraction(1, 100)), ground_truth.number)
    if ground_truth.unit == PERCENT:
        return is_same_number(prediction.number.scaled(Fraction(100)), ground_truth.number)
    return False


def is_same_number(prediction: Number, ground_truth: Number) -> bool:
    if prediction.value == ground_truth.value:
        return True
    may_round = ground_truth.is_decimal and (
        prediction.step == 0 or (prediction.step < ground_truth.step and not ground_truth.is_scientific)
    )
    if prediction.is_scientific and ground_truth.is_scientific:
        may_round = prediction.step < ground_truth.step
    excess, half = abs(prediction.value) - abs(ground_truth.value), ground_truth.step / 2
    is_same_side = prediction.value * ground_truth.value >= 0
    return may_round and is_same_side and -half <= excess < half  # halves round away from zero


def is_same_time(prediction: str, ground_truth: str) -> bool | None:
    """Clock times, `3 o'clock` and `3:00 pm`; an am or pm on one side only is ignored. None unless both are times."""
    first, second = _CLOCK.fullmatch(prediction), _CLOCK.fullmatch(ground_truth)
    if not first or not second:
        return None
    halves = [match[3].lower() for match in (first, second) if match[3]]
    if len(halves) == 1:
        return _minutes(first) % 720 == _minutes(second) % 720
    return len(set(halves)) < 2 and _minutes(first) == _minutes(second)


def _minutes(clock: re.Match[str]) -> int:
    return 60 * int(clock[1]) + int(clock[2] or 0)
