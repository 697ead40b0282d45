import pytest

from prism.rewards.yes_no import meaning_of, read_yes_no


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Yes, it is", True),
        ("no because there is none", False),
        ("The statement is true", True),
        ("it's false", False),
        ("T", True),
        ("对", True),
        ("不对", False),
        (r"\times", False),
        ("是的,正确", True),
        ("yes, but no", None),
        ("Yes and no", None),
        ("Yesterday", None),
        ("not true", None),
        ("nobody", None),
        ("", None),
    ],
)
def test_read_yes_no(text: str, meaning: bool | None):
    assert read_yes_no(text) is meaning


def test_a_letter_is_no_ground_truth():
    assert meaning_of("F") is meaning_of("T") is None
    assert meaning_of("TRUE") is True
