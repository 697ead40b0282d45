"""The items of a benchmark: its rows, checked, with the prompts made of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from prism.data.rejects import RowError
from prism.errors import DataError
from prism.evals.benchmarks.benchmark import Benchmark, Row
from prism.evals.sources import Source, SourceRow
from prism.records import Prompt


@dataclass(frozen=True, slots=True)
class Item:
    """`prompt.id` is the item's id."""

    row: Row
    prompt: Prompt


def read_items(
    benchmark: Benchmark, source: Source, *, limit: int | None = None, system: str | None = None
) -> dict[str, Item]:
    """The items by id, in the order of the rows, their prompts with the message `system`.

    With a `limit`, the first so many; of a benchmark in parts (`Benchmark.limit_by`) the first of each part in
    turn, which are the same questions where the parts share them. Raises DataError for a row that cannot be used:
    a benchmark with rows left out is another benchmark.
    """
    items: dict[str, Item] = {}
    for found in source if limit is None else _first(benchmark, source, limit):
        try:
            item_id = benchmark.item_id(found.row)
            prompt = benchmark.prompt(found.row, source.image_root)
        except RowError as error:
            raise error.at(found.file, found.number) from None
        if item_id in items:
            raise DataError(f"{found.file}, row {found.number}: a second item {item_id!r}; keep one of them")
        items[item_id] = Item(found.row, replace(prompt, id=item_id, system=system or prompt.system))
    return items


def _first(benchmark: Benchmark, source: Source, limit: int) -> Iterator[SourceRow]:
    """The first row of each part, then the second of each, and so on up to `limit`, in the order of `source`.

    A part's rows are counted in the order in which their families are first met.
    """
    key = benchmark.limit_by
    if key is None:
        return islice(source, limit)
    families: dict[str, int] = {}
    places: list[tuple[str, int, int]] = []
    for index, found in enumerate(source):  # keeps no row: a source may hold gigabytes of images
        try:
            part, family = benchmark.keys(found.row)[key], benchmark.cluster(found.row)
        except RowError as error:
            raise error.at(found.file, found.number) from None
        places.append((part, families.setdefault(family, len(families)), index))
    num_seen: Counter[str] = Counter()
    ranks: list[tuple[int, int]] = []
    for part, _, index in sorted(places, key=lambda place: place[1:]):
        ranks.append((num_seen[part], index))
        num_seen[part] += 1
    chosen = {index for _, index in sorted(ranks)[:limit]}
    return (found for index, found in enumerate(islice(source, max(chosen, default=-1) + 1)) if index in chosen)
