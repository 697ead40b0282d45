"""Line-by-line logs that a resumed run continues as if it had never stopped."""

import hashlib
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from prism.errors import CheckpointError
from prism.runtime.atomic import storage_errors


class LogMark(TypedDict):
    """How long a log was, and what it held, when a checkpoint was taken."""

    size: int
    sha256: str


class JsonlLog:
    """An append-only JSONL file. Each line reaches the kernel in one write.

    Opened with the mark of a checkpoint, everything after the mark is dropped: lines of steps that
    will be done again and a last line cut short by a kill. Without a mark the log starts empty.
    """

    def __init__(self, path: Path, mark: LogMark | None = None) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._size = 0
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        """Calling it again does no harm; it happens by itself when the log is no longer referenced."""
        if mark is not None:
            self._check_prefix(mark)
        with storage_errors(path):
            os.ftruncate(self._descriptor, self._size)

    def _check_prefix(self, mark: LogMark) -> None:
        with self.path.open("rb") as file:
            while chunk := file.read(min(1 << 20, mark["size"] - self._size)):
                self._digest.update(chunk)
                self._size += len(chunk)
        if (self._size, self._digest.hexdigest()) != (mark["size"], mark["sha256"]):
            raise CheckpointError(
                f"{self.path} no longer holds what it held at the last checkpoint: restore it, "
                f"or delete {self.path.parent} to start the stage again"
            )

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line, or raise StorageError and leave the file as it was."""
        data = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with storage_errors(self.path):
            try:
                _write_all(self._descriptor, data)
            except OSError:
                os.ftruncate(self._descriptor, self._size)
                raise
        self._digest.update(data)
        self._size += len(data)

    def mark(self) -> LogMark:
        """Flush to the disk and return where the log stands."""
        with storage_errors(self.path):
            os.fsync(self._descriptor)
        return {"size": self._size, "sha256": self._digest.hexdigest()}


class UnwrittenLog:
    """Stands for a `JsonlLog` in the processes that do not write it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        pass

    def mark(self) -> LogMark:
        return {"size": 0, "sha256": ""}

    def close(self) -> None:
        pass


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a log. Lines end at line feeds alone: a text may hold other line separators unescaped."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]
