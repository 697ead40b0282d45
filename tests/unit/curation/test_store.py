"""Rows, shards and the order of steps, each against counts worked out by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curated_rows import Scripted, fill, made
from prism.curation import Part, Row, Store, count_step, run_step
from prism.curation.rows import dropped, kept, passed
from prism.errors import ConfigError, DataError, StorageError
from prism.records import ImageSource, Prompt

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "src")}


def number(row: Row) -> int:
    return int(row.prompt.id)


def test_a_row_comes_back_as_it_went_in(store: Store, noise: ImageSource) -> None:
    prompt = Prompt(
        "a b/c",
        "<image> before <image>? \x00 é \U0001f600",
        (noise, noise),
        answer="5",
        kind="k",
        choices=("4", "5"),
        equivalents=("five",),
        system="s",
        metadata={"deep": {"list": [1, None, 2.5]}, "empty": []},
    )
    fill(store, [Row("s/a b/c", prompt, "<answer>5</answer>", ((0, 3), (4, 9)))])
    [row] = store.rows()
    assert (row.id, row.completion, row.loss_spans) == ("s/a b/c", "<answer>5</answer>", ((0, 3), (4, 9)))
    stored = row.prompt.images
    assert [image.path.read_bytes() for image in stored if image.path] == [noise.data, noise.data]
    assert len(list(store.images.root.rglob("*.png"))) == 1
    assert row.prompt == Prompt(
        **{name: getattr(prompt, name) for name in Prompt.__dataclass_fields__ if name != "images"}, images=stored
    )


def test_steps_see_what_those_before_kept_and_found(store: Store) -> None:
    fill(store, made(12))
    run_step(store, Scripted("halve", lambda row: kept(row, half=number(row) / 2)))
    thirds = Scripted(
        "thirds", lambda row: dropped(row, "a third", f"is {row.id}") if number(row) % 3 == 0 else kept(row)
    )
    run_step(store, thirds)
    last = Scripted("last", lambda row: passed(row, "even") if number(row) % 2 == 0 else kept(row, number=number(row)))
    run_step(store, last)
    assert sorted(last.seen) == sorted(f"made/{n}" for n in range(12) if n % 3)
    assert {row.id: row.findings for row in store.rows()} == {
        f"made/{n}": {"halve": {"half": n / 2}} | ({"last": {"number": n}} if n % 2 else {}) for n in range(12) if n % 3
    }
    assert {row.id for row in store.rows(before="thirds")} == {f"made/{n}" for n in range(12)}
    assert count_step(store, "thirds").lines() == [
        "thirds: 12 in, 8 kept, 0 passed, 4 dropped",
        "          4 dropped: a third",
    ]
    funnel = count_step(store, "last")
    assert (funnel.num_in, funnel.num_kept, dict(funnel.passed)) == (8, 4, {"even": 4})
    details = [outcome.detail for outcome in store.outcomes("thirds") if outcome.status == "dropped"]
    assert sorted(filter(None, details)) == ["is made/0", "is made/3", "is made/6", "is made/9"]


def test_a_repeated_step_looks_at_new_rows_only(store: Store) -> None:
    fill(store, made(3))
    run_step(store, Scripted("step"))
    fill(store, made(2, "later"), "later")
    assert count_step(store, "step").num_pending == 2
    again = Scripted("step")
    assert run_step(store, again) == 2
    assert sorted(again.seen) == ["later/0", "later/1"]


def test_other_settings_are_another_run_and_so_are_all_steps_behind(store: Store) -> None:
    fill(store, made(3))
    for step in (Scripted("first"), Scripted("second"), Scripted("third")):
        run_step(store, step)
    changed = Scripted("second", lambda row: dropped(row, "changed"), {"threshold": 2})
    assert run_step(store, changed) == 3
    assert count_step(store, "third").num_in == 0 == sum(1 for _ in store.rows())
    third = Scripted("third")
    assert run_step(store, third) == 0 and third.seen == []  # nothing is left for it
    assert run_step(store, Scripted("second")) == 0  # what it said under the first settings still stands
    assert run_step(store, Scripted("third")) == 0 and count_step(store, "third").num_kept == 3
    assert [run.name for run in store.chain.current()] == ["first", "second", "third"]


def test_a_change_upstream_asks_the_steps_behind_again(store: Store) -> None:
    fill(store, made(3))
    run_step(store, Scripted("first"))
    run_step(store, Scripted("second"))
    run_step(store, Scripted("first", lambda row: kept(row, value=1), {"value": 1}))
    assert count_step(store, "second").num_pending == 3 and list(store.rows()) == []
    second = Scripted("second")
    assert run_step(store, second) == 3
    assert all(row.findings["first"] == {"value": 1} for row in store.rows())


def test_parts_share_the_rows_out(store: Store) -> None:
    fill(store, made(40))
    parts = [Scripted("step") for _ in range(3)]
    for index, step in enumerate(parts):
        run_step(store, step, Part(index, 3))
    seen = [row_id for step in parts for row_id in step.seen]
    assert sorted(seen) == sorted(row.id for row in made(40))
    assert all(step.seen for step in parts)


@pytest.mark.parametrize("text", ["3", "3/", "/3", "3/3", "-1/3", "a/b", "1/0"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard"):
        Part.parse(text)


def test_a_part_without_shards(store: Store) -> None:
    assert Part.parse("3/16") == Part(3, 16)
    fill(store, made(4))
    run_step(store, Scripted("step"))
    with pytest.raises(ConfigError, match="4 shards"):
        run_step(store, Scripted("step", settings={"of": "others"}), Part(7, 16))
    assert count_step(store, "step").num_kept == 4  # a command that was refused has changed nothing


def test_one_process_per_shard(store: Store) -> None:
    fill(store, made(4))
    script = f"""
from prism.curation import Part, Store
from prism.errors import StorageError
store = Store({str(store.directory)!r})
for part in (Part(0, 2), Part(1, 2)):
    try:
        with store.writing(part) as shards:
            print(sorted(shards))
    except StorageError as error:
        print("in use by another process" in str(error))
print(sum(1 for _ in store.rows()))
"""
    with store.writing(Part(0, 2)):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
    assert done.stdout.splitlines() == ["True", "[1, 3]", "4"]


def test_what_is_no_store_and_what_is_damaged(tmp_path: Path, store: Store) -> None:
    with pytest.raises(DataError, match="is no store"):
        Store(tmp_path / "nothing")
    (tmp_path / "begun" / "shards").mkdir(parents=True)  # by a process that was killed, or has not come to its end
    assert Store.create(tmp_path / "begun", 2).num_shards == 2
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(DataError, match="not empty"):
        Store.create(tmp_path / "photos")
    with pytest.raises(DataError, match="'verify' has not run; these have: none"):
        store.outcomes("verify").__next__()
    (store.shard_directory(0) / "rows.sqlite").write_bytes(b"not a database, " * 100)
    with pytest.raises(StorageError, match="damaged"):
        list(store.rows())
    (store.directory / "store.json").write_text(json.dumps({"format": 99, "num_shards": 1}))
    with pytest.raises(DataError, match="another format"):
        Store(store.directory)


def test_an_outcome_for_a_row_it_was_not_asked_about(store: Store) -> None:
    fill(store, made(4))
    stray = Scripted("step", lambda row: kept(Row("made/stranger", row.prompt)))
    with pytest.raises((DataError, StorageError), match="made/stranger"):
        run_step(store, stray)
