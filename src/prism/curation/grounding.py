"""Whether a response rests on what it describes: how much it describes, and numbers that come from nowhere."""

import math
import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prism.records import Prompt, Response
from prism.rewards import num_description_items, num_reasoning_steps

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?|(?<![\w.])\.\d+")
_LINE_NUMBER = re.compile(r"^[^\S\n]*(?:step\s+)?\d+[.):](?=\s)", re.MULTILINE | re.IGNORECASE)
_IS_RESULT = re.compile(r"(?:[=≈→≤≥<>]|\\(?:approx|implies|to|Rightarrow)(?![A-Za-z]))[^\d\n=≈→]{0,24}$")
_FARTHEST_SIGN = 40
"""Characters before a number in which its sign begins, longest sign included."""

_DIGIT, _OPERATOR, _FUNCTION = re.compile(r"\d"), re.compile(r"[-+*/×·÷^−√]"), re.compile(r"\\frac|\\sqrt")
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_WORDS = {word: n for n, word in enumerate(_NUMBER_WORDS.split())}
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)
_CONSTANTS = (0.0, 0.5, 1.0, 2.0, 3.14, 3.14159, math.pi, 10.0, 60.0, 90.0, 100.0, 180.0, 360.0, 1000.0)
_OPERANDS = (1.0, 2.0, 90.0, 100.0, 180.0, 360.0)
"""What a number that is told without its calculation may have been computed with."""

_TOLERANCE = 0.005
"""Of a number: results are rounded."""

_MOST_KNOWN = 200
"""Numbers that a number may have been computed from, the first of a text; a longer one is no argument."""


@dataclass(frozen=True, slots=True)
class Grounding:
    """`from_nowhere` are numbers of the reasoning, as written, that are in neither question nor description, are no
    result of a calculation that is written out, no count of described items, and not one step of arithmetic away from
    numbers known by then."""

    num_caption_words: int
    num_caption_items: int
    num_steps: int
    from_nowhere: tuple[str, ...]


def check_grounding(prompt: Prompt, response: Response) -> Grounding:
    """Of a response whose format is valid."""
    caption, think = response.caption or "", response.think or ""
    items = num_description_items(caption)
    evidence = [value for text in (prompt.question, *prompt.choices, caption) for value, _ in _numbers(text)]
    return Grounding(
        num_caption_words=len(caption.split()),
        num_caption_items=items,
        num_steps=num_reasoning_steps(think),
        from_nowhere=tuple(_from_nowhere(think, evidence, items)),
    )


def _from_nowhere(think: str, evidence: Iterable[float], num_items: int) -> Iterator[str]:
    text = _LINE_NUMBER.sub(lambda found: " " * len(found.group()), think)
    known = _Known((*_OPERANDS, *evidence))
    for line in text.split("\n"):
        calculated = _end_of_first_calculation(line)
        for value, match in _numbers(line):
            is_count = value <= num_items and value.is_integer()
            is_known = (
                is_count
                or _is_result(line, match, calculated)
                or _is_near(value, _CONSTANTS)
                or known.has(value)
                or known.give(value)
            )
            if not is_known:
                yield match.group()
            known.add(value)  # told once; what follows from it is no further finding


def _numbers(text: str) -> Iterator[tuple[float, re.Match[str]]]:
    """In order, words up to ten included."""
    found = [(float(match.group().replace(",", "")), match) for match in _NUMBER.finditer(text)]
    found += [(float(_WORDS[match.group().lower()]), match) for match in _WORD.finditer(text)]
    yield from sorted(found, key=lambda pair: pair[1].start())


def _end_of_first_calculation(line: str) -> float:
    """Where the line has both a digit and an operator, or a fraction or root, for the first time."""
    digit, operator, function = (pattern.search(line) for pattern in (_DIGIT, _OPERATOR, _FUNCTION))
    both = max(digit.end(), operator.end()) if digit and operator else math.inf
    return min(both, function.end() if function else math.inf)


def _is_result(line: str, match: re.Match[str], calculated: float) -> bool:
    """Whether it stands behind a sign such as = or ≈ that has a calculation before it."""
    sign = _IS_RESULT.search(line, max(0, match.start() - _FARTHEST_SIGN), match.start())
    return sign is not None and sign.start() >= calculated


def _is_near(value: float, known: Iterable[float]) -> bool:
    return any(math.isclose(value, other, rel_tol=_TOLERANCE, abs_tol=1e-9) for other in known)


class _Known:
    """Numbers that are known by now, and what the first of them give. Each question takes the logarithm of their
    number."""

    def __init__(self, numbers: Iterable[float]) -> None:
        self._sorted: list[float] = []
        self._operands: list[float] = []
        self._sorted_operands: list[float] = []
        self._exact: set[float] = set()
        for number in numbers:
            self.add(number)

    def add(self, number: float) -> None:
        place = bisect_left(self._sorted, number)
        if self._sorted[place : place + 1] == [number]:
            return
        self._sorted.insert(place, number)
        if len(self._operands) < _MOST_KNOWN:
            self._operands.append(number)
            insort(self._sorted_operands, number)
            self._exact.add(round(number, 9))

    def has(self, value: float) -> bool:
        return _is_among(value, self._sorted)

    def give(self, value: float) -> bool:
        """Whether two have `value` as sum, difference, product or quotient, or one as its square or root."""
        numbers = self._operands
        if any(math.isclose(value, result, rel_tol=_TOLERANCE) for x in numbers for result in (x * x, math.sqrt(x))):
            return True
        partners = (partner for x in numbers for partner in _partners(value, x))
        if value.is_integer():
            return any(round(partner, 9) in self._exact for partner in partners)
        return any(_is_among(partner, self._sorted_operands) for partner in partners)


def _is_among(value: float, ascending: list[float]) -> bool:
    """Whether one of the numbers is near: if any, then the next smaller or the next larger one."""
    place = bisect_left(ascending, value)
    return _is_near(value, ascending[max(0, place - 1) : place + 1])


def _partners(value: float, x: float) -> tuple[float, ...]:
    """What makes `value` together with `x`."""
    sums = (value - x, x - value, value + x)
    return (*sums, value / x, x / value, value * x) if x and value else sums
