"""Whether a response rests on what it describes: how much it describes, and numbers that come from nowhere."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prism.records import Prompt, Response
from prism.rewards import num_description_items, num_reasoning_steps

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?|(?<![\w.])\.\d+")
_LINE_NUMBER = re.compile(r"^[^\S\n]*(?:step\s+)?\d+[.):](?=\s)", re.MULTILINE | re.IGNORECASE)
_IS_RESULT = re.compile(r"(?:[=≈→≤≥<>]|\\(?:approx|implies|to|Rightarrow)(?![A-Za-z]))[^\d\n=≈→]{0,24}$")
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_WORDS = {word: n for n, word in enumerate(_NUMBER_WORDS.split())}
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)
_CONSTANTS = (0.0, 0.5, 1.0, 2.0, 3.14, 3.14159, math.pi, 10.0, 60.0, 90.0, 100.0, 180.0, 360.0, 1000.0)
_OPERANDS = (1.0, 2.0, 90.0, 100.0, 180.0, 360.0)
"""What a number that is told without its calculation may have been computed with."""

_TOLERANCE = 0.005
"""Of a number: results are rounded."""

_MOST_KNOWN = 200
"""Numbers that a number may have been computed from; a longer text is no argument."""


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
    known = dict.fromkeys((*_OPERANDS, *evidence))
    for value, match in _numbers(text):
        is_count = value <= num_items and value.is_integer()
        is_known = (
            is_count or _is_result(text, match) or _is_near(value, (*_CONSTANTS, *known)) or _follows(value, known)
        )
        if not is_known:
            yield match.group()
        if len(known) < _MOST_KNOWN:
            known[value] = None  # told once; what follows from it is no further finding


def _numbers(text: str) -> Iterator[tuple[float, re.Match[str]]]:
    """In order, words up to ten included."""
    found = [(float(match.group().replace(",", "")), match) for match in _NUMBER.finditer(text)]
    found += [(float(_WORDS[match.group().lower()]), match) for match in _WORD.finditer(text)]
    yield from sorted(found, key=lambda pair: pair[1].start())


def _is_result(text: str, match: re.Match[str]) -> bool:
    """Whether it stands behind a sign such as = or ≈ that has a calculation before it."""
    before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    sign = _IS_RESULT.search(before)
    return sign is not None and bool(
        re.search(r"\d.*[-+*/×·÷^−√]|[-+*/×·÷^−√].*\d|\\frac|\\sqrt", before[: sign.start()])
    )


def _is_near(value: float, known: Iterable[float]) -> bool:
    return any(math.isclose(value, other, rel_tol=_TOLERANCE, abs_tol=1e-9) for other in known)


def _follows(value: float, known: Iterable[float]) -> bool:
    """Whether two known numbers have it as sum, difference, product or quotient, or one as its square or root."""
    numbers = list(known)
    if any(math.isclose(value, result, rel_tol=_TOLERANCE) for x in numbers for result in (x * x, math.sqrt(x))):
        return True
    if value.is_integer():
        exact = {round(x, 9) for x in numbers}
        return any(round(partner, 9) in exact for x in numbers for partner in _partners(value, x))
    return any(_is_near(partner, numbers) for x in numbers for partner in _partners(value, x))


def _partners(value: float, x: float) -> tuple[float, ...]:
    """What makes `value` together with `x`."""
    sums = (value - x, x - value, value + x)
    return (*sums, value / x, x / value, value * x) if x and value else sums
