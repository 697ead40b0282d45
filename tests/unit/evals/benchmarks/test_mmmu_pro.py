from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from golden_data import benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore
from prism.evals.benchmarks.mmmu_pro import MMMU_PRO
from prism.evals.statistics import NOTHING_MEASURED
from prism.records import ImageSource

ITEMS = benchmark_items("mmmu_pro")
OPTIONS = [f"{number} cm" for number in range(11, 21)]
STANDARD = {
    "id": "test_Energy_and_Power_3",
    "question": "<image 1> How long is it?",
    "options": str(OPTIONS),
    "answer": "J",
    "subject": "Energy_and_Power",
    "image_1": {"bytes": b"figure"},
}
VISION = {
    "id": STANDARD["id"],
    "options": STANDARD["options"],
    "answer": "J",
    "subject": STANDARD["subject"],
    "image": {"bytes": b"page"},
}


def scores(verdicts: Mapping[tuple[str, str], Sequence[bool | None]]) -> list[ItemScore]:
    """Per form and question the verdicts of its samples."""
    return [
        ItemScore(
            benchmark="mmmu_pro",
            item_id=f"{form}/{question}",
            cluster=question,
            profile="strict",
            is_correct=verdict,
            rule="rule",
            sample=sample,
            keys={"form": form, "subject": "Math", "discipline": "Science"},
        )
        for (form, question), samples in verdicts.items()
        for sample, verdict in enumerate(samples)
    ]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_published_rules_give_the_recorded_verdict(item):
    """None is expected where a random option was drawn."""
    score = MMMU_PRO.score(item["row"], item["response"], "prism")
    assert score.is_correct is item["overlay"]["verdict"]
    assert (score.rule == "random_option") is item["overlay"]["random_fallback"]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_strict_rules_agree_with_a_human(item):
    assert MMMU_PRO.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


def test_the_two_forms_of_a_question_are_two_items_of_one_cluster():
    assert MMMU_PRO.item_id(STANDARD) == "standard/test_Energy_and_Power_3"
    assert MMMU_PRO.item_id(VISION) == MMMU_PRO.item_id(VISION | {"question": None}) == "vision/test_Energy_and_Power_3"
    assert MMMU_PRO.cluster(STANDARD) == MMMU_PRO.cluster(VISION)
    assert MMMU_PRO.keys(VISION)["discipline"] == "Tech and Engineering"


def test_the_standard_prompt_has_the_image_in_place_and_ten_options():
    prompt = MMMU_PRO.prompt(STANDARD, Path())
    lines = prompt.question.splitlines()
    assert lines[0] == "<image> How long is it?"
    assert lines[1:11] == [f"{letter}. {text}" for letter, text in zip("ABCDEFGHIJ", OPTIONS, strict=True)]
    assert prompt.images == (ImageSource(data=b"figure"),)


def test_the_vision_prompt_says_nothing_that_is_in_the_image():
    prompt = MMMU_PRO.prompt(VISION, Path())
    assert prompt.images == (ImageSource(data=b"page"),)
    assert not any(option in prompt.question for option in OPTIONS)
    assert prompt.choices == tuple(OPTIONS)


def test_a_vision_row_without_its_image_names_the_field():
    with pytest.raises(RowError) as caught:
        MMMU_PRO.prompt(VISION | {"image": None}, Path())
    assert caught.value.field == "image"


def test_the_overall_number_is_the_mean_of_the_forms():
    """Standard 1 of 2 with one question half right, vision 0 of 2: (0.75 + 0.5) / 2."""
    verdicts = {
        ("standard", "a"): [True, True],
        ("standard", "b"): [True, False],
        ("vision", "a"): [True],
        ("vision", "b"): [None],
    }
    metrics = MMMU_PRO.metrics(scores(verdicts))
    assert (metrics["accuracy/standard"].mean, metrics["accuracy/vision"].mean) == (0.75, 0.5)
    assert (metrics["accuracy"].mean, metrics["accuracy"].count) == (0.625, 2)


def test_forms_with_other_questions_weigh_the_same():
    """Standard 1 of 1, vision 1 of 4."""
    verdicts = {("standard", "a"): [True], ("vision", "a"): [True]}
    metrics = MMMU_PRO.metrics(scores(verdicts | {("vision", name): [False] for name in "bcd"}))
    assert metrics["accuracy"].mean == pytest.approx((1 + 1 / 4) / 2)


def test_the_overall_number_is_unknown_while_a_form_is_missing():
    metrics = MMMU_PRO.metrics(scores({("vision", "a"): [True]}))
    assert metrics["accuracy"] == metrics["accuracy/standard"] == NOTHING_MEASURED
    assert metrics["accuracy/vision"].mean == 1
