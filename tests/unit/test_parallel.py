"""What a container's quota leaves of a machine's processors; results of threads in order, errors in their turn."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism.parallel import in_threads, num_processors, num_threads


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("6400000 100000", 8), ("?", 8)]
)
def test_the_quota_of_cgroups_2(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert num_processors(tmp_path) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("200000", 2)])
def test_the_quota_of_cgroups_1(tmp_path: Path, quota: str, count: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert num_processors(tmp_path) == count


def test_without_cgroups_the_processors_that_a_process_may_use(tmp_path: Path) -> None:
    assert num_processors(tmp_path) == 8


def test_results_come_in_order_and_things_are_not_all_taken_at_once() -> None:
    taken = 0

    def things() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    results = in_threads(lambda number: number**2, things(), num=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert taken < 1000
    assert list(results) == [number**2 for number in range(5, 10_000)] and taken == 10_000


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = in_threads(lambda number: 1 // (number - 40), range(100), num=2)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_nothing_gives_nothing() -> None:
    assert list(in_threads(str, [])) == []


def test_what_the_things_raise_comes_after_the_results_before_it() -> None:
    def things() -> Iterator[int]:
        yield from range(5)
        raise OSError("torn")

    found = []
    with pytest.raises(OSError, match="torn"):
        for result in in_threads(str, things(), num=2):
            found.append(result)
    assert found == list("01234")


def test_threads_end_with_a_consumer_that_stops() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        return number

    before = threading.active_count()
    results = in_threads(work, range(1000), num=3)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before
    assert len(started) <= 7


def test_processes_of_a_machine_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_threads() == 8
    for others, threads in (("2", 4), ("8", 2)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", others)
        assert num_threads() == threads
