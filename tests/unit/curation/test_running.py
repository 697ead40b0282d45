"""Steps that are killed, stopped, or have to see everything."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from curated_rows import Scripted, fill, made
from prism.curation import Outcome, Part, Row, Store, count_step, run_step, run_whole_step
from prism.errors import StorageError
from prism.records import Prompt
from prism.runtime.interrupt import Interrupted

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "src")}
SLOW = """
import sys, time
from prism.curation import Store, run_step
from prism.curation.rows import kept

class Slow:
    name = "slow"
    settings = {}
    def run(self, rows):
        for row in rows:
            time.sleep(0.005)
            with open(sys.argv[2], "a") as seen:
                print(row.id, file=seen)
            yield kept(row)

run_step(Store(sys.argv[1]), Slow())
"""


def start(store: Store, seen: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(store.directory), str(seen)], stderr=subprocess.PIPE, env=ENVIRONMENT
    )


def wait_for(seen: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not seen.exists() or seen.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_it_goes_on_where_it_was_committed(store: Store, tmp_path: Path) -> None:
    fill(store, made(700))
    seen = tmp_path / "seen"
    for kills in range(1, 3):
        with start(store, seen) as process:
            wait_for(seen, 280 * kills)  # 1.4 seconds, so that there was a commit
            process.send_signal(signal.SIGKILL)
        assert 0 < count_step(store, "slow").num_kept < 700
    with start(store, seen) as process:
        assert process.wait(60) == 0
    asked = Counter(seen.read_text().split())
    assert count_step(store, "slow").num_kept == len(asked) == 700
    # Each kill may cost what was not committed: a second of work and a little more, of rows that take 5 ms.
    assert sum(asked.values()) - 700 < 2 * 400


def test_sigterm_ends_it_in_good_order(store: Store) -> None:
    fill(store, made(50))
    step = Scripted("step")

    def decide(row: Row) -> Outcome:
        if len(step.seen) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return Outcome(row.id, "kept")

    step.decide = decide
    with pytest.raises(Interrupted, match="143"):
        run_step(store, step)
    assert count_step(store, "step").num_kept == 10
    assert run_step(store, Scripted("step")) == 40


def test_a_full_disk_is_told_and_nothing_is_lost(store: Store) -> None:
    fill(store, made(5))

    def fail(row: Row) -> Outcome:
        if row.prompt.id == "3":
            raise StorageError("full")
        return Outcome(row.id, "kept")

    with pytest.raises(StorageError, match="full"):
        run_step(store, Scripted("step", fail))
    done = count_step(store, "step").num_kept
    assert run_step(store, Scripted("step")) == 5 - done


class First:
    """Keeps the first row of each question."""

    name = "first"
    settings: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.described: list[str] = []

    def describe(self, rows: Iterator[Row]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for row in rows:
            self.described.append(row.id)
            yield row.id, {"question": row.prompt.question}

    def decide(self, features: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Outcome]:
        sizes = Counter(feature["question"] for _, feature in features)
        seen: set[str] = set()
        for row_id, feature in features:
            is_new = feature["question"] not in seen
            seen.add(feature["question"])
            size = {"size": sizes[feature["question"]]}
            yield Outcome(row_id, "kept", findings=size) if is_new else Outcome(row_id, "dropped", "seen before")


def test_a_step_that_has_to_see_all_rows(store: Store) -> None:
    rows = [Row(f"made/{n}", Prompt(str(n), f"question {n % 5}")) for n in range(20)]
    fill(store, rows)
    parts = [First() for _ in range(2)]
    for index, step in enumerate(parts):
        assert run_whole_step(store, step, Part(index, 2)) == 0
    assert count_step(store, "first").num_pending == 20
    last = First()
    assert run_whole_step(store, last) == 20
    assert last.described == [] and sorted(parts[0].described + parts[1].described) == sorted(row.id for row in rows)
    funnel = count_step(store, "first")
    assert (funnel.num_kept, dict(funnel.dropped)) == (5, {"seen before": 15})
    assert [row.findings for row in store.rows()] == [{"first": {"size": 4}}] * 5
    assert run_whole_step(store, First()) == 0  # all is decided
    assert run_step(store, Scripted("behind")) == 5

    fill(store, [Row("later/1", Prompt("1", "question 0"))], "later")
    assert run_whole_step(store, First()) == 21  # what is said of the others may have changed
    assert count_step(store, "behind").num_pending == 5  # and so may what followed from it
    run_step(store, Scripted("behind"))
    assert sum(row.findings["first"]["size"] == 5 for row in store.rows()) == 1
