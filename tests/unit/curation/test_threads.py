"""Results in order, things taken only a little ahead, errors passed on."""

from collections.abc import Iterator

import pytest

from prism.curation.threads import in_threads


def test_results_come_in_order_and_things_are_not_all_taken_at_once() -> None:
    taken = 0

    def things() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    results = in_threads(lambda number: number**2, things(), num_threads=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert taken < 1000
    assert list(results) == [number**2 for number in range(5, 10_000)] and taken == 10_000


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = in_threads(lambda number: 1 // (number - 40), range(100), num_threads=2)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_nothing_gives_nothing() -> None:
    assert list(in_threads(str, [])) == []
