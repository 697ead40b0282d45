"""Counts of reasoning steps and described items, by hand."""

import time

import pytest

from prism.rewards import num_description_items, num_reasoning_steps


@pytest.mark.parametrize(
    ("think", "count"),
    [
        ("", 0),
        ("1. two discs make 2", 1),
        ("1. two\n2. three\n3) four", 3),
        ("1. two\nand so on\n2. three", 2),
        ("  1. two\n\t2. three\n\n\n3. four", 3),
        ("10. two\n11. three", 2),
        ("first\nsecond", 2),
        ("first\n\n  \nsecond\n", 2),
        ("3.5 cm is the length\n2 is the width", 2),
        ("so 1. is no start of a line", 1),
        ("1.\ntwo\n2.\nthree", 2),
    ],
)
def test_reasoning_steps(think: str, count: int) -> None:
    assert num_reasoning_steps(think) == count


@pytest.mark.parametrize(
    ("caption", "count"),
    [
        ("", 0),
        (" \n.,;", 0),
        ("a red disc", 1),
        ("row 1: red circle 2, blue square 5. row 2: green star 1, red circle 3.", 4),
        ("a disc; a star\na square", 3),
        ("a line of 3.5 cm, 1,000 dots", 2),
        ("the ratio is .5, the sum 7.", 2),
    ],
)
def test_description_items(caption: str, count: int) -> None:
    assert num_description_items(caption) == count


@pytest.mark.parametrize("filler", ["\n", " ", "\n ", "1", "1.", ",", "1."])
def test_degenerate_texts_are_counted_in_linear_time(filler: str) -> None:
    """A policy may well repeat one token thousands of times."""
    text = "a" + filler * 60_000 + "b"
    started = time.perf_counter()
    num_reasoning_steps(text)
    num_description_items(text)
    assert time.perf_counter() - started < 1
