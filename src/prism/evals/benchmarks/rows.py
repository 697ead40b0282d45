"""Typed values of a benchmark's row. Every function raises RowError with the name of the field."""

import ast
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.data.formats.fields import read_answer, read_id, read_strings, read_visible_text
from prism.data.image_references import resolve_image
from prism.data.rejects import RowError
from prism.evals.benchmarks.benchmark import Row
from prism.records import ImageSource

LETTERS = "ABCDEFGHIJ"


def text_field(row: Row, field: str) -> str:
    """A text that must be there and hold something visible, as it stands in the row."""
    return read_visible_text(row.get(field), field)


def optional_text(row: Row, field: str) -> str:
    """A text or number as text; the empty string where the row has none."""
    return read_answer(row.get(field), field)


def answer_field(row: Row, field: str = "answer") -> str:
    """The ground truth as text, which may be stored as a number; it must not be empty."""
    answer = read_answer(row.get(field), field)
    if not answer.strip():
        raise RowError(field, "is missing" if row.get(field) is None else "is empty")
    return answer


def id_field(row: Row, field: str) -> str:
    """An identifier stored as text or as a whole number."""
    value = read_id(row.get(field), field)
    if value is None:
        raise RowError(field, "is missing")
    return value


def number_field(row: Row, field: str) -> float | None:
    """A finite number; None where the row has none."""
    value = row.get(field)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # An integer beyond what a float can hold is no number to compare with either.
    if not is_number or abs(value) > sys.float_info.max or math.isnan(value):
        raise RowError(field, "is not a number", str(value)[:80])
    return float(value)


def mapping_field(row: Row, field: str) -> Mapping[str, Any]:
    """A mapping of further columns; empty where the row has none."""
    value = row.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RowError(field, "is not a mapping", type(value).__name__)
    return value


def strings_field(row: Row, field: str) -> tuple[str, ...]:
    """A list of texts, stored as such or as the text of a Python or JSON list; empty where the row has none."""
    value = row.get(field)
    return read_strings(parsed_list(value, field) if isinstance(value, str) else value, field)


def parsed_list(text: str, field: str) -> list[Any]:
    """The list that `text` spells as JSON or as a Python literal. Nothing is executed."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip() or "[]")
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple):
            return list(value)
    raise RowError(field, "is a text that spells no list", text[:80])


def letter_field(row: Row, field: str, num_choices: int) -> str:
    """The letter of one of `num_choices` options, in capitals."""
    letter = answer_field(row, field).strip().strip("().").upper()
    if len(letter) != 1 or letter not in LETTERS[:num_choices]:
        raise RowError(field, "names none of the options", letter[:80])
    return letter


def images_field(row: Row, fields: Sequence[str], image_root: Path) -> tuple[ImageSource, ...]:
    """The images in those of `fields` that have a value, in the order of `fields`."""
    return tuple(resolve_image(row[field], image_root, field) for field in fields if row.get(field) is not None)


def one_image(row: Row, fields: Sequence[str], image_root: Path) -> ImageSource:
    """The image in the first of `fields` that has a value; the others are copies or mere file names of it."""
    for field in fields:
        if row.get(field) is not None:
            return resolve_image(row[field], image_root, field)
    raise RowError(fields[0], "is missing")


def lettered(choices: Sequence[str], form: str = "{letter}. {text}") -> str:
    """The options one per line, each behind its letter."""
    return "\n".join(form.format(letter=chr(ord("A") + i), text=text) for i, text in enumerate(choices))
