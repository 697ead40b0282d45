"""What one answer is judged to be."""

import pytest

from prism.evals.grading import grade
from prism.records import Prompt, Rollout

GOOD = "<caption>a, b</caption><think>1. x\n2. y</think><answer>5</answer>"
PROMPT = Prompt("p", "How many?", answer="5", kind="count", metadata={"benchmark": "counting", "group": "g"})


def rollout(text: str, *, is_finished: bool = True, sample: int = 0) -> Rollout:
    return Rollout(sample, (7, 8, 9), text, is_finished)


def half(prompt: Prompt, caption: str) -> float:
    return 0.5


def test_a_valid_answer() -> None:
    assert grade(PROMPT, rollout(GOOD), half) == {
        "benchmark": "counting",
        "group": "g",
        "item_id": "p",
        "sample": 0,
        "verdict": "correct",
        "is_valid": True,
        "num_tokens": 3,
        "response": GOOD,
        "caption_fraction": 0.5,
        "is_caption_exact": False,
        "num_steps": 2,
        "num_items": 2,
    }


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (GOOD.replace("5", "6"), "wrong"),
        ("The answer is:\n5", "correct"),
        (r"so \boxed{5} it is", "correct"),
        ("<caption>a</caption><answer>5</answer>", "correct"),
        ("6", "wrong"),
        ("", "wrong"),
    ],
)
def test_an_answer_without_the_format_is_judged_by_its_text(text: str, verdict: str) -> None:
    assert grade(PROMPT, rollout(text), half)["verdict"] == verdict


def test_without_the_format_nothing_is_said_of_the_content() -> None:
    row = grade(PROMPT, rollout("5"), half)
    assert (row["is_valid"], row["caption_fraction"], row["is_caption_exact"]) == (False, None, None)
    assert (row["num_steps"], row["num_items"]) == (None, None)


def test_a_response_without_its_end_is_not_valid() -> None:
    assert grade(PROMPT, rollout(GOOD, is_finished=False), half)["is_valid"] is False


def test_where_nobody_knows_the_picture_the_fraction_is_missing() -> None:
    row = grade(PROMPT, rollout(GOOD), lambda prompt, caption: None)
    assert row["caption_fraction"] is None and row["is_caption_exact"] is None
    assert grade(PROMPT, rollout(GOOD), lambda prompt, caption: 1.0)["is_caption_exact"] is True


def test_letters_are_judged_against_choices() -> None:
    prompt = Prompt("p", "Which? (A) 4 (B) 5", answer="B", choices=("4", "5"))
    for answer, verdict in (("B", "correct"), ("(B)", "correct"), ("5", "correct"), ("A", "wrong"), ("4", "wrong")):
        text = GOOD.replace("<answer>5", f"<answer>{answer}")
        assert grade(prompt, rollout(text), half)["verdict"] == verdict
