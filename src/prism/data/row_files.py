"""Rows of JSON, JSON-lines and parquet files, whatever their columns mean."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from prism.data.json_array import array_items
from prism.data.rejects import RowError
from prism.data.stored_images import LARGEST_GROUP_BYTES, RowPlace, file_version
from prism.errors import DataError
from prism.records import FileVersion

SUFFIXES = (".json", ".jsonl", ".parquet")
PARQUET_BATCH_ROWS = 64
"""Rows held in memory at a time: with embedded images a row may take megabytes."""

MAX_ROW_BYTES = 2**27
"""Longer rows of JSON (with images inside, a row may take megabytes) are not read into memory at all."""

_CONVERSION_ERRORS = (ValueError, ArithmeticError, LookupError, TypeError, NotImplementedError, RecursionError)
"""What Arrow's conversion to Python raises for text that is not UTF-8, a year above 9999, an unknown time zone, a
struct with two fields of one name, a column nested too deeply."""

_BUFFER_BYTES = 2**20
_FIRST_ITEMS = 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RawRow:
    """`number` counts from 1, in JSON lines it is the line; `value` is a RowError where nothing could be read.

    `place` is where images of the row can be read again; None where they cannot, or where it would take too long.
    """

    number: int
    value: object
    place: RowPlace | None = None


@dataclass(frozen=True, slots=True)
class RowFile:
    """An opened data file. `columns` is None where each row has its own (JSON)."""

    path: Path
    columns: frozenset[str] | None
    rows: Iterator[RawRow]


def open_rows(path: Path | str) -> RowFile:
    """Open a data file by its suffix; whatever its size, a few rows of it are in memory at a time.

    Raises DataError where the whole file is unusable: absent, empty, of another suffix, not the format it claims. A
    JSON array that breaks off further on is found only there.
    """
    file = Path(path)
    _require_usable(file)
    if file.suffix.lower() == ".parquet":
        return _open_parquet(file)
    if file.suffix.lower() == ".json" and _starts_array(file):
        return RowFile(file, None, _json_array(file))
    # Many a .json file holds JSON lines.
    return RowFile(file, None, _json_lines(file))


def _require_usable(file: Path) -> None:
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file}: unknown kind of data file; expected one of {', '.join(SUFFIXES)}")
    try:
        is_file, size = file.is_file(), file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be opened: {error.strerror or error}") from error
    if not is_file:
        raise DataError(f"{file}: not a file; name one data file")
    if size == 0:
        raise DataError(f"{file}: the file is empty")


def _open_parquet(file: Path) -> RowFile:
    try:
        version = file_version(file)
        # With a buffer, pages are read as they are needed rather than whole columns of a row group.
        parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a readable parquet file: {_first_line(error)}") from error
    if parquet.metadata.num_rows == 0:
        raise DataError(f"{file}: the file has no rows")
    return RowFile(file, frozenset(parquet.schema_arrow.names), _parquet_rows(version, parquet))


def _parquet_rows(version: FileVersion, parquet: pq.ParquetFile) -> Iterator[RawRow]:
    number = 0
    with parquet:
        for group in range(parquet.metadata.num_row_groups):
            is_small = parquet.metadata.row_group(group).total_byte_size <= LARGEST_GROUP_BYTES
            for row, value in enumerate(_group_values(version.path, parquet, group, number)):
                number += 1
                yield RawRow(number, value, RowPlace(version, group, row) if is_small else None)


def _group_values(file: Path, parquet: pq.ParquetFile, group: int, num_before: int) -> Iterator[object]:
    """The rows of one row group: pyarrow keeps what it has decoded until the end of the iteration."""
    batches = parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS, row_groups=[group])
    number = num_before
    while True:
        try:
            batch = next(batches, None)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: damaged after row {number}: {_first_line(error)}") from error
        if batch is None:
            return
        number += batch.num_rows
        yield from _batch_values(batch)


def _batch_values(batch: pa.RecordBatch) -> list[object]:
    """The rows as dictionaries; one with a value that Python cannot hold spoils itself only, not its batch."""
    try:
        return list(batch.to_pylist())
    except _CONVERSION_ERRORS:
        return [_single_value(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _single_value(row: pa.RecordBatch) -> object:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError("row", "is not valid UTF-8", str(error))
    except _CONVERSION_ERRORS as error:
        return RowError("row", "has a value that Python cannot hold", _first_line(error))


def _starts_array(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(1024).removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"[")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _json_array(file: Path) -> Iterator[RawRow]:
    """Looks at the first items now, so that a file of another kind fails on opening."""
    items = _array_rows(file)
    first = list(islice(items, _FIRST_ITEMS))
    if not first:
        raise DataError(f"{file}: the file has no rows")
    return chain(first, items)


def _array_rows(file: Path) -> Iterator[RawRow]:
    try:
        with file.open("rb") as stream:
            for number, value in enumerate(array_items(stream, MAX_ROW_BYTES), start=1):
                yield RawRow(number, value)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not valid JSON: {_first_line(error)}") from error


def _json_lines(file: Path) -> Iterator[RawRow]:
    try:
        with file.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_ROW_BYTES + 1):
                number += 1
                content = line.removeprefix(_BYTE_ORDER_MARK).strip()
                if len(line) > MAX_ROW_BYTES:
                    _skip_line(stream, line)
                    yield RawRow(number, RowError("row", f"is longer than {MAX_ROW_BYTES:,} bytes"))
                elif content:
                    yield RawRow(number, _json_value(content))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _skip_line(stream: IO[bytes], part: bytes) -> None:
    while part and not part.endswith(b"\n"):
        part = stream.readline(_BUFFER_BYTES)


def _json_value(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return RowError("row", "is not valid JSON", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
