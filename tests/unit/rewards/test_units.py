from fractions import Fraction

import pytest

from prism.rewards.units import read_unit, split_currency


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ("km/h", "m/s", Fraction(5, 18)),
        ("mph", "mile per hour", Fraction(1)),
        ("square centimetres", "m^2", Fraction(1, 10000)),
        ("cm2", "cm^2", Fraction(1)),
        ("平方厘米", "cm^{2}", Fraction(1)),
        ("mL", "cubic cm", Fraction(1)),
        ("N m", "J", Fraction(1)),
        (r"kg \cdot m s^-2", "newtons", Fraction(1)),
        ("W", "J/s", Fraction(1)),
        ("feet", "inches", Fraction(12)),
        ("minutes", "s", Fraction(60)),
        ("cents", "dollars", Fraction(1, 100)),
        ("kg", "pounds", Fraction(100000000, 45359237)),
        ("cm long", "cm", Fraction(1)),
    ],
)
def test_conversion(first: str, second: str, ratio: Fraction):
    left, right = read_unit(first), read_unit(second)
    assert left is not None and right is not None
    assert dict(left.dimension) == dict(right.dimension)
    assert left.factor / right.factor == ratio


@pytest.mark.parametrize(
    ("first", "second"),
    [("mW", "MW"), ("m", "m^2"), ("km", "km/h"), ("°C", "°F"), ("°", "degrees Celsius"), ("N", "J"), ("$", "€")],
)
def test_different_units(first: str, second: str):
    assert read_unit(first) is not None and read_unit(second) is not None
    assert read_unit(first) != read_unit(second)


@pytest.mark.parametrize("text", ["", "x", "apples", "per", "m/", "km km/x", "inx", "a" * 100])
def test_what_is_not_a_unit(text: str):
    assert read_unit(text) is None


def test_currency_before_the_amount():
    assert split_currency("-$5") == ("$", "-5")
    assert split_currency("US$ 5") == ("$", "5")
    assert split_currency("USD 5") == ("USD", "5")
    assert split_currency("Rs. 5") == ("Rs.", "5")
    assert split_currency("5") == ("", "5")
