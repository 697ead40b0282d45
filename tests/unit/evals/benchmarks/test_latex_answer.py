"""MathVision's comparison: latex2sympy, which the published rules call, as the independent reader of expressions."""

import random
import time
import warnings
from typing import Any

import pytest
from latex2sympy2_extended import latex2sympy

from prism.evals.benchmarks.latex_answer import is_same_answer, plain_answer, rounded_value

ARITHMETIC = [
    "7", "7.0", "-3", "+5", "--5", ".5", "1,200", "10,000,000", "12,345.67", "2*3", r"2\times3", r"2\cdot3",
    r"10\div2", "2-3*4", "8/2/2*3", "1/2/2", "(3+4)/2", "3:4", "3:4:5", r"\frac{1}{2}", r"-\frac{3}{4}",
    r"\frac{22}{7}", r"\frac{7}{3}-1", r"1\frac{1}{2}", r"12\frac{3}{4}", "{1}/{2}", "2^{10}", "10^{-2}", "2^3^2",
    "-2^2", "9^{1/2}", r"(\frac{1}{2})^2", r"\sqrt{3}", r"2\sqrt{2}", r"\sqrt[3]{8}", r"\frac{\sqrt{3}}{2}",
    r"6\sqrt{3}+2", r"2\sqrt{2}\cdot3", r"4-\sqrt{2}/2", r"\pi", "2π", r"\frac{1}{2}\pi", r"2/3\pi", r"3\pi-2",
    "50%", r"100\%", "1.005", "0.125", "2.675",
]  # fmt: skip
NO_ARITHMETIC = ["", "5.", "5cm", "60°", "x+1", "x=6", "notb", "b.4", "(1,2)", "1,23", "[1,4]", "{5}", r"\frac12",
                 "3)", "(3", r"\sqrt", "^2", r"\boxed{}", "1//2", r"\frac{1}{0}", r"\sqrt{-1}",
                 "(-8)^{1/3}"]  # fmt: skip


@pytest.mark.parametrize("text", ARITHMETIC)
def test_values_agree_with_latex2sympy(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expression: Any = latex2sympy(text)
    expected = float(expression.doit())
    # Rounded to two decimals: within half of the last one, or on its edge.
    assert rounded_value(text) == pytest.approx(expected, abs=0.00501)


@pytest.mark.parametrize("text", NO_ARITHMETIC)
def test_what_is_no_real_number_has_no_value(text: str) -> None:
    assert rounded_value(text) is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"\boxed{C}", "c"),
        (r"so $\boxed{\frac{1}{2}}$ holds", r"\frac{1}{2}"),
        ("(A)", "a"),
        (r"\text{B}", "b"),
        ("x = 60^{\\circ}", "60"),
        (r"x \approx 3.14", "3.14"),
        ("12 km", "12"),
        ("5 units.", "5"),
        ("$.5$", r"\frac{1}{2}"),
        ("3/4", r"\frac{3}{4}"),
        ("3/04", "3/04"),
        (r"3\sqrt2", r"3\sqrt{2}"),
        (r"\frac1{\sqrt3}", r"\frac{1}{\sqrt{3}}"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        ("7} and more {", "7"),
        ("", ""),
    ],
)
def test_answers_are_stripped(text: str, plain: str) -> None:
    assert plain_answer(text) == plain


@pytest.mark.parametrize(
    ("answer", "truth", "is_same"),
    [
        ("c", "C", True),
        ("3.142", "3.14", True),
        ("0.004", "0.001", True),
        ("0.004", "0.006", False),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("(1,2)", "(1,2)", True),
        ("(2,1)", "(1,2)", False),
        ("(2/2,1.999)", "(1,2.0)", True),
        ("(1.0,2)", "(1,2)", False),
        ("[1,4]", "(1,4)", False),
        ("x", "y", False),
        ("", "", False),
    ],
)
def test_answers_are_compared_as_text_tuple_or_number(answer: str, truth: str, is_same: bool) -> None:
    assert is_same_answer(answer, truth) is is_same


def test_no_text_takes_long_or_fails() -> None:
    generator = random.Random(0)
    pieces = [
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        r"\frac",
        r"\sqrt",
        r"\pi",
        "1",
        "9",
        ",",
        "000",
        ".",
        "^",
        "%",
        "/",
        "*",
        "-",
    ]
    texts = ["".join(generator.choices(pieces, k=generator.randint(1, 60))) for _ in range(3000)]
    start = time.perf_counter()
    for text in [*texts, "9^" * 90 + "9", "9" * 190 + "^64", "(" * 190, "(" + "9" * 90 + "," + "9.5^9" * 20 + ")"]:
        assert not is_same_answer(plain_answer(text), "no such answer")
        is_same_answer(text, "(1,2)")
    assert time.perf_counter() - start < 20
