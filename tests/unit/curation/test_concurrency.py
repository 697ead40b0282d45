import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from curated_rows import made
from prism.curation.concurrency import Work, concurrently
from prism.curation.rows import Outcome, Row, kept
from prism.errors import BudgetError, DataError


class Worker:
    """Works on each row for a while; `busiest` is the most at once."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.seconds, self.open, self.busiest = seconds, 0, 0
        self.finished: list[str] = []
        self.is_open = False

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Work]:
        self.is_open = True
        yield self.work
        self.is_open = False

    async def work(self, row: Row) -> Outcome:
        self.open += 1
        self.busiest = max(self.busiest, self.open)
        try:
            if row.prompt.id == "7":
                raise BudgetError("spent")
            await asyncio.sleep(self.seconds)
        finally:
            self.open -= 1
        self.finished.append(row.id)
        return kept(row)


def counted(rows: list[Row], taken: list[str]) -> Iterator[Row]:
    for row in rows:
        taken.append(row.id)
        yield row


def test_so_many_at_a_time_and_each_once() -> None:
    worker, taken = Worker(), []
    rows = [row for row in made(100) if row.prompt.id != "7"]
    outcomes = concurrently(counted(rows, taken), worker, 8)
    assert next(outcomes).status == "kept" and len(taken) <= 16  # lazily
    assert sorted(outcome.row_id for outcome in outcomes) != sorted(row.id for row in rows)  # one was taken before
    assert sorted(worker.finished) == sorted(row.id for row in rows)
    assert worker.busiest == 8 and not worker.is_open


def test_an_error_lets_the_others_finish_and_begins_no_more() -> None:
    worker, taken = Worker(), []
    outcomes: list[Outcome] = []
    with pytest.raises(BudgetError):
        outcomes.extend(concurrently(counted(made(100), taken), worker, 4))
    assert 7 < len(taken) < 20
    assert sorted([*worker.finished, "made/7"]) == sorted(taken) and not worker.is_open


def test_closed_early_it_gives_up_what_is_under_way() -> None:
    worker = Worker(seconds=60)

    def rows() -> Iterator[Row]:
        yield from made(3)
        raise DataError("broken store")

    with pytest.raises(DataError, match="broken store"):
        list(concurrently(rows(), worker, 8))
    assert worker.open == 0 and worker.finished == [] and not worker.is_open
