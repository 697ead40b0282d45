import math

import numpy as np
import pytest

from prism.evals.text_features import Measures, Reading, breaks_off, common_phrases, holds, ngram_matrix

END, PAD = 900, 901


def test_sizes_and_counts_of_a_text_counted_by_hand():
    text = "- a red circle, 3\n- a red star, 42\n2) done."
    numbers = Measures([Reading(text, (1, 2, 3, END))]).numbers(Reading(text, (1, 2, 3, END)))
    words = [*"-,-,2).", "a", "red", "circle", "3", "a", "red", "star", "42", "done"]
    assert numbers == {
        "characters": len(text),
        "tokens": 4,
        "words": len(words),
        "lines": 3,
        "bullets": 3,
        "items": 5,
        "digits": 4,
        "distinct_words": len(set(words)) / len(words),
        "outer_blanks": 0,
        "valid_format": 0,
        "cut": 0,
    }


def test_blanks_at_the_edges_and_the_format_of_a_whole_response_are_seen():
    text = "\n<caption>a</caption><think>b</think><answer>c</answer> "
    numbers = Measures([]).numbers(Reading(text, ()))
    assert (numbers["outer_blanks"], numbers["valid_format"]) == (2, 1)


@pytest.mark.parametrize("text", ["a red", "a red,", "it is 4", "so (", "x =", "一个红", "either-"])
def test_texts_that_break_off(text: str):
    assert breaks_off(text)


@pytest.mark.parametrize(
    "text", ["a red circle.", "really?", 'he said "no."', "一个红圆。", "(as shown)", "$x$", "**so**", ""]
)
def test_texts_that_end(text: str):
    assert not breaks_off(text)


def test_a_reading_without_the_end_token_of_the_others_is_cut_and_one_with_another_is_not():
    whole, other_end, cut = (Reading("a b c d.", ids) for ids in ((1, 2, 3, 4, END), (1, 2, 3, 4, PAD), (4, 1, 2)))
    measures = Measures([whole, other_end, cut])
    assert [measures.is_cut(reading) for reading in (whole, other_end, cut)] == [False, False, True]


def test_where_nobody_has_an_end_token_nobody_lacks_it():
    readings = [Reading("a.", (1, 2, 3, 1)), Reading("b.", (3, 3, 1, 2, 3))]
    assert not any(Measures(readings).is_cut(reading) for reading in readings)


def test_padding_is_told_from_its_end_token_but_not_taken_for_text():
    padded = Reading("a.", (1, 2, END, *[PAD] * 20))
    measures = Measures([padded, Reading("a.", (1, 2, END))])
    assert measures.categories(padded)["end_token"] == ((PAD,), 19)
    assert not measures.is_cut(padded)


def test_common_phrases_are_those_that_enough_texts_hold():
    texts = ["look at it: a", "look at it: b", "look at c", "d look at it: a"]
    assert set(common_phrases(texts, 0.75)) == {
        *("look", "at", "it", ":"),
        *("look at", "at it", "it :"),
        *("look at it", "at it :", "look at it :"),
    }
    assert set(common_phrases(texts, 1.0)) == {"look", "at", "look at"}


def test_a_phrase_is_held_as_whole_words():
    assert holds("overlook, at it", ["look", "at it", "overlook ,"]).tolist() == [0, 1, 1]


def test_ngrams_are_those_of_three_texts_at_least_as_log_counts():
    matrix = ngram_matrix(["a a", "a b", "a", "b", "xyz"])
    # Of all n-grams only the word "a" stands in three texts.
    np.testing.assert_allclose(matrix, [[math.log(3)], [math.log(2)], [math.log(2)], [0], [0]])
