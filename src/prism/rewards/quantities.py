"""Quantities: a number with a unit, a counted noun or nothing, and when two of them say the same.

Conventions: a unit, currency sign, degree or percent sign or counted noun on one side only is ignored;
two units must agree after conversion. A prediction that is exact or written with more digits may round
to the decimals of the ground truth; one with fewer digits, and a rounded decimal for an exact ground
truth (fraction, root, π), is wrong.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from prism.rewards.memory import Remembered
from prism.rewards.number_words import NUMBER_WORDS
from prism.rewards.numerals import Number, read_number
from prism.rewards.spelling import singular
from prism.rewards.units import DEGREE, PERCENT, Unit, read_unit, split_currency


@dataclass(frozen=True, slots=True)
class Quantity:
    """`nouns` are the words that say what is counted or measured, in the singular."""

    number: Number
    unit: Unit | None = None
    nouns: frozenset[str] = frozenset()


_APPROXIMATELY = re.compile(
    r"(?:(?:about|around|roughly|approximately|exactly|only|just|a total of)\s"
    r"|approx\.?|\\approx|大?约|一?共有?|总共)\s*",
    re.IGNORECASE,
)
_ARTICLE_AND_UNIT = re.compile(r"an? ([a-z]{3,})")
_UNIT_IN_PARENTHESES = re.compile(r"([^()]+?)\s*\(([^()0-9]+)\)")
_ARC = re.compile(r"([0-9]+)\s*°\s*([0-9]+(?:\.[0-9]+)?)\s*'\s*(?:([0-9]+(?:\.[0-9]+)?)\s*(?:''|\"))?")
_FEET = re.compile(r"([0-9]+)\s*'\s*([0-9]+)\s*(?:''|\")?")
_ARTICLE = re.compile(r"^ an? (?=[a-z]{3})")
_DECADE = re.compile(r"[12][0-9]{2}0s")
_PART_OF_SUM = re.compile(r"([^0-9,]+?)\s*(?:,\s|\band\s|又|零)?\s*(?=[0-9])")
_MAX_PARTS = 4
# Without a space between, letters are more likely a product: 5 abc is counted, 5abc is not.
_WORDS = re.compile(r"(?: of| to)?(?: [a-z]{3}|[a-z]{4})[a-z]*(?:\^[23])?(?: [a-z]+){0,7}")
_COUNTED = re.compile("[人个只本支辆名位块张条件棵朵岁次种页倍颗根]([一-鿿]{0,6})")
_NOT_COUNTED_CHARACTERS = frozenset("以多少或和至到不半")
_SMALL_WORD_LIST = "of the in on at is are each total altogether a an long tall wide high deep"
_SMALL_WORDS = frozenset(_SMALL_WORD_LIST.split())
# Words after a number that change its value or turn it into a comparison, not something counted.
_NOT_COUNTED_WORDS = (
    "less more fewer than plus minus over under and or not squared cubed half halves third thirds quarter quarters "
    "fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth "
    "hundredths thousandth thousandths below negative power mod sin cos tan log sqrt divided multiplied until from but "
    "by past out then maybe if factorial root choose tens hundreds thousands millions billions dozens"
)
_NOT_COUNTED = frozenset(_NOT_COUNTED_WORDS.split()) | NUMBER_WORDS
_MULTIPLES = {"k": 10**3, "m": 10**6, "b": 10**9}


@Remembered
def read_quantity(text: str) -> Quantity | None:
    """A cleaned text that is one quantity and nothing else."""
    text = _APPROXIMATELY.sub("", text, count=1) if _APPROXIMATELY.match(text) else text
    special = _read_special(text)
    if special or _DECADE.fullmatch(text):
        return special
    feet = _FEET.fullmatch(text)
    if feet:
        text = f"{feet[1]} ft {feet[2]} in"
    percent_prefix, text = text.startswith("百分之"), text.removeprefix("百分之")
    currency, amount = split_currency(text)
    read = read_number(amount)
    if read is None:
        return None
    number, rest = read[0], _ARTICLE.sub(" ", read[1].rstrip())
    if percent_prefix:
        return Quantity(number, PERCENT) if not rest else None
    if currency:
        return _money(currency, number, rest.strip())
    return _with_rest(number, rest) or _sum_of_parts(number, rest)


def _read_special(text: str) -> Quantity | None:
    """`30°15'`, `5 (cm)` and `an hour`."""
    arc = _ARC.fullmatch(text)
    if arc:
        degrees = Fraction(arc[1]) + Fraction(arc[2]) / 60 + Fraction(arc[3] or 0) / 3600
        return Quantity(Number(degrees, Fraction(0)), DEGREE)
    one = _ARTICLE_AND_UNIT.fullmatch(text)
    if one and read_unit(one[1]):
        return Quantity(Number(Fraction(1), Fraction(1)), read_unit(one[1]))
    enclosed = _UNIT_IN_PARENTHESES.fullmatch(text)
    unit = read_unit(enclosed[2]) if enclosed else None
    quantity = read_quantity(enclosed[1]) if enclosed and unit else None
    return Quantity(quantity.number, unit) if quantity and not quantity.unit else None


def _money(currency: str, number: Number, rest: str) -> Quantity | None:
    multiple = _MULTIPLES.get(rest.lower())
    if multiple:
        return Quantity(number.scaled(Fraction(multiple)), read_unit(currency))
    if not rest or rest[0] == "/" or rest.startswith("per "):
        unit = read_unit(currency + rest)
        return Quantity(number, unit) if unit else None
    return Quantity(number, read_unit(rest)) if read_unit(rest) == read_unit(currency) else None


def _with_rest(number: Number, rest: str) -> Quantity | None:
    if not rest:
        return Quantity(number)
    unit = read_unit(rest)
    if unit is not None:
        return Quantity(number, unit)
    counted = _COUNTED.fullmatch(rest.strip())
    if counted:
        return Quantity(number, nouns=frozenset(counted[1])) if _NOT_COUNTED_CHARACTERS.isdisjoint(rest) else None
    head, _, tail = rest.strip().partition(" ")
    unit = read_unit(head)
    words = (f" {tail}" if unit else rest).lower()
    if not _WORDS.fullmatch(words) or not _NOT_COUNTED.isdisjoint(words.split()):
        return None
    nouns = frozenset(singular(word.partition("^")[0]) for word in words.split()) - _SMALL_WORDS
    return Quantity(number, unit, nouns)


def _sum_of_parts(number: Number, rest: str) -> Quantity | None:
    """`2 h 30 min`, `6 feet 2 inches`, `5 dollars and 50 cents`: whole numbers of ever smaller units."""
    total, unit = number, None
    rest = rest.strip()
    for _ in range(_MAX_PARTS):
        part = _PART_OF_SUM.match(rest)
        part_unit = read_unit(part[1] if part else rest)
        if part_unit is None or part_unit.offset or (unit and not _is_part_of(part_unit, unit)):
            return None
        if unit is None:
            unit = part_unit
        else:
            scaled = number.scaled(part_unit.factor / unit.factor)
            total = Number(total.value + scaled.value, scaled.step)
        if part is None:
            return Quantity(total, unit)
        if number.step != 1:
            return None
        read = read_number(rest[part.end() :])
        if read is None:
            return None
        number, rest = read[0], read[1].strip()
    return None


def _is_part_of(smaller: Unit, larger: Unit) -> bool:
    return smaller.dimension == larger.dimension and smaller.factor < larger.factor


def is_same_quantity(prediction: Quantity, ground_truth: Quantity) -> bool:
    first, second = prediction, ground_truth
    if first.nouns and second.nouns and not (first.nouns <= second.nouns or second.nouns <= first.nouns):
        return False
    if first.unit and second.unit:
        return first.unit.dimension == second.unit.dimension and is_same_number(
            convert(first.number, first.unit, second.unit), second.number
        )
    if (first.unit and second.nouns) or (second.unit and first.nouns):
        return False
    if is_same_number(first.number, second.number):
        return True
    # One bare side: 50% may also be written 0.5.
    if first.unit == PERCENT:
        return is_same_number(first.number.scaled(Fraction(1, 100)), second.number)
    if second.unit == PERCENT:
        return is_same_number(first.number.scaled(Fraction(100)), second.number)
    return False


def convert(number: Number, source: Unit, target: Unit) -> Number:
    scaled = number.scaled(source.factor / target.factor)
    shift = (source.offset - target.offset) / target.factor
    return Number(scaled.value + shift, scaled.step, scaled.is_decimal, scaled.is_scientific)


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
