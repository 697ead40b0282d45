import pytest

from prism.rewards.moments import Date, is_same_moment, read_date, read_time


@pytest.mark.parametrize(
    ("text", "hour", "minute", "half"),
    [
        ("3:05", 3, 5, ""),
        ("03:05:00", 3, 5, ""),
        ("3:05 pm", 15, 5, "p"),
        ("3 P.M.", 15, 0, "p"),
        ("10.30 am", 10, 30, "a"),
        ("12:30 am", 0, 30, "a"),
        ("12 pm", 12, 0, "p"),
        ("15:00", 15, 0, "24"),
        ("00:30", 0, 30, "24"),
        ("three o'clock", 3, 0, ""),
        ("half past three", 3, 30, ""),
        ("a quarter to 1", 12, 45, ""),
        ("ten past twelve", 12, 10, ""),
        ("noon", 12, 0, "p"),
        ("下午3点半", 15, 30, "p"),
        ("三点十五分", 3, 15, ""),
    ],
)
def test_clock_times(text: str, hour: int, minute: int, half: str):
    time = read_time(text)
    assert time is not None
    assert (time.seconds, time.half) == (3600 * hour + 60 * minute, half)


@pytest.mark.parametrize("text", ["3", "3:60", "25:00", "3:5", "half past", "ten to", "3:00 to 4:00", "", "2:3"])
def test_what_is_not_a_time(text: str):
    assert read_time(text) is None


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("January 5, 2020", Date(2020, 1, 5)),
        ("5th of Jan. 2020", Date(2020, 1, 5)),
        ("2020-1-05", Date(2020, 1, 5)),
        ("2020年1月5日", Date(2020, 1, 5)),
        ("Sept 2019", Date(2019, 9, None)),
        ("March 3rd", Date(None, 3, 3)),
        ("may", Date(None, 5, None)),
    ],
)
def test_dates(text: str, date: Date):
    assert read_date(text) == date


@pytest.mark.parametrize("text", ["2020", "13/13/2020", "2020-13-01", "January 32", "Januar", "5", "1/2"])
def test_what_is_not_a_date(text: str):
    assert read_date(text) is None


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("3:00", "3 pm", True),  # nothing says which half of the day is meant
        ("3:00", "15:00", False),
        ("3 am", "15:00", False),
        ("2:30", "1:15", False),  # no ratios
        ("Jan 5", "January 6", False),
        ("Jan 5", "3:00", None),
        ("3", "3:00", None),
    ],
)
def test_comparison(first: str, second: str, is_same: bool | None):
    assert is_same_moment(first, second) is is_same
