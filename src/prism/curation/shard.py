"""One shard of a store: a SQLite file with its rows, what was rejected on import, and every step's outcomes.

A rollback journal rather than a write-ahead log: the latter needs memory shared between all who have the file open,
which network file systems do not give. Writes are gathered into few transactions, so that the journal costs little.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prism.curation.record import decode_row
from prism.curation.rows import NUM_IN_DOUBT, NUM_UNANSWERED, Outcome, Row
from prism.errors import StorageError

_FILE = "rows.sqlite"
_BATCH_ROWS = 256
_BUSY_TIMEOUT_S = 60.0
_IS_UNANSWERED = f"json_extract(findings, '$.{NUM_UNANSWERED}') > 0"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS rows (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL, number INTEGER NOT NULL, record TEXT NOT NULL,
    UNIQUE (source, number)
);
CREATE TABLE IF NOT EXISTS rejects (
    source TEXT NOT NULL, number INTEGER NOT NULL, field TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT,
    PRIMARY KEY (source, number)
);
CREATE TABLE IF NOT EXISTS outcomes (
    run TEXT NOT NULL, row INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT, detail TEXT, findings TEXT,
    PRIMARY KEY (run, row)
);
CREATE INDEX IF NOT EXISTS unanswered ON outcomes (run, row) WHERE {_IS_UNANSWERED};
"""
"""The index spares a run that is repeated reading all findings for the few rows of which it says so."""


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite cannot do into a StorageError that says where and what to do."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a defect of ours
    except sqlite3.OperationalError as error:
        is_locked = "locked" in str(error)
        advice = "wait for the process that writes it" if is_locked else "free some space or make it writable"
        raise StorageError(f"cannot use {path}: {error}; {advice}, then give the same command again") from error
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{path} is damaged: {error}; restore it from a copy") from error


class Shard:
    """Not shared between threads. What was written is seen by other processes, and safe, after `commit`."""

    def __init__(self, directory: Path, image_root: Path) -> None:
        self.path = directory / _FILE
        self._image_root = image_root
        with database_errors(self.path):
            self._database = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Commits."""
        self.commit()
        self._database.close()

    def commit(self) -> None:
        if self._database.in_transaction:
            with database_errors(self.path):
                self._database.execute("COMMIT")

    def add_row(self, row_id: str, source: str, number: int, record: str) -> None:
        self._write("INSERT INTO rows (id, source, number, record) VALUES (?, ?, ?, ?)", row_id, source, number, record)

    def has_row(self, row_id: str) -> bool:
        return any(True for _ in self._read("SELECT 1 FROM rows WHERE id = ?", row_id))

    def has_number(self, source: str, number: int) -> bool:
        """Whether this row of the source is here."""
        return any(True for _ in self._read("SELECT 1 FROM rows WHERE source = ? AND number = ?", source, number))

    def add_reject(self, source: str, number: int, field: str, reason: str, detail: str | None) -> None:
        values = (source, number, _storable(field), _storable(reason), _storable(detail))
        self._write("INSERT OR REPLACE INTO rejects VALUES (?, ?, ?, ?, ?)", *values)

    def remove_reject(self, source: str, number: int) -> None:
        if any(True for _ in self._read("SELECT 1 FROM rejects WHERE source = ? AND number = ?", source, number)):
            self._write("DELETE FROM rejects WHERE source = ? AND number = ?", source, number)

    def add_outcome(self, run: str, outcome: Outcome, behind: Sequence[str] = ()) -> None:
        """In place of an earlier one with requests that nobody answered; where that said something else, what the runs
        `behind` said of the row goes with it. Any other second outcome of a row is a defect of the step.

        Raises StorageError for a row that is not here.
        """
        findings = json.dumps(dict(outcome.findings), allow_nan=False) if outcome.findings else None
        values = (outcome.status, _storable(outcome.reason), _storable(outcome.detail), findings)
        query = f"""SELECT row, status, reason, detail, findings FROM outcomes
            WHERE run = ? AND row = (SELECT key FROM rows WHERE id = ?) AND {_IS_UNANSWERED}"""
        for key, *earlier in list(self._read(query, run, outcome.row_id)):
            if tuple(earlier) == values:
                return
            for other in (*behind, run):
                self._write("DELETE FROM outcomes WHERE run = ? AND row = ?", other, key)
        statement = "INSERT INTO outcomes SELECT ?, key, ?, ?, ?, ? FROM rows WHERE id = ?"
        if not self._write(statement, run, *values, outcome.row_id):
            raise StorageError(f"{self.path} has no row {outcome.row_id!r}; import it first")

    def remove_outcomes(self, run: str) -> None:
        self._write("DELETE FROM outcomes WHERE run = ?", run)

    def remove_doubtful(self, run: str, behind: Sequence[str]) -> None:
        """The outcomes of a run for which requests are in doubt, and what the runs `behind` it said of these rows."""
        doubtful = f"SELECT row FROM outcomes WHERE run = ? AND json_extract(findings, '$.{NUM_IN_DOUBT}') > 0"
        for other in (*behind, run):
            self._write(f"DELETE FROM outcomes WHERE run = ? AND row IN ({doubtful})", other, run)

    def rows(self, before: Sequence[tuple[str, str]], *, without: str | None = None) -> Iterator[Row]:
        """The rows that all runs of `before`, given as (step, run), have let go on, in order of import.

        With `without` only those that this run has not decided yet, or with requests that nobody answered. Read in
        small batches, so that outcomes can be written, and other processes can write, in between.
        """
        condition, parameters = _live(before)
        if without is not None:
            condition += f""" AND (NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.run = ? AND o.row = r.key)
                OR r.key IN (SELECT row FROM outcomes WHERE run = ? AND {_IS_UNANSWERED}))"""
            parameters = [*parameters, without, without]
        query = f"SELECT key, id, record FROM rows r WHERE {condition} AND key > ? ORDER BY key"
        for batch in self._batches(query, *parameters):
            findings = self._findings([key for key, _, _ in batch], before)
            for key, row_id, record in batch:
                yield decode_row(row_id, record, findings.get(key, {}), self._image_root)

    def findings(self, before: Sequence[tuple[str, str]], run: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and findings of `run` of the rows that all runs of `before` have let go on, in order of import."""
        condition, parameters = _live(before)
        query = f"""SELECT o.row, r.id, o.findings FROM outcomes o JOIN rows r ON r.key = o.row
            WHERE o.run = ? AND {condition} AND o.row > ? ORDER BY o.row"""
        for batch in self._batches(query, run, *parameters):
            for _, row_id, findings in batch:
                yield row_id, json.loads(findings or "{}")

    def outcomes(self, run: str) -> Iterator[Outcome]:
        """All outcomes of a run, in order of import."""
        query = """SELECT o.row, r.id, status, reason, detail, findings FROM outcomes o JOIN rows r ON r.key = o.row
            WHERE o.run = ? AND o.row > ? ORDER BY o.row"""
        for batch in self._batches(query, run):
            for _, row_id, status, reason, detail, findings in batch:
                yield Outcome(row_id, status, reason, detail, json.loads(findings or "{}"))

    def count(self, before: Sequence[tuple[str, str]], run: str) -> Iterator[tuple[str | None, str | None, int]]:
        """How many of the rows that got as far as `run` have which status and reason; None is no outcome yet."""
        condition, parameters = _live(before)
        query = f"""SELECT o.status, o.reason, count(*) FROM rows r LEFT JOIN outcomes o ON o.run = ? AND o.row = r.key
            WHERE {condition} GROUP BY o.status, o.reason"""
        yield from self._read(query, run, *parameters)

    def count_rows(self) -> Iterator[tuple[str, int]]:
        """Rows by source."""
        yield from self._read("SELECT source, count(*) FROM rows GROUP BY source")

    def rejects(self) -> Iterator[tuple[str, int, str]]:
        """Source, number and reason of rows that were rejected."""
        yield from self._read("SELECT source, number, field || ' ' || reason FROM rejects")

    def _findings(self, keys: Sequence[int], before: Sequence[tuple[str, str]]) -> dict[int, dict[str, dict[str, Any]]]:
        """By row and step. The runs of `before` are few, and so are the keys of a batch."""
        names = {run: name for name, run in before}
        places = ", ".join("?" * len(keys))
        query = f"""SELECT row, run, findings FROM outcomes
            WHERE run IN ({", ".join("?" * len(names))}) AND row IN ({places}) AND findings IS NOT NULL"""
        found: dict[int, dict[str, dict[str, Any]]] = {}
        for key, run, findings in self._read(query, *names, *keys):
            found.setdefault(key, {})[names[run]] = json.loads(findings)
        return found

    def _batches(self, query: str, *parameters: Any) -> Iterator[list[Any]]:
        """What `query` finds, by its first column, a key, which its last parameter is the lower limit of."""
        last = -1
        while batch := list(self._read(f"{query} LIMIT {_BATCH_ROWS}", *parameters, last)):
            yield batch
            last = batch[-1][0]

    def _read(self, query: str, *parameters: Any) -> Iterator[Any]:
        with database_errors(self.path):
            yield from self._database.execute(query, parameters)

    def _write(self, statement: str, *parameters: Any) -> int:
        """How many rows it has changed."""
        with database_errors(self.path):
            if not self._database.in_transaction:
                self._database.execute("BEGIN IMMEDIATE")
            return self._database.execute(statement, parameters).rowcount


def _live(before: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """The SQL condition that a row `r` was let go on by every run, and its parameters."""
    test = "EXISTS (SELECT 1 FROM outcomes b WHERE b.run = ? AND b.row = r.key AND b.status != 'dropped')"
    return " AND ".join([test] * len(before)) or "1", [run for _, run in before]


def _storable(text: str | None) -> str | None:
    """Text that may quote what a row holds, half a surrogate pair included, which has no UTF-8 form."""
    return None if text is None else text.encode(errors="backslashreplace").decode()
