"""Rows that cannot be used, and why."""

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from prism.errors import DataError, StorageError


class RowError(Exception):
    """One row cannot be used. `reason` is a fixed phrase that can be counted, `detail` this row's case of it.

    Never leaves the readers: it becomes a line of the rejects file or, where there is none, a DataError.
    """

    def __init__(self, field: str, reason: str, detail: str | None = None) -> None:
        super().__init__(field, reason, detail)
        self.field = field
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        text = f"{self.field} {self.reason}"
        return f"{text} ({self.detail})" if self.detail else text

    def at(self, file: Path, row: int) -> DataError:
        return DataError(f"{file}, row {row}: {self}")


class RejectLog:
    """A JSONL file with one line per rejected row: `file`, `row` (from 1), `field`, `reason` and often `detail`.

    An earlier file of that name is replaced, so that a repeated run does not count its rows twice. Lines are
    written as they come; several data files may share one log. Raises StorageError where it cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.counts: Counter[str] = Counter()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise self._storage_error(error) from error

    @property
    def total(self) -> int:
        return self.counts.total()

    def add(self, file: Path, row: int, error: RowError) -> None:
        entry: dict[str, str | int] = {"file": str(file), "row": row, "field": error.field, "reason": error.reason}
        if error.detail:
            entry["detail"] = error.detail
        try:
            # ASCII escapes: a row may be rejected for text that has no UTF-8 form.
            self._stream.write(json.dumps(entry) + "\n")
            self._stream.flush()
        except OSError as write_error:
            raise self._storage_error(write_error) from write_error
        self.counts[f"{error.field} {error.reason}"] += 1

    def summary(self) -> str:
        """One line for a person, the most frequent reason first."""
        if not self.counts:
            return "no row rejected"
        reasons = "; ".join(f"{count} × {reason}" for reason, count in self.counts.most_common())
        return f"{self.total} rejected, see {self.path}: {reasons}"

    def close(self) -> None:
        try:
            self._stream.close()
        except OSError as error:
            raise self._storage_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write the rejects file {self.path}: {error.strerror or error}")
