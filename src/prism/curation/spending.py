"""What the ledgers of a store say a step has spent."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prism.curation.ledger import FILE, open_ledger
from prism.curation.shard import database_errors
from prism.curation.store import Part, Store
from prism.errors import StorageError
from prism.runtime.lock import DirectoryLock


@dataclass(frozen=True, slots=True)
class Spending:
    """Sums over attempts at requests. `attempts` counts by what became of them.

    `cost` and `tokens` include `cost_at_most`, which is what attempts may have cost whose price nobody knows: cut off,
    timed out, or under way when a process died. `num_unread` shards were in use by other processes.
    """

    attempts: Mapping[str, int] = field(default_factory=dict)
    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    cost_at_most: float = 0.0
    seconds: float = 0.0
    num_unread: int = 0

    def lines(self) -> list[str]:
        """For a person; none where nothing was asked."""
        if not self.attempts:
            return []
        num_answered = self.attempts.get("answered", 0)
        latency = f", {self.seconds / num_answered:.2f} s each" if num_answered else ""
        unknown = f", of which {self.cost_at_most:.4f} is not certain" if self.cost_at_most else ""
        unread = [f"  without {self.num_unread} shards that other processes are using"] if self.num_unread else []
        attempts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.attempts.items()))
        return [
            f"requests: {self.num_requests:,} in {sum(self.attempts.values()):,} attempts ({attempts}){latency}",
            f"spent: {self.cost:.4f}{unknown}",
            f"tokens: {self.prompt_tokens:,} of prompts, {self.completion_tokens:,} of completions",
            *unread,
        ]


def count_spending(store: Store, step: str, part: Part | None = None, *, run: str | None = None) -> Spending:
    """Of all runs of the step, on the part's shards, by default all. With `run`, the id of one of them, only what the
    requests have cost that it made use of, its own and those whose replies it found."""
    attempts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    cost = cost_at_most = seconds = 0.0
    for row in read_ledger(store, part, sums, run=run):
        if row["step"] != step:
            continue
        outcome = row["outcome"] or "under way"
        attempts[outcome] += 1
        sums["requests"] += row["number"] == 1
        sums["prompt"] += row["prompt_tokens"] or 0
        sums["completion"] += row["completion_tokens"] or 0
        cost += row["cost"]
        cost_at_most += row["cost"] if row["is_estimate"] else 0.0
        seconds += (row["seconds"] or 0.0) if outcome == "answered" else 0.0
    return Spending(
        dict(attempts),
        sums["requests"],
        sums["prompt"],
        sums["completion"],
        cost,
        cost_at_most,
        seconds,
        sums["unread"],
    )


def read_ledger(
    store: Store, part: Part | None = None, counts: Counter[str] | None = None, *, run: str | None = None
) -> Iterator[sqlite3.Row]:
    """Every attempt in the ledgers that no other process is using; how many are in use is counted as `unread`. With
    `run` those at requests that this run of a step has made use of."""
    for number in (part or Part()).shards(store.num_shards):
        directory = store.shard_directory(number)
        if not (directory / FILE).exists():
            continue
        try:
            lock = DirectoryLock(directory)
        except StorageError:
            if counts is not None:
                counts["unread"] += 1
            continue
        try:
            yield from _attempts(directory, run)
        finally:
            lock.release()


def _attempts(directory: Path, run: str | None) -> Iterator[sqlite3.Row]:
    used = "request IN (SELECT request FROM uses WHERE run = :run)"
    with database_errors(directory / FILE):
        database = open_ledger(directory)
        try:
            database.row_factory = sqlite3.Row
            query = f"SELECT * FROM attempts WHERE :run IS NULL OR {used} ORDER BY started"
            yield from database.execute(query, {"run": run})
        finally:
            database.close()
