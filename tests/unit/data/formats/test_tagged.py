"""Responses composed of a description and a reasoning that may or may not have their tags already."""

import pytest

from prism.data.formats.tagged import compose_response, read_response
from prism.data.rejects import RowError

WHOLE = "<caption>Two dots.</caption><think>1 + 1.</think><answer>2</answer>"


@pytest.mark.parametrize("caption", ["Two dots.", " Two dots.\n", "<caption>Two dots.</caption>"])
@pytest.mark.parametrize(
    "cot", ["1 + 1.", "<think>1 + 1.</think>", "1 + 1.\n<answer>2</answer>", "<think>1 + 1.</think><answer>2</answer>"]
)
def test_tags_are_added_where_they_are_missing(caption: str, cot: str) -> None:
    assert compose_response(caption, cot, "2") == WHOLE


def test_a_whole_response_is_taken_as_it_is() -> None:
    row = {"teacher_response": " as written ", "teacher_caption": "other", "teacher_cot": "other"}
    assert read_response(row, "teacher", "2") == " as written "


def test_an_authors_own_answer_comes_before_the_ground_truth() -> None:
    row = {"student_caption": "Two dots.", "student_cot": "1 + 1.", "student_answer": 3}
    assert read_response(row, "student", "2") == WHOLE.replace(">2<", ">3<")


def test_no_part_at_all_is_no_response() -> None:
    assert read_response({"teacher_response": None}, "teacher", "2") is None


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"teacher_response": ""}, "teacher_response", "is empty"),
        ({"teacher_response": 5}, "teacher_response", "is not a string"),
        ({"teacher_response": "<image>"}, "teacher_response", "has an image mark outside the question"),
        (
            {"teacher_caption": "An <image>.", "teacher_cot": "1 + 1.", "teacher_answer": 2},
            "teacher_response",
            "has an image mark outside the question",
        ),
        ({"teacher_caption": "Two dots."}, "teacher_cot", "is missing"),
        ({"teacher_caption": " ", "teacher_cot": "1 + 1."}, "teacher_caption", "is empty"),
        ({"teacher_caption": "Two dots.", "teacher_cot": "1 + 1."}, "teacher_cot", "has no answer, nor has the row"),
    ],
)
def test_missing_parts_are_named(row: dict[str, object], field: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        read_response(row, "teacher", "")
    assert (caught.value.field, caught.value.reason) == (field, reason)
