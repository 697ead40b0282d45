"""Clock times and calendar dates, in words, digits and Chinese."""

import re
from dataclasses import dataclass

from prism.rewards.memory import Remembered
from prism.rewards.numerals import read_number

_MINUTES_IN_HALF_DAY = 720


@dataclass(frozen=True, slots=True)
class ClockTime:
    """Seconds since midnight. `half` is "a", "p", "24" where the hour itself tells, or "" if nothing does."""

    seconds: int
    half: str


@dataclass(frozen=True, slots=True)
class Date:
    """What is not given is None."""

    year: int | None
    month: int | None
    day: int | None


_HALF = r"(?:\s*([ap])\.?\s?m\.?)"
_CLOCK = re.compile(
    rf"([0-9]{{1,2}}):([0-5][0-9])(?::([0-5][0-9]))?{_HALF}?|([0-9]{{1,2}})(?:\.([0-5][0-9]))?{_HALF}", re.IGNORECASE
)
_NUMBER = r"[0-9]{1,2}|[a-z]{3,6}(?:[- ][a-z]{3,5})?"
_O_CLOCK = re.compile(rf"({_NUMBER})\s*o'?\s?clock{_HALF}?", re.IGNORECASE)
_PAST = re.compile(rf"(half|(?:a )?quarter|{_NUMBER})(?: minutes?)? (past|to) ({_NUMBER}){_HALF}?", re.IGNORECASE)
_CHINESE_CLOCK = re.compile(
    "(凌晨|早上|上午|中午|下午|傍晚|晚上)?([0-9]{1,2}|[一二三四五六七八九十两]{1,3})[点时]"
    "(?:(半)|整|([0-9]{1,2}|[一二三四五六七八九十零]{1,3})分?)?"
)
_NAMED_TIMES = {"noon": ClockTime(43200, "p"), "midday": ClockTime(43200, "p"), "midnight": ClockTime(0, "a")}

_MONTH_NAMES = "jan feb mar apr may jun jul aug sep oct nov dec"
_MONTHS = [*map(str, _MONTH_NAMES.split())]
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY, _YEAR = r"([0-9]{1,2})(?:st|nd|rd|th)?", r"([12][0-9]{3})"
_MONTH_FIRST = re.compile(rf"{_MONTH}(?:\s+(?:the )?{_DAY})?(?:,?\s*{_YEAR})?", re.IGNORECASE)
_DAY_FIRST = re.compile(rf"(?:the )?{_DAY}\s+(?:of )?{_MONTH}(?:,?\s*{_YEAR})?", re.IGNORECASE)
_DIGITS = re.compile(rf"{_YEAR}([-/.])([0-9]{{1,2}})\2([0-9]{{1,2}})")
_CHINESE_DATE = re.compile(rf"(?:{_YEAR}年)?([0-9]{{1,2}})月(?:([0-9]{{1,2}})[日号])?")


def is_same_moment(prediction: str, ground_truth: str) -> bool | None:
    """None unless both cleaned texts are clock times or both are dates.

    An am or pm on one side only is ignored, unless the other side's hour is above twelve or zero.
    """
    first, second = read_time(prediction), read_time(ground_truth)
    if first and second:
        if {first.half, second.half} in ({"", "a"}, {"", "p"}):
            return first.seconds % (60 * _MINUTES_IN_HALF_DAY) == second.seconds % (60 * _MINUTES_IN_HALF_DAY)
        return first.seconds == second.seconds
    date = read_date(prediction)
    return date == read_date(ground_truth) if date and read_date(ground_truth) else None


@Remembered
def read_time(text: str) -> ClockTime | None:
    text = text.lower()
    named = _NAMED_TIMES.get(text.removeprefix("12 "))
    if named:
        return named
    clock = _CLOCK.fullmatch(text)
    if clock:
        hour, minute, second, half, dotted_hour, dotted_minute, dotted_half = clock.groups()
        return _time(int(hour or dotted_hour), int(minute or dotted_minute or 0), int(second or 0), half or dotted_half)
    o_clock = _O_CLOCK.fullmatch(text)
    if o_clock:
        return _time(_integer(o_clock[1]), 0, 0, o_clock[2])
    past = _PAST.fullmatch(text)
    if past:
        return _past_or_to(*past.groups())
    chinese = _CHINESE_CLOCK.fullmatch(text)
    return _chinese_time(*chinese.groups()) if chinese else None


def _past_or_to(amount: str, direction: str, hour: str, half: str | None) -> ClockTime | None:
    minutes = 30 if amount == "half" else 15 if amount.endswith("quarter") else _integer(amount)
    hours = _integer(hour)
    if minutes is None or hours is None or not 0 < minutes < 60:
        return None
    if direction == "past":
        return _time(hours, minutes, 0, half)
    return _time(12 if hours == 1 else hours - 1, 60 - minutes, 0, half)


def _chinese_time(part_of_day: str | None, hour: str, is_half: str | None, minute: str | None) -> ClockTime | None:
    half = "" if part_of_day is None else "a" if part_of_day in ("凌晨", "早上", "上午") else "p"
    minutes = 30 if is_half else _integer(minute) if minute else 0
    return _time(_integer(hour), minutes, 0, half)


def _time(hour: int | None, minute: int | None, second: int, half: str | None) -> ClockTime | None:
    if hour is None or minute is None or hour > 24 or minute > 59:
        return None
    if half and 0 < hour <= 12:
        hour = hour % 12 + (12 if half == "p" else 0)
    elif hour > 12 or hour == 0:
        half = "24"
    return ClockTime(3600 * (hour % 24) + 60 * minute + second, half or "")


def _integer(text: str) -> int | None:
    read = read_number(text)
    return int(read[0].value) if read and not read[1] and read[0].value.denominator == 1 else None


@Remembered
def read_date(text: str) -> Date | None:
    match = _MONTH_FIRST.fullmatch(text)
    if match:
        return _date(match[3], _MONTHS.index(match[1][:3].lower()) + 1, match[2])
    match = _DAY_FIRST.fullmatch(text)
    if match:
        return _date(match[3], _MONTHS.index(match[2][:3].lower()) + 1, match[1])
    match = _DIGITS.fullmatch(text)
    if match:
        return _date(match[1], int(match[3]), match[4])
    match = _CHINESE_DATE.fullmatch(text)
    return _date(match[1], int(match[2]), match[3]) if match else None


def _date(year: str | None, month: int, day: str | None) -> Date | None:
    date = Date(int(year) if year else None, month, int(day) if day else None)
    return date if 1 <= month <= 12 and (date.day is None or 1 <= date.day <= 31) else None
