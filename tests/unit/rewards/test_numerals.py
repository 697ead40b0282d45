from fractions import Fraction

import pytest

from prism.rewards.numerals import read_number


@pytest.mark.parametrize(
    ("text", "value", "step", "rest"),
    [
        ("42", Fraction(42), Fraction(1), ""),
        ("-3.50 kg", Fraction(-7, 2), Fraction(1, 100), " kg"),
        (".5", Fraction(1, 2), Fraction(1, 10), ""),
        ("1,234,567", Fraction(1234567), Fraction(1), ""),
        ("1 000", Fraction(1000), Fraction(1), ""),
        ("10,20", Fraction(10), Fraction(1), ",20"),
        ("1.5e-3", Fraction(3, 2000), Fraction(1, 10000), ""),
        (r"1.5 \times 10^{3}", Fraction(1500), Fraction(100), ""),
        ("3/4", Fraction(3, 4), Fraction(0), ""),
        (r"-\frac{1}{2} m", Fraction(-1, 2), Fraction(0), " m"),
        (r"\frac{-1}{-2}", Fraction(1, 2), Fraction(0), ""),
        (r"2\frac{1}{3}", Fraction(7, 3), Fraction(0), ""),
        ("-1 1/2", Fraction(-3, 2), Fraction(0), ""),
        (r"0.1\overline{6}", Fraction(1, 6), Fraction(0), ""),
        ("2:4", Fraction(1, 2), Fraction(0), ""),
        ("2.5 million people", Fraction(2500000), Fraction(100000), " people"),
        ("twenty-one", Fraction(21), Fraction(1), ""),
        ("三十五", Fraction(35), Fraction(1), ""),
        ("十", Fraction(10), Fraction(1), ""),
    ],
)
def test_literals_are_read_exactly(text: str, value: Fraction, step: Fraction, rest: str):
    read = read_number(text)
    assert read is not None
    assert (read[0].value, read[0].step, read[1]) == (value, step, rest)


@pytest.mark.parametrize("text", ["", "x", "-", ".", "seventeenth", "-three", r"\frac{1}{x}"])
def test_what_is_not_a_number(text: str):
    assert read_number(text) is None


def test_huge_exponents_are_never_expanded():
    assert read_number("1e4000") is None
    read = read_number("1e99999")
    assert read is not None and (read[0].value, read[1]) == (Fraction(1), "e99999")  # a number, then letters
