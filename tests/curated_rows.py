"""Rows, a step and a way into the store for tests of curation."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prism.curation.record import encode_row
from prism.curation.rows import Outcome, Row, kept
from prism.curation.store import Part, Store
from prism.errors import DataError
from prism.records import Prompt


def fill(store: Store, rows: list[Row], source: str = "made") -> None:
    """Puts rows into the store as an import would, ids and all."""
    with store.writing(Part()) as shards:
        for number, row in enumerate(rows, start=1):
            record = encode_row(row, store.images)
            shards[store.shard_of(row.id)].add_row(row.id, source, number, record)


def made(count: int, source: str = "made", **changes: Any) -> list[Row]:
    """Rows without images: question n asks for n + n."""
    return [
        Row(f"{source}/{n}", Prompt(str(n), f"What is {n} + {n}?", answer=str(2 * n), **changes)) for n in range(count)
    ]


def num_outcomes(store: Store, step: str) -> int:
    """So far; 0 for a step that has not begun."""
    try:
        return sum(1 for _ in store.outcomes(step))
    except DataError:
        return 0


@dataclass
class Scripted:
    """A step that says what a function says of each row, and remembers which rows it was asked about."""

    name: str
    decide: Callable[[Row], Outcome] = kept
    settings: Mapping[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        for row in rows:
            self.seen.append(row.id)
            yield self.decide(row)
