"""Writing parquet: rows in small batches, images as Hugging Face keeps them."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.errors import DataError
from prism.records import ImageSource

WRITE_BATCH_ROWS = 64

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
    iterator, count = iter(rows), 0
    with pq.ParquetWriter(stream, schema) as writer:
        while batch := list(islice(iterator, WRITE_BATCH_ROWS)):
            writer.write_table(_table(batch, schema, file))
            count += len(batch)
    return count


def _table(rows: list[dict[str, Any]], schema: pa.Schema, file: Path) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise DataError(f"{file}: rows cannot be written as parquet: {error}") from error


def image_cell(image: ImageSource) -> dict[str, Any]:
    data = read_bytes(image)
    name = image.path.name if image.path else f"image{image_suffix(data) or '.img'}"
    return {"bytes": data, "path": name}
