from fractions import Fraction

import pytest

from prism.rewards.quantities import is_same_quantity, read_quantity
from prism.rewards.units import read_unit


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("about 5", Fraction(5), ""),
        ("5 km/h", Fraction(5), "km/h"),
        ("$5", Fraction(5), "$"),
        ("$5/hour", Fraction(5), "dollar per hour"),
        ("$1.5M", Fraction(1500000), "$"),
        ("2 h 30 min", Fraction(5, 2), "h"),
        ("6 feet 2 inches", Fraction(37, 6), "ft"),
        ("6'2\"", Fraction(37, 6), "ft"),
        ("5 dollars and 50 cents", Fraction(11, 2), "dollars"),
        ("1小时30分钟", Fraction(3, 2), "小时"),
        ("30°15'", Fraction(121, 4), "°"),
        ("百分之五十", Fraction(50), "%"),
        ("half an hour", Fraction(1, 2), "hour"),
        ("a week", Fraction(1), "week"),
        ("5 (cm)", Fraction(5), "cm"),
    ],
)
def test_reading(text: str, value: Fraction, unit: str):
    quantity = read_quantity(text)
    assert quantity is not None
    assert (quantity.number.value, quantity.unit) == (value, read_unit(unit))


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("5 red apples", {"red", "apple"}),
        ("25% of the students", {"student"}),
        ("12 boys in the class", {"boy", "class"}),
        ("5 cm long", set()),
        ("3个苹果", set("苹果")),
    ],
)
def test_nouns(text: str, nouns: set[str]):
    quantity = read_quantity(text)
    assert quantity is not None and quantity.nouns == nouns


@pytest.mark.parametrize(
    "text",
    [
        "5 or 6",
        "5 less than x",
        "5 squared",
        "5abc",
        "5 one",
        "1990s",
        "5 kg 6 g 7",
        "5 cm 5 m",
        "5个以上",
        "five tens",
        "x",
        "",
    ],
)
def test_what_is_not_one_quantity(text: str):
    assert read_quantity(text) is None


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "is_same"),
    [
        ("5 m", "500 cm", True),
        ("5 m", "5", True),
        ("25°C", "77°F", True),
        ("0°C", "273.15 K", True),
        ("50%", "0.5", True),
        ("1.2345", "1.23", True),
        ("1.235", "1.23", False),
        ("1.2", "1.23", False),
        ("1/3", "0.33", True),
        ("0.33", "1/3", False),
        ("0.0000001", "0", False),
        ("5 red balls", "5 balls", True),
        ("5 red balls", "5 blue balls", False),
        ("5 cm", "5 balls", False),
        ("20% decrease", "20% increase", False),
    ],
)
def test_comparison(prediction: str, ground_truth: str, is_same: bool):
    first, second = read_quantity(prediction), read_quantity(ground_truth)
    assert first is not None and second is not None
    assert is_same_quantity(first, second) is is_same
