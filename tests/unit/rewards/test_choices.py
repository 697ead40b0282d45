from collections.abc import Sequence

import pytest

from prism.rewards import verify_answer
from prism.rewards.choices import SEVERAL, Choice, read_choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", Choice("B")),
        ("(b)", Choice("B")),
        ("B: 45°", Choice("B", "45°")),
        ("(B) 45", Choice("B", "45")),
        ("b) 45", Choice("B", "45")),
        ("C 12", Choice("C", "12")),
        ("I would go with option D", Choice("D")),
        ("The answer is not A, it is C", Choice("C")),
        ("Answer: A. But on reflection, the final answer is C", Choice("C")),
        ("故选:C", Choice("C")),
        ("B is correct", Choice("B")),
        ("A or B", SEVERAL),
        ("(A), (B)", SEVERAL),
        ("A, C and D", SEVERAL),
        ("A triangle", None),
        ("A", Choice("A")),
        ("I think so", None),
        ("not B", None),
        ("Because of it", None),
        ("K", None),
        ("A'", None),
        ("", None),
    ],
)
def test_read_choice(text: str, choice: Choice | None):
    assert read_choice(text) == choice


def test_letters_beyond_the_options_name_none():
    assert read_choice("D", "ABC") is None
    assert read_choice("D. 5", "ABC") is None


LETTERS = ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("line B", "B"),
        ("Point C", "C"),
        ("Bar B", "B"),
        ("Sample B.", "B"),
        ("the line (B)", "B"),
        ("**Player A**", "A"),
        ("The answer is line B.", "B"),
        ("It is point C", "C"),
        ("Line B, because it is steeper", "B"),
        ("line B, not line A", "B"),
    ],
)
@pytest.mark.parametrize("choices", [None, LETTERS], ids=["no_choices", "choices"])
def test_a_noun_before_the_label_of_a_thing(prediction: str, letter: str, choices: Sequence[str] | None):
    assert verify_answer(prediction, letter, choices=choices) == "correct"
    others = [each for each in LETTERS if each != letter]
    assert all(verify_answer(prediction, other, choices=choices) == "wrong" for other in others)


@pytest.mark.parametrize(
    "prediction",
    [
        "line A or B",
        "line A or line B",
        "line B and line C",
        "line A, no, line B",
        "lines A, B",
        "maybe line B",
        "line B, maybe",
        "line AB",
        "not line B",
        "It is not line B",
        "I don't think the answer is line B",
        "neither line B",
        "no line B",
        "unlike line B",
        "sin B",
        "minus B",
        "vitamin B",
        "reject B",
    ],
)
@pytest.mark.parametrize("choices", [None, LETTERS], ids=["no_choices", "choices"])
def test_a_label_that_is_hedged_denied_or_no_label(prediction: str, choices: Sequence[str] | None):
    assert verify_answer(prediction, "B", choices=choices) == "wrong"


def test_a_label_in_the_figure_is_no_options_letter():
    assert verify_answer("line B", "B", choices=["10 cm", "20 cm", "30 cm"]) == "wrong"
    assert verify_answer("point A", "A", choices=["C", "B", "A"]) == "correct"
    assert verify_answer("point C", "A", choices=["C", "B", "A"]) == "wrong"
    assert verify_answer("point Q", "B", choices=["P", "Q", "R"]) == "correct"
    assert verify_answer("point P", "P") == "correct"
    assert verify_answer("point P", "Q") == "wrong"
