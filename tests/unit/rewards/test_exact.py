from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prism.rewards.exact import is_same_formula


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"\sqrt8", r"2\sqrt2"),
        (r"\frac{1}{2-\sqrt{3}}", r"2+\sqrt{3}"),
        (r"\sqrt{\frac{3}{4}}", r"\frac{\sqrt{3}}{2}"),
        (r"(1+\sqrt{2})^2", r"3+2\sqrt{2}"),
        (r"\sqrt{2}\cdot\sqrt{3}", r"\sqrt{6}"),
        (r"\sqrt[3]{-8}", "-2"),
        ("4^{1/2}", "2"),
        ("2^{-1}", "0.5"),
        ("-2^2", "-4"),
        (r"2\frac{1}{3}\pi", r"\frac{7\pi}{3}"),
        ("(2+i)(2-i)", "5"),
        ("1e-3", "0.001"),
        ("(x+1)(x-1)", "x^2-1"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"\frac{a}{b}+\frac{c}{d}", r"\frac{ad+bc}{bd}"),
        ("x_1+x_{2}", "x_{2}+x_1"),
        ("y=2x+3", "2x-y+3=0"),
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"),
    ],
)
def test_equal(first: str, second: str):
    assert is_same_formula(first, second) is True


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5}"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        (r"\pi", r"\frac{22}{7}"),
        (r"\pi^2", r"2\pi"),
        ("1+i", "1-i"),
        ("x-1", "1-x"),
        ("x^2y", "xy^2"),
        ("x+1", "X+1"),
        ("3x+4y=14", "3x+4y=15"),
        ("x=2", "x^2=4"),
    ],
)
def test_different(first: str, second: str):
    assert is_same_formula(first, second) is False


@pytest.mark.parametrize(
    "text",
    [
        "1/2x", "2 3", "x2", "f(x+1)", r"\sin x", "2^x", r"\sqrt{x}", r"\sqrt{-1}", "9^9^9^9", r"\frac{1}{0}", "word",
        "", "(", "x=", "x=y=z", "x" * 300, "(" * 100 + "x" + ")" * 100, "((((x+1)^20)^20)^20)^20", "(a+b+c+d+e+k)^{24}",
        r"\sqrt{1000003}", "x<1",
    ],
)  # fmt: skip
def test_what_is_not_read_is_left_undecided(text: str):
    assert is_same_formula(text, text) is None


def test_constants_within_a_tolerance():
    assert is_same_formula(r"\pi", "3.14", Fraction(1, 200)) is True
    assert is_same_formula(r"\pi", "3.15", Fraction(1, 200)) is False
    assert is_same_formula("e", "2.72", Fraction(1, 200)) is True
    assert is_same_formula(r"\frac{1+\sqrt{5}}{2}", "1.618", Fraction(1, 2000)) is True
    assert is_same_formula("x", "1.5", Fraction(1, 20)) is None


_numbers = st.integers(-9, 9)


@given(_numbers, _numbers, _numbers, _numbers, _numbers)
def test_products_of_binomials_are_expanded_as_by_hand(a: int, b: int, c: int, d: int, other: int):
    product = f"({a}x+{b}y)({c}x+{d}y)"
    expanded = f"({a * c})x^2+({a * d + b * c})xy+({b * d})y^2"
    assert is_same_formula(product, expanded) is True
    assume(other != 0)
    assert is_same_formula(product, f"{expanded}+({other})xy") is False


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_roots_agree_with_floating_point(a: int, b: int, c: int):
    """Sums of two roots over a small range either are equal or differ by far more than rounding."""
    is_close = abs(a**0.5 + b**0.5 - c * (a * b) ** 0.25) < 1e-9
    assert is_same_formula(rf"(\sqrt{{{a}}}+\sqrt{{{b}}})^2", rf"{a}+{b}+2\sqrt{{{a * b}}}") is True
    if not is_close:
        assert is_same_formula(rf"\sqrt{{{a}}}+\sqrt{{{b}}}", rf"{c}\sqrt{{{a + b}}}") is (
            abs(a**0.5 + b**0.5 - c * (a + b) ** 0.5) < 1e-9
        )
