from pathlib import Path
from typing import Any

import pytest

from golden_data import benchmark_items
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import ItemScore
from prism.evals.benchmarks.mmmu import DISCIPLINES, MMMU, SUBJECTS
from prism.evals.benchmarks.option_letters import mmmu_letter
from prism.records import ImageSource

ITEMS = benchmark_items("mmmu")
CHOICE = {
    "id": "validation_Art_Theory_12",
    "question": "Which of <image 2> and <image 1> is older?",
    "options": "['the left one', \"the painter's own\", 'as in <image 3>']",
    "answer": "B",
    "question_type": "multiple-choice",
}
OPEN = {"id": "validation_Math_1", "question": "How many?", "options": "[]", "answer": "5", "question_type": "open"}


def images(*numbers: int) -> dict[str, Any]:
    return {f"image_{number}": {"bytes": b"image %d" % number, "path": None} for number in numbers}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_published_rules_give_the_recorded_verdict(item):
    """None is expected where a random option was drawn."""
    score = MMMU.score(item["row"], item["response"], "prism")
    assert score.is_correct is item["overlay"]["verdict"]
    assert (score.rule == "random_option") is item["overlay"]["random_fallback"]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["kind"])
def test_strict_rules_agree_with_a_human(item):
    assert MMMU.score(item["row"], item["response"], "strict").is_correct is item["right_verdict"]


def test_images_stand_where_the_marks_stood():
    prompt = MMMU.prompt(CHOICE | images(1, 2, 3, 4), Path())
    assert prompt.question.startswith(
        "Which of <image> and <image> is older?\nA. the left one\nB. the painter's own\nC. as in <image>\n"
    )
    assert prompt.images == tuple(ImageSource(data=data) for data in (b"image 2", b"image 1", b"image 3"))
    assert (prompt.answer, prompt.choices[1]) == ("B", "the painter's own")


def test_a_second_mention_of_an_image_is_words():
    row = OPEN | {"question": "In <image 3> and <image 1>: is <image 1> larger?"} | images(1, 3)
    prompt = MMMU.prompt(row, Path())
    assert prompt.question.startswith("In <image> and <image>: is image 2 larger?")
    assert prompt.images == (ImageSource(data=b"image 3"), ImageSource(data=b"image 1"))


def test_without_marks_all_images_come_first():
    prompt = MMMU.prompt(OPEN | images(1, 2), Path())
    assert "<image>" not in prompt.question and len(prompt.images) == 2


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (CHOICE | images(1, 2), "image_3"),
        (CHOICE | images(1, 2, 3) | {"answer": "D"}, "answer"),
        (CHOICE | images(1, 2, 3) | {"options": "['a',"}, "options"),
        (CHOICE | images(1, 2, 3) | {"id": "12"}, "id"),
        (OPEN | {"answer": "[]"}, "answer"),
        (OPEN | {"answer": None}, "answer"),
    ],
)
def test_a_row_that_cannot_be_used_names_its_field(row, field):
    with pytest.raises(RowError) as caught:
        MMMU.prompt(row, Path())
    assert caught.value.field == field


@pytest.mark.parametrize("answer", ["['24/7', '3.429']", ["24/7", "3.429"]])
def test_an_open_question_may_have_several_right_answers(answer):
    row = OPEN | {"answer": answer}
    assert MMMU.prompt(row, Path()).equivalents == ("3.429",)
    for response, is_right in {"3.429": True, "24/7": True, "3.5": False}.items():
        assert MMMU.score(row, f"<answer>{response}</answer>", "strict").is_correct is is_right


def test_an_interval_is_one_answer():
    row = OPEN | {"answer": "[0, 1)"}
    assert MMMU.prompt(row, Path()).answer == "[0, 1)"
    assert MMMU.score(row, "<answer>[0,1)</answer>", "strict").is_correct is True


def test_an_open_question_never_matches_by_the_published_rules():
    for answer in ("5", "6"):
        score = MMMU.score(OPEN, f"<answer>{answer}</answer>", "prism")
        assert (score.is_correct, score.needs_judge) == (False, True)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A) or else B", "A"),  # brackets before anything else
        ("A or B", "B"),  # of two the later one
        ("A guess", "A"),
        ("X is DNA or C and so", "C"),  # the A of DNA stands before a space, but not between two
        ("it's D.", "D"),
        ("A.B.-", "A"),  # no letter before a space, and none between two that could decide: the first one
        ("b", None),
        ("**B**", None),
        ("7 cm", None),  # too short for the options' texts
        ("so in the end it is 7 cm, not 5 cm!", "B"),  # the option whose text stands last
        ("", None),
    ],
)
def test_the_published_letter_rule_by_hand(text, letter):
    assert mmmu_letter(text, ["7 cm", "5 cm", "3 cm", "1 cm"]) == letter


def test_letters_beyond_the_options_are_not_seen():
    assert mmmu_letter("C", ["7 cm", "5 cm"]) is None


def test_the_thirty_subjects_in_six_disciplines():
    assert len(SUBJECTS) == len(set(SUBJECTS)) == 30 and len(DISCIPLINES) == 6
    assert set(SUBJECTS) == set(MMMU.hub_configs)


def test_metrics_by_subject_and_discipline():
    """Art Theory 1 of 1; Math 1 of 2, of which one was not decided; hence Science 1 of 3 and all 2 of 4."""
    verdicts = {
        "validation_Art_Theory_1": True,
        "validation_Math_1": True,
        "validation_Math_2": None,
        "validation_Physics_1": False,
    }
    scores = [
        ItemScore("mmmu", name, name, "prism", verdict, "rule", keys=MMMU.keys(CHOICE | {"id": name}))
        for name, verdict in verdicts.items()
    ]
    found = {name: (interval.mean, interval.count) for name, interval in MMMU.metrics(scores).items()}
    assert found == {
        "accuracy": (2 / 4, 4),
        "discipline/Art and Design": (1.0, 1),
        "discipline/Science": (pytest.approx(1 / 3), 3),
        "subject/Art_Theory": (1.0, 1),
        "subject/Math": (1 / 2, 2),
        "subject/Physics": (0.0, 1),
    }
