"""The items of a benchmark: its rows, checked, with the prompts made of them."""

from dataclasses import dataclass, replace
from itertools import islice

from prism.data.rejects import RowError
from prism.errors import DataError
from prism.evals.benchmarks.benchmark import Benchmark, Row
from prism.evals.sources import Source
from prism.records import Prompt


@dataclass(frozen=True, slots=True)
class Item:
    """`prompt.id` is the item's id."""

    row: Row
    prompt: Prompt


def read_items(
    benchmark: Benchmark, source: Source, *, limit: int | None = None, system: str | None = None
) -> dict[str, Item]:
    """The first `limit` items by id, in the order of the rows, their prompts with the message `system`.

    Raises DataError for a row that cannot be used: a benchmark with rows left out is another benchmark.
    """
    items: dict[str, Item] = {}
    for found in islice(source, limit):
        try:
            item_id = benchmark.item_id(found.row)
            prompt = benchmark.prompt(found.row, source.image_root)
        except RowError as error:
            raise error.at(found.file, found.number) from None
        if item_id in items:
            raise DataError(f"{found.file}, row {found.number}: a second item {item_id!r}; keep one of them")
        items[item_id] = Item(found.row, replace(prompt, id=item_id, system=system or prompt.system))
    return items
