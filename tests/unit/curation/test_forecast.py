"""A plan for many rows from a trial on few, against sums by hand."""

import json
from pathlib import Path

import pytest

from curated_rows import Scripted, fill, made
from prism.config import TeachRecipe, build_config
from prism.curation import Outcome, Part, Row, Store, run_step
from prism.curation.forecast import forecast
from prism.curation.rows import dropped, kept, passed
from prism.curation.spending import count_spending
from prism.curation.teach import run_teach
from prism.curation.timing import Timing, import_key, note_timing, read_timings
from prism.errors import DataError
from servers.openai_stub import Received, Reply, completion, serving


def decide(row: Row) -> Outcome:
    """Of every ten rows of `hard` two are dropped; those of `public` are none of its business."""
    if row.id.startswith("public"):
        return passed(row, "has a demonstration")
    return dropped(row, "too hard") if int(row.prompt.id) % 10 < 2 else kept(row)


@pytest.fixture
def trial(store: Store) -> Store:
    fill(store, made(40, "hard"), "hard")
    fill(store, made(120, "public"), "public")
    run_step(store, Scripted("teach", decide))
    run_step(store, Scripted("last"))
    # The tests' own clock: 160 rows took 8 seconds, for the 40 that there was work on.
    (store.directory / "timings.jsonl").unlink()
    run = store.newest_run("teach")
    note_timing(store.directory, run.id, 100, 5.0)
    note_timing(store.directory, run.id, 60, 3.0)
    note_timing(store.directory, import_key("hard"), 40, 0.4)
    return store


def test_rows_hours_and_disk_are_those_of_the_trial_scaled_up(trial: Store) -> None:
    found = forecast(trial, {"hard": 100_000, "public": 1_000_000})
    imported_hard, imported_public, teach, last = found.steps
    assert (imported_hard.num_rows, imported_hard.seconds_per_row) == (100_000, 0.01)
    assert (imported_public.num_rows, imported_public.hours) == (1_000_000, None)
    assert (teach.num_rows, teach.num_worked) == (1_100_000, 100_000)
    assert teach.seconds_per_row == pytest.approx(8 / 40)
    assert teach.hours == pytest.approx(100_000 * 0.2 / 3600)
    assert (last.num_rows, found.num_left) == (1_080_000, 1_080_000)
    size = sum(path.stat().st_size for path in (trial.directory / "shards").rglob("*") if path.is_file())
    assert found.num_bytes == pytest.approx(size / 160 * 1_100_000)
    lines = found.lines(num_processes=10)
    assert "teach" in lines[3] and f"{100_000 * 0.2 / 3600 / 10:.2f}" in lines[3] and "–" in lines[2]


def test_the_newest_settings_are_what_many_rows_will_cost(store: Store) -> None:
    """Whatever else was tried: with the price of its replies, though an earlier run had paid for some."""
    fill(store, made(40, "hard"), "hard")

    def answer(received: Received) -> Reply:
        is_long = received.body["max_tokens"] == 500
        return completion("<caption>A.</caption><think>B.</think><answer>C</answer>", tokens=400 if is_long else 40)

    def teach(**changes: object) -> None:
        table = {"teacher": {"base_url": stub.base_url, "model": "m"}, "budget": {"price": {"completion": 1e6}}}
        run_teach(store, build_config(TeachRecipe, table | {"num_samples": 1} | changes, (), source="test"), Part())

    def plan() -> tuple[float, float]:
        step = forecast(store, {"hard": 1000}).steps[-1]
        return step.tokens_per_row, step.cost_per_row

    with serving(answer) as stub:
        teach(max_response_tokens=500)
        assert plan() == (11 + 400, 400)
        teach(max_response_tokens=50)
        assert plan() == (11 + 40, 40)
        teach(max_response_tokens=50, num_samples=3)  # the first sample is there
        assert len(stub.received) == 160 and plan() == (3 * (11 + 40), 3 * 40)
        teach(max_response_tokens=500)
        assert len(stub.received) == 160 and plan() == (11 + 400, 400)
    assert count_spending(store, "teach").cost == 40 * (400 + 3 * 40)


def test_a_source_without_a_trial_is_refused(trial: Store) -> None:
    with pytest.raises(DataError, match="no rows of source 'other' to plan by; it has: hard, public"):
        forecast(trial, {"other": 5})


def test_steps_note_their_time_and_torn_lines_are_passed_over(store: Store) -> None:
    fill(store, made(30))
    run_step(store, Scripted("step"))
    run_step(store, Scripted("step"))
    with (store.directory / "timings.jsonl").open("a") as file:
        file.write('{"key": "x", "num_ro')
    [(key, timing)] = read_timings(store.directory).items()
    assert key == store.newest_run("step").id and timing.num_rows == 30 and timing.seconds > 0


def test_times_add_up(tmp_path: Path) -> None:
    assert read_timings(tmp_path) == {}
    for num_rows in (19, 20, 30):  # the first is too few
        note_timing(tmp_path, "a", num_rows, 1.5)
    assert read_timings(tmp_path) == {"a": Timing(50, 3.0)}
    assert [json.loads(line)["num_rows"] for line in (tmp_path / "timings.jsonl").read_text().splitlines()] == [20, 30]
