from pathlib import Path
from typing import Any

import pytest

from golden_data import benchmark_aggregates, benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore, Profile
from prism.evals.benchmarks.option_letters import wemath_letter
from prism.evals.benchmarks.wemath import WEMATH
from prism.evals.scoring import score_item
from prism.records import ImageSource

ITEMS = benchmark_items("wemath")
ROW = {
    "ID": "2-7",
    "key": "2steps_multi",
    "question": "How long is the ribbon?",
    "option": "A. 9 cm; B. 21 cm; C. No correct answer",
    "answer": "B",
}


def scored(row: dict[str, Any], response: str, profile: Profile = "prism", sample: int = 0) -> ItemScore:
    return score_item("wemath", row, response, profile=profile, sample=sample)


def part(family: str, key: str, is_right: bool, sample: int = 0) -> ItemScore:
    """A part of a family, answered with the right letter B or with A."""
    return scored(ROW | {"ID": family, "key": key}, f"<answer>{'B' if is_right else 'A'}</answer>", sample=sample)


def family(name: str, steps: str, whole: int, sample: int = 0) -> list[ItemScore]:
    """`steps` has one digit a step, 1 for right."""
    keys = [*range(1, len(steps) + 1), "multi"]
    right = dict(zip(keys, [*map(int, steps), whole], strict=True))
    return [part(name, f"{len(steps)}steps_{key}", bool(right[key]), sample) for key in keys]


def means(scores: list[ItemScore]) -> dict[str, float | None]:
    return {name: interval.mean for name, interval in WEMATH.metrics(scores).items()}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_published_rules_give_the_recorded_verdict_and_call_the_judge_where_it_was_called(item):
    score = WEMATH.score(item["row"], item["response"], "prism")
    assert (score.is_correct, score.needs_judge) == (item["overlay"]["verdict"], item["overlay"]["judge_called"])


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_strict_rules_agree_with_a_human(item):
    assert WEMATH.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


@pytest.mark.parametrize("profile", ["prism", "strict"])
def test_aggregates_of_24_families(profile: Profile):
    golden = benchmark_aggregates("wemath")
    expected, found = golden["overlay"], means([scored(i["row"], i["response"], profile) for i in golden["items"]])
    counts, num_families = expected["counts"], expected["families"]
    for name, count in {
        "inadequate_generalization": counts["InadequateGeneralization"],
        "insufficient_knowledge": counts["InsufficientKnowledge"],
        "complete_mastery/strict": counts["CompleteMastery_strict"],
        "complete_mastery/loose": counts["CompleteMastery_loose"],
    }.items():
        assert found[name] == pytest.approx(count / num_families, abs=1e-9)
    for form in ("strict", "loose"):
        rote, mastered = counts[f"RoteMemorization_{form}"], counts[f"CompleteMastery_{form}"]
        assert found[f"score/{form}"] == pytest.approx(expected[f"score_{form}_actual_families"], abs=1e-9)
        assert found[f"rote_memorization/{form}"] == pytest.approx(rote / (mastered + rote), abs=1e-9)
    assert found["accuracy"] == pytest.approx(expected["mean_acc"], abs=1e-9)
    assert found["incomplete_families"] == 0


def test_each_class_of_family():
    """One family a class: mastered, generalized inadequately, ignorant, and right with one step of two wrong."""
    scores = [*family("a", "11", 1), *family("b", "11", 0), *family("c", "10", 0), *family("d", "01", 1)]
    found = means(scores)
    assert found["complete_mastery/strict"] == 1 / 4 and found["complete_mastery/loose"] == 2 / 4
    assert found["inadequate_generalization"] == 1 / 4 and found["insufficient_knowledge"] == 1 / 4
    assert found["rote_memorization/strict"] == 1 / 2 and found["rote_memorization/loose"] == 0
    assert found["score/strict"] == 1.5 / 4 and found["score/loose"] == 2.5 / 4
    # Of the eight steps 1+1+1+1 + 1+0 + 0+1 are right, of the four wholes two.
    assert found["steps/1"] == 6 / 8 and found["steps/2"] == 2 / 4 and found["accuracy"] == 8 / 12
    assert WEMATH.metrics(scores)["score/strict"].count == 4


def test_samples_of_a_family_are_averaged_before_families():
    """The first family is mastered once and rote once, the second is ignorant and has one sample only."""
    scores = [*family("a", "111", 1, sample=0), *family("a", "000", 1, sample=1), *family("b", "000", 0)]
    metrics = WEMATH.metrics(scores)
    assert metrics["score/strict"].mean == pytest.approx((0.5 + 0) / 2)
    assert metrics["insufficient_knowledge"].mean == pytest.approx(1 / 2)
    assert (metrics["rote_memorization/loose"].mean, metrics["rote_memorization/loose"].count) == (1 / 2, 1)
    assert metrics["score/strict"].count == 2


def test_a_family_with_a_part_missing_is_left_out_and_counted():
    whole, cut = family("a", "11", 1), family("b", "00", 0)
    for missing in range(3):
        left = [score for index, score in enumerate(cut) if index != missing]
        found = means([*whole, *left])
        assert found["score/strict"] == 1 and found["insufficient_knowledge"] == 0
        assert found["incomplete_families"] == 1 / 2
        assert found["accuracy"] == pytest.approx(3 / 5)


def test_one_complete_sample_makes_a_family_complete():
    found = means([*family("a", "11", 1, sample=0), *family("a", "00", 0, sample=1)[:2]])
    assert found["score/strict"] == 1 and found["incomplete_families"] == 0


def test_nothing_is_claimed_where_nothing_was_measured():
    assert means([])["score/strict"] is None and means([])["incomplete_families"] is None
    only_steps = means(family("a", "11", 1)[:1])
    assert only_steps["score/strict"] is None and only_steps["incomplete_families"] == 1
    assert means(family("a", "11", 0))["rote_memorization/strict"] is None


def test_families_of_two_and_three_steps_may_share_an_id():
    metrics = WEMATH.metrics([*family("1", "11", 1), *family("1", "000", 0)])
    assert (metrics["score/strict"].mean, metrics["score/strict"].count) == (1 / 2, 2)


def test_the_prompt_lists_the_options_behind_their_letters():
    prompt = WEMATH.prompt(ROW | {"image_path": {"bytes": b"\x89PNG\r\n\x1a\n", "path": None}}, Path())
    assert prompt.question.startswith("How long is the ribbon?\nA. 9 cm\nB. 21 cm\nC. No correct answer\n")
    assert prompt.images == (ImageSource(data=b"\x89PNG\r\n\x1a\n"),)
    assert (prompt.id, prompt.answer, prompt.choices) == (
        "2-7/2steps_multi",
        "B",
        ("9 cm", "21 cm", "No correct answer"),
    )


@pytest.mark.parametrize("option", ["A. 9 cm, B. 21 cm", "9 cm; 21 cm", "A. 9 cm; C. 21 cm", "A. 9 cm; D. 10 cm"])
def test_options_that_cannot_be_told_apart_leave_the_letter(option):
    row = ROW | {"option": option, "image_path": {"bytes": b"x"}}
    assert WEMATH.prompt(row, Path()).choices == () and option in WEMATH.prompt(row, Path()).question
    assert WEMATH.score(row, "<answer>(B)</answer>", "strict").is_correct is True
    assert WEMATH.score(row, "<answer>A</answer>", "strict").is_correct is False


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"key": "2steps_3"}, "key"),
        ({"key": "whole"}, "key"),
        ({"ID": None}, "ID"),
        ({"answer": "21 cm"}, "answer"),
        ({"option": ""}, "option"),
        ({"image_path": None}, "image_path"),
    ],
)
def test_a_row_that_cannot_be_used_names_its_field(changes, field):
    with pytest.raises(RowError) as caught:
        WEMATH.prompt(ROW | {"image_path": {"bytes": b"figure"}} | changes, Path())
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Because of the angle, (C)", "B"),  # a capital that begins the text
        ("it must be DNA", "A"),  # one that ends it
        ("see 2. B and 3. D there", "B"),  # behind its own number, 3. is C's
        ("so THE ANSWER may be (D) or B.!", "H"),  # the H of THE: the announcement begins with the article
        ("neither C. nor D. but (B) it is", "B"),  # brackets before periods
        ("x C: y B: z", "C"),  # the form's first letter in the text
        ("\\boxed{D} cm", "D"),
        ("17 animals", ""),
        ("d", ""),
    ],
)
def test_the_published_letter_rule_by_hand(text, letter):
    assert wemath_letter(text) == letter


def test_a_box_counts_only_without_an_answer_tag():
    assert WEMATH.score(ROW, "It is \\boxed{B}", "prism").is_correct is True
    assert WEMATH.score(ROW, "\\boxed{B} <answer>A</answer>", "prism").is_correct is False
    assert WEMATH.score(ROW, "The answer is B", "prism").is_correct is False
