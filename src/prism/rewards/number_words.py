"""Numbers written in English or Chinese words, read as exact values."""

import re
from fractions import Fraction
from itertools import takewhile

_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: value for value, word in enumerate(_UNIT_WORDS.split())}
_TENS = {word: 10 * value for value, word in enumerate(_TEN_WORDS.split(), start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PART_WORDS = "half third quarter fourth fifth sixth seventh eighth ninth tenth"
_PARTS: dict[str, int] = dict(zip(_PART_WORDS.split(), (2, 3, 4, 4, 5, 6, 7, 8, 9, 10), strict=True))
_PARTS |= {f"{word}s": value for word, value in _PARTS.items()} | {"halves": 2}
NUMBER_WORDS = frozenset(_UNITS | _TENS | _SCALES | {"hundred": 100, "dozen": 12})
_WORD = re.compile(r"[- ]?([A-Za-z]+)(?![A-Za-z])")
_ARTICLE = re.compile(r"an? (?=(?:hundred|thousand|million|billion|dozen|half|third|quarter)\b)", re.IGNORECASE)
_MAX_WORDS = 24

_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_POWERS = {"十": 10, "百": 100, "千": 1000}
_GROUPS = {"万": 10**4, "亿": 10**8}
_INTEGER = "[零〇一二三四五六七八九两十百千万亿]{1,20}"
_CHINESE = re.compile(rf"一?半(?![一-鿿])|({_INTEGER})(?:分之({_INTEGER})|点([零〇一二三四五六七八九]{{1,20}}))?")


def read_words(text: str) -> tuple[Fraction, int] | None:
    """The value of the number words a text begins with, and where they end."""
    if not text[:1].isalpha():
        return None
    return _read_english(text) if text[0].isascii() else _read_chinese(text)


def _read_english(text: str) -> tuple[Fraction, int] | None:
    article = _ARTICLE.match(text)
    start = article.end() if article else 0
    words = _words(text, start)
    value, count = _integer([word for word, _ in words], has_article=article is not None)
    part = _PARTS.get(words[count][0]) if count < len(words) else None
    if part and (count or words[0][0] == "half" or article):
        return Fraction(value if count else 1, part), words[count][1]
    if not count:
        return None
    end = words[count - 1][1]
    following = [word for word, _ in words[count:]]
    digits = list(takewhile(lambda word: _UNITS.get(word, 10) < 10, following[1:]))
    if digits and following[0] == "point":
        tail = Fraction(int("".join(str(_UNITS[word]) for word in digits)), 10 ** len(digits))
        return value + tail, words[count + len(digits)][1]
    rest = _read_english(text[end + 5 :]) if text[end : end + 5].lower() == " and " else None
    if rest and rest[0] < 1:  # three and a half
        return value + rest[0], end + 5 + rest[1]
    return Fraction(value), end


def _words(text: str, start: int) -> list[tuple[str, int]]:
    """Lower-case words in a row, joined by single spaces or hyphens, with their ends."""
    found: list[tuple[str, int]] = []
    while len(found) < _MAX_WORDS and (match := _WORD.match(text, start)):
        found.append((match[1].lower(), match.end()))
        start = match.end()
    return found


def _integer(words: list[str], *, has_article: bool) -> tuple[int, int]:
    """The value of the longest run of number words, and how many words it has."""
    total, current, last = 0, int(has_article), 0
    for index, word in enumerate(words):
        if word in _UNITS and (last == 0 or current % 100 == 0 or (current % 10 == 0 and _UNITS[word] < 10)):
            current += _UNITS[word]
        elif word in _TENS and current % 100 == 0:
            current += _TENS[word]
        elif word == "hundred" and 0 < current < 100:
            current *= 100
        elif word == "dozen" and current:
            current *= 12
        elif word in _SCALES and current:
            total, current = total + current * _SCALES[word], 0
        elif word == "and" and (total or current >= 100) and words[index + 1 : index + 2] > [""]:
            continue
        else:
            break
        last = index + 1
    return total + current, last


def _read_chinese(text: str) -> tuple[Fraction, int] | None:
    match = _CHINESE.match(text)
    if match is None:
        return None
    if match[1] is None:
        return Fraction(1, 2), match.end()
    value, below = chinese_integer(match[1]), chinese_integer(match[2]) if match[2] else None
    if match[2]:  # 三分之一 names the denominator first
        return (Fraction(below, value), match.end()) if value and below is not None else None
    if value is None:
        return None
    decimals = "".join(str(_DIGITS[character]) for character in match[3] or "")
    return value + Fraction(int(decimals or 0), 10 ** len(decimals)), match.end()


def chinese_integer(characters: str) -> int | None:
    """None for what is no number, and for 一百二, which some read as 102 and some as 120."""
    if set(characters) <= set(_DIGITS):
        return int("".join(str(_DIGITS[character]) for character in characters))
    total = section = digit = 0
    previous = ""
    for character in characters:
        if character in _DIGITS:
            if previous in _DIGITS and previous not in "零〇":
                return None
            digit = _DIGITS[character]
        elif character in _POWERS:
            section += (digit or 1) * _POWERS[character]
            digit = 0
        else:
            total, section, digit = (total + section + digit) * _GROUPS[character], 0, 0
        previous = character
    if digit and characters[-2] not in "零〇十":
        return None
    return total + section + digit
