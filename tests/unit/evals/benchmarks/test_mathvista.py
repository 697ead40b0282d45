"""MathVista: recorded verdicts of the published evaluation, a human grader's, and hand-worked cases."""

from pathlib import Path
from typing import Any

import pytest

from golden_data import benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore
from prism.evals.benchmarks.mathvista import MATHVISTA
from prism.records import ImageSource

ITEMS = benchmark_items("mathvista")
PNG = b"\x89PNG\r\n\x1a\n...."

every_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item['id']}-{item['kind']}")


def free_form(answer_type: str, answer: str, precision: float | None = None, unit: str = "") -> dict[str, Any]:
    return {
        "pid": "7",
        "question": "How much?",
        "question_type": "free_form",
        "answer_type": answer_type,
        "choices": None,
        "answer": answer,
        "precision": precision,
        "unit": unit,
        "image": "images/7.jpg",
        "decoded_image": {"bytes": PNG, "path": None},
        "metadata": {"task": "figure question answering", "skills": ["logical reasoning", "statistical reasoning"]},
    }


def multi_choice(answer: str, *choices: str) -> dict[str, Any]:
    return free_form("text", answer) | {"question_type": "multi_choice", "choices": list(choices)}


@every_item
def test_published_rules_give_the_recorded_verdicts(item: dict[str, Any]) -> None:
    score = MATHVISTA.score(item["row"], item["response"], "prism")
    recorded = item["overlay"]
    found = (score.is_correct, score.answer, score.needs_judge)
    assert found == (recorded["verdict"], recorded["normalised"], recorded["extractor_called"])


@every_item
def test_strict_rules_agree_with_a_human_grader(item: dict[str, Any]) -> None:
    assert MATHVISTA.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


@pytest.mark.parametrize(
    ("row", "response", "is_correct", "needs_judge"),
    [
        (multi_choice("7 cm", "16 cm", "7 cm"), "7 cm", True, False),
        (multi_choice("7 cm", "16 cm", "7 cm"), "<answer>16 cm</answer>", False, False),
        # An empty extraction stands for the shortest option, here the right one.
        (multi_choice("7 cm", "16 cm", "7 cm"), "I do not know", True, True),
        (multi_choice("16 cm", "16 cm", "7 cm"), "A", False, True),
        # The text of an option that is itself a letter is read as a letter.
        (multi_choice("A", "B", "A"), "<answer>A</answer>", False, False),
        # And one with a letter in parentheses as that letter, which here is none of the options' letters.
        (multi_choice("sin(x)", "X", "sin(x)"), "sin(x)", False, False),
        (free_form("integer", "7"), "<think>9</think> 7", True, False),
        (free_form("integer", "7"), " +7 ", True, False),
        (free_form("integer", "1000"), "1,000", False, True),
        (free_form("float", "1.2", 1), "<answer>1.23</answer>", True, False),
        (free_form("float", "1.2", 1.0), "<answer>1.2</answer>", False, False),
        (free_form("float", "1.2", 1), "about 1.2", False, True),
        (free_form("list", "[1, 4]"), "[1, 4]", False, True),
        (free_form("integer", "7"), "", False, False),
    ],
)
def test_published_rules(row: dict[str, Any], response: str, is_correct: bool, needs_judge: bool) -> None:
    score = MATHVISTA.score(row, response, "prism")
    assert (score.is_correct, score.needs_judge) == (is_correct, needs_judge)


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (
            multi_choice("14 cm", "7 cm", "15 cm", "14 cm"),
            ["C", "(c)", "C. 14 cm", "14 cm", "**C**", "So the answer is \\boxed{C}.", "It is C, not B"],
            ["B", "15 cm", "B or C", "not C", "C. 15 cm", "I cannot tell", "A guess is not possible here", "14 m"],
        ),
        (free_form("integer", "7", 0.0), ["7", "7.0", "There are 7.", "7 cm"], ["7.2", "7.7", "-7", "6 or 7", "70"]),
        (free_form("integer", "7", 0.0, "cm"), ["7", "7 cm", "70 mm"], ["7 m", "7 kg"]),
        (free_form("integer", "1200", 0.0, "$"), ["1,200", "$1200", "1200 dollars"], ["$12", "12.00"]),
        (free_form("float", "1.2", 1.0), ["1.2", "1.23", "1.15", "1.25", "6/5", "1.20"], ["1", "1.3", "1.26", "12"]),
        (free_form("float", "2.45", 2.0), ["2.45", "2.449"], ["2.4", "2.5", "2.54"]),
        (free_form("list", "[0, 2]"), ["[0, 2]", "[0,2]", "(0, 2)"], ["[2, 0]", "[0]", "[0, 2, 3]"]),
    ],
    ids=["options", "integer", "unit", "money", "one decimal", "two decimals", "list"],
)
def test_strict_rules(row: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    for answers, expected in ((right, True), (wrong, False)):
        verdicts = {a: MATHVISTA.score(row, f"<answer>{a}</answer>", "strict").is_correct for a in answers}
        assert verdicts == dict.fromkeys(answers, expected)


def test_options_are_asked_for_by_letter(tmp_path: Path) -> None:
    prompt = MATHVISTA.prompt(multi_choice("7 cm", "16 cm", "7 cm"), tmp_path)
    assert prompt.question.splitlines()[:-1] == ["Question: How much?", "Choices:", "(A) 16 cm", "(B) 7 cm"]
    assert "letter" in prompt.question.splitlines()[-1]
    assert (prompt.id, prompt.answer, prompt.choices) == ("7", "7 cm", ("16 cm", "7 cm"))
    assert prompt.images == (ImageSource(data=PNG),)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (free_form("integer", "7", 0.0, "cm"), ["(Unit: cm)", "an integer"]),
        (free_form("float", "1.2", 1.0), ["1 decimal ", "1.2"]),
        (free_form("float", "1.23", 2.0), ["2 decimals", "1.23"]),
        (free_form("list", "[1, 4]"), ["Python list"]),
    ],
)
def test_the_kind_of_answer_is_named(row: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    question = MATHVISTA.prompt(row, tmp_path).question
    assert all(word in question for word in words)


def test_the_image_file_serves_where_no_image_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.jpg").write_bytes(PNG)
    prompt = MATHVISTA.prompt(free_form("integer", "7") | {"decoded_image": None}, tmp_path)
    assert prompt.images == (ImageSource(path=tmp_path / "images" / "7.jpg"),)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"answer_type": "prose"}, "answer_type"),
        ({"question_type": None}, "question_type"),
        ({"question_type": "multi_choice", "choices": []}, "choices"),
        ({"answer": None}, "answer"),
        ({"answer_type": "float", "precision": None}, "precision"),
        ({"decoded_image": None, "image": None}, "decoded_image"),
    ],
)
def test_bad_rows_name_their_field(changes: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(RowError) as caught:
        MATHVISTA.prompt(free_form("integer", "7", 0.0) | changes, tmp_path)
    assert caught.value.field == field


def test_metrics_are_given_by_task_and_by_each_skill() -> None:
    row = free_form("integer", "7") | {"metadata": {"task": "math word problem", "skills": ["logical reasoning"]}}
    scores = [
        ItemScore("mathvista", str(index), str(index), "strict", is_correct, "rule", keys=MATHVISTA.keys(each))
        for index, (each, is_correct) in enumerate([(free_form("list", "[1]"), True), (row, False), (row, True)])
    ]
    found = {name: interval.mean for name, interval in MATHVISTA.metrics(scores).items()}
    assert found == pytest.approx(
        {
            "accuracy": 2 / 3,
            "skill/logical reasoning": 2 / 3,
            "skill/statistical reasoning": 1.0,
            "question_type/free_form": 2 / 3,
            "answer_type/integer": 0.5,
            "answer_type/list": 1.0,
            "task/figure question answering": 1.0,
            "task/math word problem": 0.5,
        }
    )


def test_a_judge_decides_in_place_of_the_extraction_model() -> None:
    score = ItemScore("mathvista", "1", "1", "prism", True, "needs_extraction", needs_judge=True)
    assert MATHVISTA.judged(score, "correct")
    assert not MATHVISTA.judged(score, "incorrect")
    assert not MATHVISTA.judged(score, "unclear")
