from pathlib import Path
from typing import Any

import pytest

from golden_data import benchmark_aggregates, benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore, Profile, with_judgement
from prism.evals.benchmarks.hallusion_bench import HALLUSION_BENCH
from prism.evals.scoring import score_item
from prism.records import ImageSource

ITEMS = benchmark_items("hallusion_bench")
ROW = {
    "category": "VD",
    "subcategory": "illusion",
    "visual_input": "1",
    "set_id": "0",
    "figure_id": "1",
    "question_id": "2",
    "question": "Is the left circle larger than the right one?",
    "gt_answer_details": "The left circle is larger.",
    "gt_answer": "1",
}


def scored(row: dict[str, Any], response: str, profile: Profile = "prism", sample: int = 0) -> ItemScore:
    return score_item("hallusion_bench", row, response, profile=profile, sample=sample)


def asked(figure: int, question: int, is_right: bool, *, category: str = "VD", sample: int = 0) -> ItemScore:
    row = ROW | {"category": category, "figure_id": figure, "question_id": question}
    return scored(row, "<answer>Yes</answer>" if is_right else "<answer>No</answer>", sample=sample)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_published_rules_give_the_recorded_verdict_and_call_the_judge_where_it_was_called(item):
    score = HALLUSION_BENCH.score(item["row"], item["response"], "prism")
    assert (score.is_correct, score.needs_judge) == (item["overlay"]["verdict"], item["overlay"]["judge_called"])


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_strict_rules_agree_with_a_human(item):
    assert HALLUSION_BENCH.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


@pytest.mark.parametrize("judge", ["rules_only", "scripted_judge"])
def test_aggregates_with_and_without_a_judge(judge):
    """The recorded numbers are percent, rounded to four decimals: shares of 41 questions, 15 figures and 16 groups."""
    golden = benchmark_aggregates("hallusion_bench")
    scores = [scored(item["row"], item["response"]) for item in golden["items"]]
    if judge == "scripted_judge":
        scores = [
            with_judgement(HALLUSION_BENCH, score, item["scripted_judge"]) if score.needs_judge else score
            for score, item in zip(scores, golden["items"], strict=True)
        ]
    found = {name: interval.mean for name, interval in HALLUSION_BENCH.metrics(scores).items()}
    for name, size in {"aAcc": 41, "fAcc": 15, "qAcc": 16}.items():
        num_right = round(golden["overlay"][judge][name] / 100 * size)
        assert golden["overlay"][judge][name] == round(100 * num_right / size, 4)
        assert found[name] == pytest.approx(num_right / size, abs=1e-9)


def test_figures_and_question_groups_need_all_of_theirs():
    """Figure 1 has both questions right, figure 2 the second only; so question 2 is right for both figures."""
    scores = [asked(1, 1, True), asked(1, 2, True), asked(2, 1, False), asked(2, 2, True)]
    found = {name: interval.mean for name, interval in HALLUSION_BENCH.metrics(scores).items()}
    assert found == {"aAcc": 3 / 4, "fAcc": 1 / 2, "qAcc": 1 / 2}


def test_no_figure_is_no_figure_in_vs_only():
    for category, expected in (("VS", 1.0), ("VD", 1 / 2)):
        scores = [asked(0, 1, False, category=category), asked(1, 1, True, category=category)]
        assert HALLUSION_BENCH.metrics(scores)["fAcc"].mean == expected
        assert HALLUSION_BENCH.metrics(scores)["qAcc"].mean == 0


def test_samples_are_averaged_within_a_figure():
    """Sample 0 has both questions right, sample 1 one of them, sample 2 was cut off after the first."""
    scores = [
        *(asked(1, question, True, sample=0) for question in (1, 2)),
        *(asked(1, question, question == 1, sample=1) for question in (1, 2)),
        asked(1, 1, True, sample=2),
    ]
    metrics = HALLUSION_BENCH.metrics(scores)
    assert metrics["fAcc"].mean == 1 / 2
    assert metrics["qAcc"].mean == pytest.approx((1 + 1 / 2) / 2)


def test_figures_of_one_set_are_one_cluster():
    """Three figures that are all right in one set and none in another are two observations, not six."""
    rows = [ROW | {"set_id": set_id, "figure_id": figure} for set_id in (1, 2) for figure in (1, 2, 3)]
    scores = [scored(row, "Yes" if row["set_id"] == 1 else "No") for row in rows]
    assert (HALLUSION_BENCH.metrics(scores)["fAcc"].mean, HALLUSION_BENCH.metrics(scores)["fAcc"].count) == (0.5, 2)


def test_nothing_measured_is_not_zero():
    assert {interval.mean for interval in HALLUSION_BENCH.metrics([]).values()} == {None}


@pytest.mark.parametrize(
    ("category", "figure", "judgement", "is_right"),
    [
        ("VS", 0, "unclear", True),
        ("VS", 1, "unclear", False),
        ("VD", 0, "unclear", False),
        ("VS", 0, "incorrect", False),
        ("VD", 1, "correct", True),
    ],
)
def test_what_a_judge_says_counts_with_the_kind_of_figure(category, figure, judgement, is_right):
    score = asked(figure, 1, False, category=category)
    assert HALLUSION_BENCH.judged(score, judgement) is is_right


@pytest.mark.parametrize(
    ("answer", "stance"),
    [
        ("**Yes!**", True),
        ("Without a doubt: no.", False),
        ("No - they differ", False),
        ("Not correct", False),
        ("Right, as one can see", True),
        ("Wrong. Yes it is", None),
        ("yes or no", None),
        ("The left circle really is larger", True),
        ("The left circle isn't larger.", False),
        ("The right circle is larger", None),
        ("Both are of equal size", False),
        ("Both are the same size, but one looks larger", None),
        ("The sign does not say so", None),
    ],
)
def test_what_a_statement_says_by_the_strict_rules(answer, stance):
    """The question is answered with yes; what is neither yes nor no is left to a judge."""
    score = HALLUSION_BENCH.score(ROW, f"<answer>{answer}</answer>", "strict")
    assert (score.is_correct, score.needs_judge) == (bool(stance), stance is None)


def test_equality_is_a_yes_where_the_question_asks_for_it():
    row = ROW | {"question": "Are the circles of the same size?", "gt_answer_details": "They are."}
    for answer, is_right in {"The two have equal size": True, "They are not equal": False}.items():
        assert HALLUSION_BENCH.score(row, f"<answer>{answer}</answer>", "strict").is_correct is is_right


def test_an_open_answer_is_right_where_there_is_no_figure():
    for changes, is_right in (({"category": "VS", "figure_id": "0"}, True), ({"figure_id": "0"}, False)):
        score = HALLUSION_BENCH.score(ROW | changes, "<answer>I cannot tell.</answer>", "strict")
        assert (score.is_correct, score.needs_judge) == (is_right, False)


def test_the_prompt_asks_for_yes_or_no():
    prompt = HALLUSION_BENCH.prompt(ROW | {"image": {"bytes": b"figure"}, "set_id": 0}, Path())
    assert prompt.images == (ImageSource(data=b"figure"),)
    assert prompt.question == "Is the left circle larger than the right one?\nAnswer yes or no."
    assert (prompt.id, prompt.answer) == ("VD/illusion/0/1/2", "Yes")


def test_only_a_question_without_visual_input_may_lack_its_image():
    assert HALLUSION_BENCH.prompt(ROW | {"visual_input": "0"}, Path()).images == ()
    with pytest.raises(RowError) as caught:
        HALLUSION_BENCH.prompt(ROW, Path())
    assert caught.value.field == "image"


def test_a_truth_that_is_neither_yes_nor_no_is_refused():
    with pytest.raises(RowError) as caught:
        HALLUSION_BENCH.score(ROW | {"gt_answer": "2"}, "Yes", "strict")
    assert caught.value.field == "gt_answer"
