import pytest

from prism.rewards.spelling import formula_spelling, singular, word_spelling


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The red cars", "red car"),
        ("cherries", "Cherry"),
        ("boxes", "box"),
        ("north-east", "Northeast"),
        ("x-axis", "X axis"),
        ("U.S.A.", "USA"),
        ("São Paulo", "sao paulo"),
        ("grey", "gray"),
        ("the first", "1st"),
        ("nineteenth", "19th"),
        ("twenty-first", "21st"),
    ],
)
def test_one_word_in_two_spellings(first: str, second: str):
    assert spell(first) == spell(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a - b", "- b"), ("a-b", "ab"), ("x-sin x", "x sin x"), ("ab-cd", "abcd"), ("a cos x", "cos x"),
        ("2 3", "23"), ("1 1/2", "11/2"), ("5 mW", "5 MW"), ("x^2", "X^2"), ("first", "second"), ("5_6", "56"),
    ],
)  # fmt: skip
def test_what_stays_apart(first: str, second: str):
    assert spell(first) != spell(second)


@pytest.mark.parametrize(
    ("first", "second"), [("x_{1}", "x_1"), ("H_2O", "H2O"), ("Figure 3", "figure 3"), ("2 x", "2x")]
)
def test_formulas(first: str, second: str):
    assert formula_spelling(first) == formula_spelling(second)


def test_singular_leaves_endings_that_are_no_plural():
    for word in ("glass", "bus", "axis", "yes", "gas"):
        assert singular(word) == word


def spell(text: str) -> str:
    return formula_spelling(text) if any(character.isdigit() for character in text) else word_spelling(text)
