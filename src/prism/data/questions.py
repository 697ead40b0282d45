"""What a question shows: where its images belong, and the options it offers."""

import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from prism.errors import DataError
from prism.records import IMAGE_MARK, Prompt

_CLOSING = r"[.):：、．\]]"
"""Behind the letter of an option."""


def question_parts(prompt: Prompt) -> list[str | None]:
    """Texts of the question in order, None where an image belongs; images come first if none is marked.

    Raises DataError when `<image>` marks and images disagree in number.
    """
    texts = prompt.question.split(IMAGE_MARK)
    num_marks = len(texts) - 1
    if num_marks == 0:
        return [*[None] * len(prompt.images), prompt.question]
    if num_marks != len(prompt.images):
        raise DataError(f"question has {num_marks} {IMAGE_MARK} marks for {len(prompt.images)} images; make them agree")
    parts: list[str | None] = [texts[0]]
    for text in texts[1:]:
        parts += [None, text]
    return [part for part in parts if part != ""]


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The question with its options behind it, a line each ("A. …"); as it is where it shows them already."""
    return question if shows_choices(question, choices) else question + _lines(choices)


def without_choices(question: str, choices: Sequence[str]) -> str:
    """The question without what `with_choices` has put behind it: options in another order do not make it another."""
    return question.removesuffix(_lines(choices)) if choices else question


def shows_choices(question: str, choices: Sequence[str]) -> bool:
    """Whether somebody who reads the question knows the options, or there are none.

    The letters must stand in order, each at a line's beginning, in parentheses, or before its option's text, which may
    be laid out in another way; or, without letters, the texts of all options in order.
    """
    texts = [" ".join(choice.split()) for choice in choices]
    if not any(texts) or f"{_lines(choices)}\n" in f"{question}\n":
        return True
    letters, words = ascii_uppercase[: len(texts)], " ".join(question.split())
    if len(texts) > 1 and (
        _stand_in_order((rf"^[^\w\n]*{letter}{_CLOSING}" for letter in letters), question)
        or _stand_in_order((rf"[(\[（]{letter}[)\]）]" for letter in letters), question)
    ):
        return True
    # Not found inside a longer word or number.
    ends = [rf"{re.escape(text)}(?!\w|\.\d)" for text in texts]
    lettered = (rf"\b{letter}{_CLOSING}+\s*{end}" for letter, end in zip(letters, ends, strict=False))
    named = (rf"(?<![\w.]){end}" for text, end in zip(texts, ends, strict=True) if text)
    return _stand_in_order(lettered, words) or _stand_in_order(named, words)


def _lines(choices: Sequence[str]) -> str:
    """Options that bring their letters along keep them."""
    letters, others = ascii_uppercase[: len(choices)], choices[len(ascii_uppercase) :]
    named = [*zip(letters, choices, strict=False)]
    if not all(re.match(rf"[(\[（]?{letter}{_CLOSING}", choice) for letter, choice in named):
        choices = [*(f"{letter}. {choice}" for letter, choice in named), *others]
    return "".join(f"\n{choice}" for choice in choices)


def _stand_in_order(patterns: Iterable[str], text: str) -> bool:
    place = 0
    for pattern in patterns:
        found = re.compile(pattern, re.MULTILINE).search(text, place)
        if found is None:
            return False
        place = found.end()
    return True
