"""Who does what, told for every process without starting any; `tests/integration/test_distributed.py` starts them."""

import random

import pytest
import torch

from prism.runtime import distributed
from prism.runtime.distributed import Part, add_up, add_up_numbers, from_first, gather, own_slices, share


def of_every_process(monkeypatch: pytest.MonkeyPatch, size: int, function):
    monkeypatch.setattr(distributed, "num_processes", lambda: size)
    found = []
    for index in range(size):
        monkeypatch.setattr(distributed, "process_index", lambda index=index: index)
        found.append(function())
    return found


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 16, 23])
def test_every_item_is_somebodys_and_all_have_as_many_of_about_the_same_length(
    monkeypatch: pytest.MonkeyPatch, size: int, count: int
) -> None:
    random_source = random.Random(count)
    items = ["x" * random_source.randint(5, 60) for _ in range(count)]
    shares = of_every_process(monkeypatch, size, lambda: share(items))
    assert {len(parts) for parts in shares} == {-(-count // size)}
    counted = [part for parts in shares for part in parts if part.counts]
    assert sorted(part.index for part in counted) == list(range(count))
    assert all(part.item == items[part.index] for parts in shares for part in parts)
    assert {part.weight for parts in shares for part in parts} <= {0.0, 1.0}
    lengths = [sum(len(part.item) for part in parts) for parts in shares]
    assert max(lengths) - min(lengths) <= max(map(len, items))


def test_what_only_keeps_step_is_the_shortest(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = of_every_process(monkeypatch, 2, lambda: share(["long one", "short", "longest one"]))
    assert shares == [
        [Part(2, "longest one", 1.0), Part(1, "short", 0.0)],
        [Part(0, "long one", 1.0), Part(1, "short", 1.0)],
    ]


def test_one_process_does_everything_in_order() -> None:
    assert share(["b", "aaa"]) == [Part(0, "b", 1.0), Part(1, "aaa", 1.0)]
    assert own_slices(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert from_first(lambda: 3) == 3 and gather([1, 2]) == [1, 2]
    assert add_up(torch.tensor([1.5])).tolist() == [1.5] and add_up_numbers({"a": 0.1}) == {"a": 0.1}


def test_slices_are_dealt_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    dealt = of_every_process(monkeypatch, 3, lambda: own_slices(9, 2))
    assert dealt == [[slice(0, 2), slice(6, 8)], [slice(2, 4), slice(8, 9)], [slice(4, 6)]]


@pytest.mark.parametrize("size", [2, 3])
def test_at_any_place_all_processes_have_an_item_of_the_same_kind(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    items = ["image1", "text", "image22", "text2", "image333", "text33", "image4444", "text5"]
    shares = of_every_process(monkeypatch, size, lambda: share(items, lambda item: item.startswith("image")))
    for parts in zip(*shares, strict=True):
        assert len({part.item.startswith("image") for part in parts}) == 1
    counted = [part.index for parts in shares for part in parts if part.counts]
    assert sorted(counted) == list(range(8))


def test_each_value_is_worked_out_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def square(value: int) -> int:
        given.append(value)
        return value * value

    assert distributed.spread_out(square, [3, 1, 2]) == [9, 1, 4]
    given.clear()
    monkeypatch.setattr(distributed, "gather", lambda found: [(place, -1) for place in range(5)])
    found = of_every_process(monkeypatch, 2, lambda: distributed.spread_out(square, [10, 11, 12, 13, 14]))
    assert given == [10, 12, 14, 11, 13] and found == [[-1] * 5] * 2
