from fractions import Fraction

import pytest

from prism.rewards.formulas import Outcome, SymbolicPair, compare_formulas, is_formula, split_unit
from prism.rewards.units import read_unit


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "outcome"),
    [
        ("2x+x", "3x", True),
        ("2x", "2y", False),
        (r"2\sqrt{3} m", r"200\sqrt{3} cm", True),
        (r"2\sqrt{3} m", r"2\sqrt{3} cm", False),
        (r"\frac{\pi}{3}", "60°", True),
        ("60°", r"\frac{\pi}{4}", False),
        (r"\pi", "3.14", True),
        (r"\pi", "3.15", False),
        ("x>3", "3", False),
        (r"\infty", "3", False),
        ("listen", "silent", False),
        (r"\sin x", r"\cos x", (SymbolicPair(r"\sin x", r"\cos x"),)),
        (r"\sin 1", "0.84", (SymbolicPair(r"\sin 1", "0.84", Fraction(1, 200)),)),
    ],
)
def test_comparison(prediction: str, ground_truth: str, outcome: Outcome):
    assert compare_formulas(prediction, ground_truth) == outcome


@pytest.mark.parametrize("text", ["x+1", r"\sin x", "sin(x)", "3 cm", "abs(x)", r"\frac{1}{2}at^2"])
def test_formulas(text: str):
    assert is_formula(text)


@pytest.mark.parametrize("text", ["", "red", "It is 5", "2 3", "x+", r"AB \perp CD", "5厘米", "x -> y"])
def test_what_is_no_formula(text: str):
    assert not is_formula(text)


@pytest.mark.parametrize(
    ("text", "formula", "unit"),
    [
        (r"3\sqrt{3} cm^2", r"3\sqrt{3}", "cm^2"),
        (r"12\pi square metres", r"12\pi", "m^2"),
        (r"2\sqrt{3}厘米", r"2\sqrt{3}", "cm"),
        (r"\sin 30°", r"\sin 30°", ""),
        ("2x m", "2x m", ""),
    ],
)
def test_units_of_formulas(text: str, formula: str, unit: str):
    assert split_unit(text) == (formula, read_unit(unit))
