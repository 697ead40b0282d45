"""Images inside parquet files, read when they are asked for.

Parquet is read by row groups: for one image its group's column is decoded as a whole. So the last groups are kept for
whoever goes through a file in order, and the last images for a batch, whose images are asked for several times.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prism.errors import StorageError
from prism.records import FileVersion, ImageSource, StoredImage

LARGEST_GROUP_BYTES = 2**27
"""Images of larger row groups are kept with their rows: to read the group again for each of them takes too long."""

_OPEN_FILES = 16
_KEPT_COLUMN_BYTES = 2**27
_KEPT_IMAGE_BYTES = 2**26

_Value = TypeVar("_Value")


class _Latest(Generic[_Value]):
    """The values last asked for, of `capacity` in all; the very last one whatever its size."""

    def __init__(self, capacity: int, size: Callable[[_Value], int]) -> None:
        self._capacity, self._size = capacity, size
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self._held = 0

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        self._held += self._size(value)
        while self._held > self._capacity and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._held -= self._size(dropped)
        return value


class _Reader:
    """What a process keeps of parquet files. One thread reads at a time, as pyarrow's files ask for."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._files: _Latest[pq.ParquetFile] = _Latest(_OPEN_FILES, lambda file: 1)
        self._columns: _Latest[pa.ChunkedArray] = _Latest(_KEPT_COLUMN_BYTES, pa.ChunkedArray.get_total_buffer_size)
        self._images: _Latest[bytes] = _Latest(_KEPT_IMAGE_BYTES, len)

    def read(self, image: StoredImage) -> bytes:
        with self._lock:
            return self._images.get(image, lambda: self._read_image(image))

    def _read_image(self, image: StoredImage) -> bytes:
        place = (image.file, image.group, image.column)
        value = self._columns.get(place, lambda: self._read_column(*place))[image.row]
        for key in image.keys:
            value = value[key]
        return value.as_py()

    def _read_column(self, file: FileVersion, group: int, column: str) -> pa.ChunkedArray:
        parquet = self._files.get(file, lambda: pq.ParquetFile(file.path))
        return parquet.read_row_group(group, columns=[column], use_threads=False).column(column)


_reader = _Reader()


def _forget() -> None:
    global _reader
    _reader = _Reader()


# A forked process may have inherited the lock while a thread, which it did not inherit, was holding it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row lies in a parquet file: its row group and its number in it, from 0."""

    file: FileVersion
    group: int
    row: int

    def released(self, images: Iterable[ImageSource], row: object) -> tuple[ImageSource, ...]:
        """`images` by their places, for those whose bytes are values of `row`, the content of this place."""
        columns = row.items() if isinstance(row, dict) else ()
        places = {id(data): (column, keys) for column, cell in columns for data, keys in _find_bytes(cell)}
        return tuple(self._released(image, places) for image in images)

    def _released(self, image: ImageSource, places: Mapping[int, tuple[str, Keys]]) -> ImageSource:
        if image.data is None or id(image.data) not in places:
            return image
        column, keys = places[id(image.data)]
        return ImageSource(stored=StoredImage(self.file, self.group, self.row, column, keys, len(image.data)))


def _find_bytes(value: object, keys: Keys = ()) -> Iterator[tuple[bytes, Keys]]:
    if isinstance(value, bytes):
        yield value, keys
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _find_bytes(item, (*keys, key))


def read_stored(image: StoredImage) -> bytes:
    """The encoded image. Raises StorageError where the file was changed since its rows were read, or is out of reach:
    that is no fault of one row, to be rejected for it."""
    path = image.file.path
    try:
        if file_version(path) != image.file:
            raise StorageError(f"{path}: the file was changed while its rows were in use; give the same command again")
        return _reader.read(image)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{path}: cannot read an image of row group {image.group}: {error}") from error


def file_version(path: Path) -> FileVersion:
    status = path.stat()
    return FileVersion(path, status.st_size, status.st_mtime_ns)
