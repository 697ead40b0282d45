from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.rewards.number_words import chinese_integer, read_words

ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def in_english(value: int) -> str:
    if value < 20:
        return ONES.split()[value - 1]
    if value < 100:
        return TENS.split()[value // 10 - 2] + (f"-{in_english(value % 10)}" if value % 10 else "")
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            rest = f" {in_english(value % size)}" if value % size else ""
            return f"{in_english(value // size)} {name}{rest}"
    raise AssertionError


def in_chinese(value: int) -> str:
    """Below ten thousand, as a child learns it."""
    written, is_gap = "", False
    for size, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value = divmod(value, size)
        if digit:
            written += ("零" if is_gap and written else "") + "零一二三四五六七八九"[digit] + name
        is_gap = not digit
    return written


@given(st.integers(1, 10**8))
def test_english_numbers(value: int):
    text = in_english(value)
    assert read_words(text) == (value, len(text))


@given(st.integers(1, 9999))
def test_chinese_numbers(value: int):
    assert chinese_integer(in_chinese(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a hundred", Fraction(100)),
        ("one hundred and five", Fraction(105)),
        ("two dozen", Fraction(24)),
        ("half", Fraction(1, 2)),
        ("two thirds", Fraction(2, 3)),
        ("three and a half", Fraction(7, 2)),
        ("zero point two five", Fraction(1, 4)),
        ("三分之二", Fraction(2, 3)),
        ("三点一四", Fraction(157, 50)),
        ("一半", Fraction(1, 2)),
        ("十五", Fraction(15)),
        ("三万", Fraction(30000)),
    ],
)
def test_values(text: str, value: Fraction):
    assert read_words(text) == (value, len(text))


@pytest.mark.parametrize(
    ("text", "end"),
    [("one two", 3), ("five and six", 4), ("three apples", 5), ("twenty five", 11), ("five hundreds", 4)],
)
def test_the_longest_number_is_read(text: str, end: int):
    read = read_words(text)
    assert read is not None and read[1] == end


@pytest.mark.parametrize("text", ["third", "a cat", "hundred", "and", "tent", "一百二", "", "5"])
def test_what_is_not_a_number(text: str):
    assert read_words(text) is None
