"""Single values of a row. Every function here raises RowError with the name of the field it was given."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from prism.data.rejects import RowError
from prism.records import IMAGE_MARK

Row = Mapping[str, Any]

ANSWER_FIELDS = ("answer", "ground_truth", "solution")
IMAGE_FIELDS = ("images", "image", "images_file_names", "image_file_name", "file_names", "file_name")
"""The last four are how the metadata of an image folder names its files."""
EXTRA_FIELD = "extra_info"
_EXTRA_KEYS = frozenset({"choices", "equivalents", "metadata", "loss_spans"})
_MAX_DEPTH = 100
"""Rows nested deeper are refused: what they would be good for nobody knows, and what looks into them, or writes them
as JSON, would run out of stack."""
_HALF_PAIR = "has half a surrogate pair, which no tokenizer takes"
_UNSUPPORTED_MEDIA = ("videos", "video", "audios", "audio")


def read_text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RowError(field, "is not a string", type(value).__name__)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(field, _HALF_PAIR) from None
    return value


def read_visible_text(value: object, field: str) -> str:
    if value is None:
        raise RowError(field, "is missing")
    text = read_text(value, field)
    if not text.strip():
        raise RowError(field, "is empty")
    return text


def read_response_text(value: object, field: str) -> str:
    """A text that an assistant wrote, whatever its format: something to see, and no image mark."""
    text = read_visible_text(value, field)
    if IMAGE_MARK in text:
        raise RowError(field, "has an image mark outside the question", IMAGE_MARK)
    return text


def read_answer(value: object, field: str) -> str:
    """A ground truth as text; numbers are taken, absence is the empty string."""
    if value is None:
        return ""
    is_whole = isinstance(value, int) and not isinstance(value, bool)  # and may be larger than any float
    if is_whole or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return read_text(value, field)


def with_extra(row: Row) -> Row:
    """The row with the columns that `storing.extra_json` has folded into one text; others' `extra_info` stays."""
    text = row.get(EXTRA_FIELD)
    if text == "":
        return without(row, (EXTRA_FIELD,))
    extra = _parsed_mapping(text) if isinstance(text, str) else None
    if extra is None or not _EXTRA_KEYS.issuperset(extra):
        return row
    return {**without(row, (EXTRA_FIELD,)), **extra}


def first_present(row: Row, fields: Collection[str]) -> tuple[str, Any]:
    """The first of `fields` that has a value, else the first name and None."""
    for field in fields:
        if row.get(field) is not None:
            return field, row[field]
    return next(iter(fields)), None


def read_strings(value: object, field: str) -> tuple[str, ...]:
    """A list of strings or numbers; absence is the empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(field, "is not a list", type(value).__name__)
    if any(item is None for item in value):
        raise RowError(field, "has an empty entry")
    return tuple(read_answer(item, field) for item in value)


def read_equivalents(value: object, field: str) -> tuple[str, ...]:
    """Other spellings of the answer; some files give one bare string."""
    return read_strings([value] if isinstance(value, str) else value, field)


def read_id(value: object, field: str) -> str | None:
    """The row's own id as text; None where it has none."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with gaps comes out of pandas as floats
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return read_text(value, field)


def read_loss_spans(value: object, field: str, length: int) -> tuple[tuple[int, int], ...] | None:
    """Character spans [start, end) inside a completion of `length` characters."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowError(field, "is not a list of [start, end] pairs")
    return tuple(_read_span(span, field, length) for span in value)


def _read_span(span: object, field: str, length: int) -> tuple[int, int]:
    match span:
        case [start, end] if type(start) is type(end) is int and 0 <= start < end <= length:  # True is no place
            return start, end
    raise RowError(field, "has a span outside its completion", str(span))


def read_metadata(value: object, leftovers: Row) -> dict[str, Any]:
    """`value` as a mapping (itself, or as the JSON text parquet keeps it in) over the row's `leftovers`.

    Leftovers that JSON cannot hold, such as dates and bytes, and those without a value are left out: nobody said that
    they are metadata. Of `value` nothing is left out. Raises RowError for what it holds that JSON cannot, and for
    text, wherever it stands, that has no UTF-8 form.
    """
    kept = {key: item for key, item in leftovers.items() if item is not None and _is_json(item)}
    parsed = _parsed_mapping(value) if isinstance(value, str) else value
    if isinstance(parsed, Mapping):
        for key, item in parsed.items():
            if not isinstance(key, str) or not _is_json(item):
                raise RowError("metadata", "has a value that JSON cannot hold", f"{key}: {type(item).__name__}")
        kept |= parsed
    elif value is not None and _is_json(value):
        kept["metadata"] = value
    try:
        json.dumps(kept, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RowError("metadata", _HALF_PAIR) from None
    return kept


def _parsed_mapping(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not is_too_deep(value) else None


def is_too_deep(value: object) -> bool:
    """Whether lists and objects lie inside one another more than `_MAX_DEPTH` deep."""
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return False
    return True


def _containers(value: object) -> Iterator[object]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return (item for item in items if isinstance(item, dict | list | tuple))


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def without(row: Row, fields: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in fields}


def refuse_other_media(row: Row) -> None:
    for field in _UNSUPPORTED_MEDIA:
        if row.get(field):
            raise RowError(field, "is not supported; only images are")
