import pytest

from prism.evals.shape import Mean, shape, words_of
from prism.records import Response
from prism.rewards import parse_response


def response(caption: str, think: str) -> Response:
    return parse_response(f"<caption>{caption}</caption><think>{think}</think><answer>1</answer>")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two red stars.", ["Two", "red", "stars", "."]),
        ("x_1 = 3.5\n\n2) so", ["x_1", "=", "3", ".", "5", "2", ")", "so"]),
        ("两个 red 星", ["两", "个", "red", "星"]),
        (" \n", []),
    ],
)
def test_words_are_runs_of_letters_and_single_marks(text: str, words: list[str]):
    assert words_of(text) == words


def test_hand_worked_shape_of_two_responses():
    found = shape([response("a b", "x y x y x y x"), response("a b a", "x")])
    assert found["description"] == {
        "length": Mean(2.5, 2),
        "repetition": Mean(None, 0),  # neither is four words long
        "distinct_1": Mean(2 / 5, 5),
        "distinct_2": Mean(2 / 3, 3),  # a b | a b, b a
    }
    # xyxy, yxyx, xyxy, yxyx: two of the four stood there before. A single word has no 4-gram.
    assert found["reasoning"] == {
        "length": Mean(4.0, 2),
        "repetition": Mean(0.5, 1),
        "distinct_1": Mean(2 / 8, 8),
        "distinct_2": Mean(2 / 6, 6),
    }


def test_a_response_without_the_format_counts_only_as_a_whole():
    found = shape([response("a b", "x"), parse_response("a b c d a b c d a")])
    assert found["description"]["length"] == Mean(2.0, 1)
    assert found["whole"]["length"].count == 2
    # The six n-grams of the second are abcd, bcda, cdab, dabc, abcd, bcda; in the first nothing repeats.
    assert found["whole"]["repetition"].mean == pytest.approx(2 / 6 / 2)


def test_distinct_n_looks_across_responses_and_repetition_within_them():
    found = shape([response("a b c d e", "x")] * 10)["description"]
    assert found["repetition"] == Mean(0.0, 10)
    assert found["distinct_1"] == Mean(5 / 50, 50)


def test_nothing_measured_is_none_with_a_count_of_zero():
    for part in shape([]).values():
        assert set(part.values()) == {Mean(None, 0)}
    assert set(shape([parse_response("no format")])["reasoning"].values()) == {Mean(None, 0)}


def test_order_changes_nothing():
    responses = [response("a b c d", "x y"), response("b a", "y y y y y"), parse_response("z")]
    assert shape(responses) == shape(responses[::-1])
