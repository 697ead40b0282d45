"""Writing parquet: as many rows at a time as memory is meant for, images as Hugging Face keeps them."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.errors import DataError
from prism.records import ImageSource

GROUP_BYTES = 2**22
"""Content of a row group, but for its last row, which may be larger: what is in memory at a time, and what is read
for one image (`data.stored_images`)."""

GROUP_ROWS = 4096

_Record = TypeVar("_Record")


def of_one_kind(records: Iterable[_Record], file: Path) -> tuple[type[_Record], Iterator[_Record]]:
    """The kind of the first record, and all of them. Raises DataError where there is none, TypeError for a mixture."""
    iterator = iter(records)
    first = next(iterator, None)
    if first is None:
        raise DataError(f"{file}: nothing to write")
    kind = type(first)

    def checked() -> Iterator[_Record]:
        for record in chain([first], iterator):
            if type(record) is not kind:
                raise TypeError(f"{file}: a {type(record).__name__} among records of type {kind.__name__}")
            yield record

    return kind, checked()


def write_rows(stream: IO[bytes], file: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """The number of rows. Raises DataError for what parquet cannot hold, such as half a surrogate pair."""
    count = 0
    # Statistics would keep each group's longest texts and images in memory, and twice in the file, for no reader.
    with pq.ParquetWriter(stream, schema, write_statistics=False) as writer:
        for group in _groups(rows):
            writer.write_table(_table(group, schema, file))
            count += len(group)
    return count


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """By their content: what a group adds to the file's footer stays in memory to the end."""
    group: list[dict[str, Any]] = []
    num_bytes = 0
    for row in rows:
        group.append(row)
        num_bytes += _content_bytes(row)
        if num_bytes >= GROUP_BYTES or len(group) == GROUP_ROWS:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _content_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_content_bytes, items))


def _table(rows: list[dict[str, Any]], schema: pa.Schema, file: Path) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise DataError(f"{file}: rows cannot be written as parquet: {error}") from error


def image_cell(image: ImageSource) -> dict[str, Any]:
    data = read_bytes(image)
    name = image.path.name if image.path else f"image{image_suffix(data) or '.img'}"
    return {"bytes": data, "path": name}
