"""MathVerse: recorded verdicts and aggregates of the published evaluation, a human grader's, and hand-worked cases."""

from pathlib import Path
from typing import Any

import pytest

from golden_data import benchmark_aggregates, benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore
from prism.evals.benchmarks.mathverse import MATHVERSE
from prism.records import ImageSource

ITEMS = benchmark_items("mathverse")
AGGREGATES = benchmark_aggregates("mathverse")
PNG = b"\x89PNG\r\n\x1a\n...."
OPTIONS = "How long is AB?\nChoices:\nA:2\nB:2√{3}\nC:√{3}\nD:2√{2}"

every_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item['id']}-{item['kind']}")


def row(**changes: Any) -> dict[str, Any]:
    return {
        "sample_index": "12",
        "problem_index": "3",
        "problem_version": "Text Dominant",
        "question": OPTIONS,
        "query_cot": f"Please reason first.\nQuestion: {OPTIONS}",
        "answer": "B",
        "question_type": "multi-choice",
        "image": {"bytes": PNG, "path": "12.png"},
        "metadata": {"subject": "Plane Geometry", "subfield": "Length", "source": "GeoQA"},
    } | changes


@every_item
def test_published_rules_give_the_recorded_verdicts(item: dict[str, Any]) -> None:
    score = MATHVERSE.score(item["row"], item["response"], "prism")
    assert (score.is_correct, score.needs_judge) == (item["overlay"]["verdict"], item["overlay"]["judge_called"])


@every_item
def test_strict_rules_agree_with_a_human_grader(item: dict[str, Any]) -> None:
    assert MATHVERSE.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


def test_aggregates_are_the_published_ones() -> None:
    scores = [
        ItemScore(
            benchmark="mathverse",
            item_id=MATHVERSE.item_id(item["row"]),
            cluster=MATHVERSE.cluster(item["row"]),
            profile="prism",
            is_correct=MATHVERSE.score(item["row"], item["response"], "prism").is_correct,
            rule="",
            keys=MATHVERSE.keys(item["row"]),
        )
        for item in AGGREGATES["items"]
    ]
    published = AGGREGATES["overlay"]
    assert [score.is_correct for score in scores] == published["item_correct"]
    found = {name: interval.mean for name, interval in MATHVERSE.metrics(scores).items()}
    expected = {"accuracy": published["overall_mean"], "subject/Plane Geometry": published["overall_mean"]}
    for key in ("problem_version", "subfield"):
        for value, counts in published["breakdown"][key].items():
            expected[f"{key}/{value}"] = counts["correct"] / counts["total"]
            assert f"{100 * expected[f'{key}/{value}']:.2f}" == counts["accuracy"]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("truth", "response", "is_correct"),
    [
        ("B", "<answer>b.</answer>", True),
        ("Isosceles.", "<think>t</think> so <answer> isosceles </answer> indeed", True),
        ("B", "<answer>B</answer><answer>A</answer>", True),
        ("B", "<answer>(B)</answer>", False),
        ("B", "B", False),
        ("B", "<answer>B", False),
        ("B", "<think><answer>B</answer></think>", False),
        ("B", "<answer></answer>", False),
    ],
)
def test_published_rules(truth: str, response: str, is_correct: bool) -> None:
    score = MATHVERSE.score(row(answer=truth), response, "prism")
    assert (score.is_correct, score.needs_judge) == (is_correct, not is_correct)


@pytest.mark.parametrize(
    ("changes", "right", "wrong"),
    [
        (
            {},
            ["B", "(b)", "2√3", "2\\sqrt{3}", "B:2√{3}", "B. $2\\sqrt{3}$"],
            ["C", "\\sqrt{3}", "B or C", "not B", "3"],
        ),
        # The Vision Only version lists its options in the text for the judge only.
        ({"question": "", "query_cot": "See the image.", "question_for_eval": OPTIONS}, ["B", "2√3"], ["√3", "C"]),
        (
            {"question_type": "free-form", "question": "How long?", "answer": "5 cm"},
            ["5", "5cm", "50 mm"],
            ["5 m", "6"],
        ),
        ({"question_type": "free-form", "question": "Angle?", "answer": "60°"}, ["60", "60 degrees"], ["30"]),
    ],
    ids=["options", "vision only", "unit", "degrees"],
)
def test_strict_rules(changes: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    for answers, expected in ((right, True), (wrong, False)):
        verdicts = {a: MATHVERSE.score(row(**changes), f"<answer>{a}</answer>", "strict").is_correct for a in answers}
        assert verdicts == dict.fromkeys(answers, expected)


@pytest.mark.parametrize(
    ("changes", "choices"),
    [
        ({}, ("2", "2√{3}", "√{3}", "2√{2}")),
        ({"question": "Is A. a point?\nChoices:\n(A) yes\n(B) no"}, ("yes", "no")),
        ({"question": "q\nChoices:\nA:1\nC:2", "query_cot": ""}, ()),
        ({"question": "How long?", "query_cot": ""}, ()),
        ({"question_type": "free-form"}, ()),
    ],
)
def test_options_are_found_in_the_question(changes: dict[str, Any], choices: tuple[str, ...], tmp_path: Path) -> None:
    assert MATHVERSE.prompt(row(**changes), tmp_path).choices == choices


def test_the_prompt_is_the_data_sets_own_query(tmp_path: Path) -> None:
    prompt = MATHVERSE.prompt(row(), tmp_path)
    assert prompt.question == f"Please reason first.\nQuestion: {OPTIONS}"
    assert prompt.images == (ImageSource(data=PNG),)
    assert (prompt.id, prompt.answer) == ("12", "B")
    assert MATHVERSE.cluster(row()) == "3"
    vision_only = row(problem_version="Vision Only", question="", query_cot="", query_wo="Answer the question shown.")
    assert MATHVERSE.prompt(vision_only, tmp_path).question == "Answer the question shown."
    assert MATHVERSE.prompt(row(problem_version="Text Only", image=""), tmp_path).images == ()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sample_index": None}, "sample_index"),
        ({"problem_index": None}, "problem_index"),
        ({"problem_version": ""}, "problem_version"),
        ({"answer": ""}, "answer"),
        ({"question": "", "query_cot": ""}, "query_cot"),
        ({"image": None}, "image"),
    ],
)
def test_bad_rows_name_their_field(changes: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(RowError) as caught:
        MATHVERSE.prompt(row(**changes), tmp_path)
    assert caught.value.field == field
