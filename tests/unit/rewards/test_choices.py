import pytest

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
