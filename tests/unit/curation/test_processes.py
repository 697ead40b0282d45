"""Steps in several processes: the same outcomes, no process that outlives its work, no silence where one ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curated_rows import Scripted, fill, made, num_outcomes
from labelled_copies import rows_to_remove
from prism.cli import main
from prism.config import SplitConfig
from prism.curation import Outcome, Row, Store, processes, run_step, run_whole_step
from prism.curation.processes import BATCH_ROWS, Processes
from prism.curation.rows import dropped, kept
from prism.curation.running import here
from prism.curation.split import Split
from prism.curation.timing import read_timings
from prism.errors import DataError, StorageError


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes start after the first batch."""
    monkeypatch.setattr(processes, "ALONE_S", 0.0)


def judge(row: Row) -> Outcome:
    return dropped(row, "ends with 7") if row.id.endswith("7") else kept(row, set="hard")


def name_process(rows: Iterator[Row]) -> Iterator[Outcome]:
    for row in rows:
        time.sleep(0.001)  # so that all get some
        yield kept(row, process=os.getpid(), threads=os.environ["OMP_NUM_THREADS"])


def refuse(rows: Iterator[Row]) -> Iterator[Outcome]:
    for row in rows:
        if row.id == "made/80":
            raise DataError(f"cannot read {row.id}")
        time.sleep(0.1 if row.id == "made/150" else 0)
        yield kept(row)


class OneIsKilled:
    """The process that gets row 80 ends, and the others would go on for long."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        for row in rows:
            if os.getpid() != self.parent:
                if row.id == "made/80":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60 if int(row.prompt.id) >= 2 * BATCH_ROWS else 0)
            yield kept(row)


class NotThere:
    """Something that only the process that made it can read."""

    def __call__(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        return map(kept, rows)

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return (__import__, ("a_module_that_is_not_there",))


@pytest.mark.usefixtures("at_once")
def test_in_processes_a_store_ends_as_it_does_here(tmp_path: Path) -> None:
    found = {}
    for name, execute in (("here", here), ("processes", Processes(3))):
        store = Store.create(tmp_path / name, 3)
        fill(store, made(300, choices=("1", "2")))
        assert run_step(store, Scripted("difficulty", judge), execute=execute) == 300
        assert run_whole_step(store, Split(SplitConfig(alignment=10)), execute=execute) == 270
        found[name] = {
            step: sorted(store.outcomes(step), key=lambda outcome: outcome.row_id) for step in ("difficulty", "split")
        }
    assert found["processes"] == found["here"]


@pytest.mark.usefixtures("at_once")
def test_what_is_removed_is_the_same_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demonstrations that do not hold, held-out items and copies, by the command."""
    given = rows_to_remove(tmp_path)
    monkeypatch.chdir(tmp_path)
    steps, found = ("verify", "decontaminate", "dedup"), {}
    for workers in ("1", "2"):
        fill(store := Store.create(Path(workers), 3), given)
        assert main(["data", "verify", workers, "verify.toml", "--workers", workers]) == 0
        found[workers] = {step: {outcome.row_id: outcome for outcome in store.outcomes(step)} for step in steps}
    assert found["1"] == found["2"]
    for outcomes in found["1"].values():
        assert sum(outcome.status == "dropped" for outcome in outcomes.values()) > 5


@pytest.mark.usefixtures("at_once")
def test_every_process_works_with_one_thread_and_this_one_lets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    done = list(Processes(2)(name_process, iter(made(1000))))
    assert sorted(outcome.row_id for outcome in done) == sorted(row.id for row in made(1000))
    first, rest = done[:BATCH_ROWS], done[BATCH_ROWS:]
    assert {(found.findings["process"], found.findings["threads"]) for found in first} == {(os.getpid(), "7")}
    assert len({found.findings["process"] for found in rest} - {os.getpid()}) == 2
    assert {found.findings["threads"] for found in rest} == {"1"} and os.environ["OMP_NUM_THREADS"] == "7"


def test_what_takes_no_second_starts_no_process(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", 3)
    fill(store, made(300))
    execute = Processes(2)
    run_step(store, Scripted("difficulty", judge), execute=execute)
    assert execute.num_at_work == 1


@pytest.mark.usefixtures("at_once")
def test_the_time_of_all_processes_is_noted(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", 3)
    fill(store, made(300))
    start = time.monotonic()
    run_step(store, Scripted("difficulty", judge), execute=Processes(2))
    spent = time.monotonic() - start
    [timing] = read_timings(store.directory).values()
    assert timing.num_rows == 300 and timing.seconds / spent > 1.3


@pytest.mark.usefixtures("at_once")
def test_what_a_process_raises_ends_the_step() -> None:
    with pytest.raises(DataError, match="cannot read made/80") as raised:
        list(Processes(2)(refuse, iter(made(200))))
    assert "in a process of the step" in raised.value.__notes__[0]


@pytest.mark.usefixtures("at_once")
def test_a_process_that_is_killed_ends_the_step_at_once_and_the_others(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"has ended.*same command again"):
        list(Processes(2)(OneIsKilled(), iter(made(2000))))
    assert time.monotonic() - start < 30


@pytest.mark.usefixtures("at_once")
def test_a_process_that_cannot_begin_ends_the_step(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError, match="by an error above"):
        list(Processes(2)(NotThere(), iter(made(200))))
    assert "a_module_that_is_not_there" in capfd.readouterr().err


@pytest.mark.usefixtures("at_once")
def test_a_signal_ends_a_step_after_the_rows_in_hand(tmp_path: Path) -> None:
    """Of all processes of a terminal, each of which gets it."""
    store = Store.create(tmp_path / "store", 3)
    fill(store, made(2000))
    script = tmp_path / "step.py"
    script.write_text(STEP.format(path=sys.path, store=str(store.directory)))
    with subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True) as begun:
        while num_outcomes(store, "slow") < BATCH_ROWS:
            time.sleep(0.02)
        os.killpg(begun.pid, signal.SIGINT)
        _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 128 + signal.SIGINT and "Traceback" not in errors
    assert BATCH_ROWS <= num_outcomes(store, "slow") < 2000


STEP = """
import sys, time
sys.path[:0] = {path!r}
from curated_rows import Scripted
from prism.curation import Store, processes, run_step
from prism.curation.rows import kept

def slow(row):
    time.sleep(0.01)
    return kept(row)

if __name__ == "__main__":
    processes.ALONE_S = 0.0
    run_step(Store({store!r}), Scripted("slow", slow), execute=processes.Processes(2))
"""

ENDLESS = """
import os, sys, time
sys.path[:0] = {path!r}
from curated_rows import made
from prism.curation import processes
from prism.curation.rows import kept

def work(rows):
    if __name__ == "__main__":
        yield from map(kept, rows)
    else:  # __mp_main__
        print(os.getpid(), flush=True)
        time.sleep(600)

if __name__ == "__main__":
    processes.ALONE_S = 0.0
    list(processes.Processes(2)(work, iter(made(500))))
"""


def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.format(path=sys.path))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        for worker in workers:
            os.kill(worker, signal.SIGTERM)  # of no effect: it would lose rows that are being worked on
        time.sleep(0.3)
        assert all(map(is_running, workers))
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


@pytest.mark.parametrize(
    "steps", ["verify, decontaminate, dedup, split, processes", "difficulty, teach, pairs, quality"]
)
def test_neither_looking_at_rows_nor_asking_servers_needs_torch(steps: str) -> None:
    """It would take 400 MB and seconds in each process."""
    code = f"import sys; from prism.curation import {steps}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
