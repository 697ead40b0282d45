"""Results in order, things taken only a little ahead, errors passed on; and no process outlives what it works for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curated_rows import Scripted, fill, made
from prism.config import SplitConfig
from prism.curation import Outcome, Row, Store, parallel, run_step, run_whole_step
from prism.curation.parallel import in_processes, in_threads
from prism.curation.rows import dropped, kept
from prism.curation.running import here
from prism.curation.split import Split
from prism.errors import DataError, StorageError


def test_results_come_in_order_and_things_are_not_all_taken_at_once() -> None:
    taken = 0

    def things() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    results = in_threads(lambda number: number**2, things())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert taken < 1000
    assert list(results) == [number**2 for number in range(5, 10_000)] and taken == 10_000


def test_an_error_is_raised_where_its_result_would_be() -> None:
    results = in_threads(lambda number: 1 // (number - 40), range(100))
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_nothing_gives_nothing() -> None:
    assert list(in_threads(str, [])) == []


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started for few rows too."""
    monkeypatch.setattr(parallel, "MIN_ROWS", 50)
    monkeypatch.setattr(parallel, "NUM_PROCESSORS", 2)


def judge(row: Row) -> Outcome:
    return dropped(row, "ends with 7") if row.id.endswith("7") else kept(row, set="hard")


def name_process(rows: Iterator[Row]) -> Iterator[Outcome]:
    for row in rows:
        yield kept(row, process=os.getpid())


def refuse(rows: Iterator[Row]) -> Iterator[Outcome]:
    for row in rows:
        if row.id == "made/80":
            raise DataError(f"cannot read {row.id}")
        yield kept(row)


def be_killed(rows: Iterator[Row]) -> Iterator[Outcome]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield from name_process(rows)


@pytest.mark.usefixtures("few")
def test_in_processes_a_store_ends_as_it_does_here(tmp_path: Path) -> None:
    found = {}
    for name, execute in (("here", here), ("processes", in_processes)):
        store = Store.create(tmp_path / name, 3)
        fill(store, made(300, choices=("1", "2")))
        assert run_step(store, Scripted("difficulty", judge), execute=execute) == 300
        assert run_whole_step(store, Split(SplitConfig(alignment=10)), execute=execute) == 270
        found[name] = {step: list(store.outcomes(step)) for step in ("difficulty", "split")}
    assert found["processes"] == found["here"]


@pytest.mark.usefixtures("few")
def test_many_rows_go_to_other_processes_in_order_and_few_stay() -> None:
    done = list(in_processes(name_process, iter(made(200))))
    assert [outcome.row_id for outcome in done] == [row.id for row in made(200)]
    assert os.getpid() not in {outcome.findings["process"] for outcome in done}
    assert {outcome.findings["process"] for outcome in in_processes(name_process, iter(made(49)))} == {os.getpid()}


@pytest.mark.usefixtures("few")
def test_what_a_process_raises_ends_the_step() -> None:
    with pytest.raises(DataError, match="cannot read made/80"):
        list(in_processes(refuse, iter(made(200))))


@pytest.mark.usefixtures("few")
def test_a_process_that_is_killed_ends_the_step_with_advice() -> None:
    with pytest.raises(StorageError, match=r"ended from outside.*same command again"):
        list(in_processes(be_killed, iter(made(200))))


ENDLESS = """
import os, sys, time
sys.path[:0] = {path!r}
from curated_rows import made
from prism.curation import parallel

def work(rows):
    print(os.getpid(), flush=True)
    time.sleep(600)
    yield from ()

if __name__ == "__main__":
    parallel.MIN_ROWS, parallel.NUM_PROCESSORS = 50, 2
    list(parallel.in_processes(work, iter(made(200))))
"""


def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.format(path=sys.path))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        for worker in workers:
            os.kill(worker, signal.SIGTERM)  # of no effect: it would lose rows that are being worked on
        parent.kill()
    deadline = time.monotonic() + 30
    while alive := [worker for worker in workers if is_running(worker)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
