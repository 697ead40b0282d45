"""MathVision: recorded verdicts of the published evaluation, a human grader's, and hand-worked cases."""

from pathlib import Path
from typing import Any

import pytest

from golden_data import benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore
from prism.evals.benchmarks.mathvision import MATHVISION
from prism.records import ImageSource

ITEMS = benchmark_items("mathvision")
PNG = b"\x89PNG\r\n\x1a\n...."

every_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item['id']}-{item['kind']}")


def row(answer: str, *options: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": "5",
        "question": "How many squares?\n<image1>",
        "options": list(options),
        "answer": answer,
        "level": 2,
        "subject": "algebra",
        "image": "images/5.jpg",
        "decoded_image": {"bytes": PNG, "path": None},
    } | changes


@every_item
def test_published_rules_give_the_recorded_verdicts(item: dict[str, Any]) -> None:
    score = MATHVISION.score(item["row"], item["response"], "prism")
    assert (score.is_correct, score.needs_judge) == (item["overlay"]["verdict"], item["overlay"]["judge_called"])


@every_item
def test_strict_rules_agree_with_a_human_grader(item: dict[str, Any]) -> None:
    assert MATHVISION.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


@pytest.mark.parametrize(
    ("truth", "response", "is_correct"),
    [
        (row("B", "7", "11"), "B", True),
        (row("B", "7", "11"), "b", True),
        (row("B", "7", "11"), "It must be (B).", True),
        (row("B", "7", "11"), "(B)\nbecause 7 is too small", True),
        (row("B", "7", "11"), "The value is 11.", True),
        (row("B", "7", "11"), "Not A. The answer is B", True),
        (row("B", "7", "11"), "The answer is B. It equals 7.", True),
        (row("B", "7", "11"), "\\boxed{A}, no, \\boxed{11}", True),
        (row("B", "7", "11"), "<answer>A</answer> B.", False),
        (row("B", "7", "11"), "B. 11", False),
        (row("B", "7", "11"), "**B**", False),
        (row("B", "7", "11"), "11.004", True),
        (row("6"), "<answer>x = 6</answer>", True),
        (row("6"), "6 cm", False),
        (row("6"), "6 km", True),
        (row("\\frac{1}{2}"), "$\\dfrac{1}{2}$", True),
        (row("90"), "90^\\circ", True),
        (row("90"), "<answer></answer>", False),
        (row("90"), "", False),
    ],
)
def test_published_rules(truth: dict[str, Any], response: str, is_correct: bool) -> None:
    score = MATHVISION.score(truth, response, "prism")
    assert (score.is_correct, score.needs_judge) == (is_correct, not is_correct)


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        (row("B", "7", "11", "12"), ["B", "(b)", "B. 11", "11", "\\boxed{B}"], ["A", "7", "B or C", "not B", "B. 12"]),
        (row("13"), ["13", "13 squares", "x=13"], ["31", "130", "-13"]),
        (row("3.14"), ["3.14", "3.142"], ["3.1", "3.2"]),
        (row("0.001"), ["0.001", "1/1000"], ["0.004", "0"]),
        (row("\\sqrt{8}"), ["2\\sqrt{2}"], ["2.83", "4"]),
        (row("(1,2)"), ["(1, 2)"], ["(2, 1)"]),
        (row("1200"), ["1,200"], ["12"]),
    ],
    ids=["options", "integer", "decimals", "small", "root", "pair", "thousands"],
)
def test_strict_rules(truth: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    for answers, expected in ((right, True), (wrong, False)):
        verdicts = {a: MATHVISION.score(truth, f"<answer>{a}</answer>", "strict").is_correct for a in answers}
        assert verdicts == dict.fromkeys(answers, expected)


def test_the_prompt_has_the_picture_in_its_place(tmp_path: Path) -> None:
    prompt = MATHVISION.prompt(row("B", "7", "11"), tmp_path)
    assert prompt.question.splitlines()[:-1] == ["How many squares?", "<image>", "Choices:", "A. 7", "B. 11"]
    assert "letter" in prompt.question.splitlines()[-1]
    assert prompt.images == (ImageSource(data=PNG),)
    assert (prompt.id, prompt.answer, prompt.choices) == ("5", "B", ("7", "11"))
    parts = MATHVISION.prompt(row("3", question="Turn <image1> into <image2>."), tmp_path)
    assert parts.question.splitlines()[0] == "Turn <image> into <image2>."
    assert parts.choices == ()


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (row("C", "7", "11"), "answer"),
        (row("7", "7", "11"), "answer"),
        (row(""), "answer"),
        (row("3", id=None), "id"),
        (row("3", question=" "), "question"),
        (row("3", decoded_image=None, image=None), "decoded_image"),
        (row("3", options="7 or 11"), "options"),
    ],
)
def test_bad_rows_name_their_field(bad: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(RowError) as caught:
        MATHVISION.prompt(bad, tmp_path)
    assert caught.value.field == field


def test_metrics_are_given_by_level_and_subject() -> None:
    rows = [row("1"), row("2", level=5), row("3", subject="topology")]
    scores = [
        ItemScore("mathvision", str(index), str(index), "strict", index == 0, "rule", keys=MATHVISION.keys(each))
        for index, each in enumerate(rows)
    ]
    found = {name: interval.mean for name, interval in MATHVISION.metrics(scores).items()}
    assert found == pytest.approx(
        {"accuracy": 1 / 3, "level/2": 0.5, "level/5": 0.0, "subject/algebra": 0.5, "subject/topology": 0.0}
    )
