"""Reading: what is there is read, what is damaged is named, what is being written is waited for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prism.errors import DataError
from prism.report.rundir import metric_value, read_run

MakeRun = Callable[..., Path]


def test_a_full_run(full_run: Path) -> None:
    run = read_run(full_run)
    assert run.seeds == (0, 1)
    assert run.stage_names == (
        "base", "sft", "warmup", "sft-grpo", "align", "prism-grpo", "prism-dapo", "prism-gspo",
    )  # fmt: skip
    assert run.evaluated_names == tuple(name for name in run.stage_names if name != "warmup")
    assert [stage.seed for stage in run.over_seeds("align")] == [0, 1]
    assert run.teacher[0]["num_steps"]["4"] == 160


def test_every_checkpoint_has_its_baseline(full_run: Path) -> None:
    run = read_run(full_run)
    assert run.baseline_of("prism-grpo") == "sft-grpo"
    assert run.baseline_of("prism-dapo") == "sft-grpo", "the only baseline that was run"
    assert run.baseline_of("base") == "sft-grpo"
    assert run.baseline_of("sft-grpo") is None


def test_the_baseline_of_the_same_algorithm_comes_first(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("base",))
    recipe = json.loads((path / "recipe.json").read_text())
    recipe["rlvr"]["baselines"] = ["grpo", "gspo"]
    (path / "recipe.json").write_text(json.dumps(recipe))
    run = read_run(path)
    assert [run.baseline_of(name) for name in ("prism-grpo", "prism-dapo", "prism-gspo")] == [
        "sft-grpo",
        "sft-grpo",
        "sft-gspo",
    ]


def test_a_run_without_alignment_has_no_baseline(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("base", "sft", "sft-grpo"))
    recipe = json.loads((path / "recipe.json").read_text())
    del recipe["align"], recipe["warmup"]
    (path / "recipe.json").write_text(json.dumps(recipe))
    assert read_run(path).baseline_of("sft-grpo") is None


def test_the_data_directory_is_no_stage(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("base",))
    (path / "seed-0" / "data" / "manifest.json").write_text("{}")
    assert read_run(path).stage_names == ("base",)


def test_results_that_were_set_aside_are_left_out(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("base", "sft"))
    (path / "seed-0" / "sft").rename(path / "seed-0" / "sft.stale-0123abcd")
    assert set(read_run(path).stages) == {(0, "base")}


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recipe\.json"):
        read_run(tmp_path)


def test_a_line_that_is_just_being_written_is_left_out(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("sft",))
    metrics = path / "seed-0" / "sft" / "metrics.jsonl"
    before = len(read_run(path).stages[0, "sft"].metrics)
    with metrics.open("a") as file:
        file.write('{"step": 301, "loss/n')
    assert len(read_run(path).stages[0, "sft"].metrics) == before


@pytest.mark.parametrize("line", ["{broken", '{"step": 1, "loss/nll": NaN}', "[1]"])
def test_a_damaged_line_is_named(make_run: MakeRun, line: str) -> None:
    path = make_run(seeds=(0,), stages=("sft",))
    metrics = path / "seed-0" / "sft" / "metrics.jsonl"
    metrics.write_text('{"step": 0}\n' + line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        read_run(path)


def test_a_graded_response_without_verdict_is_named(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("sft",))
    (path / "seed-0" / "sft" / "evaluation" / "items.jsonl").write_text('{"benchmark": "color"}\n')
    with pytest.raises(DataError, match=r"items\.jsonl.*verdict"):
        read_run(path)


def test_an_unverifiable_answer_has_not_been_shown_to_be_right(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("sft",))
    items = path / "seed-0" / "sft" / "evaluation" / "items.jsonl"
    row = json.loads(items.read_text().splitlines()[0])
    rows = [row | {"verdict": verdict} for verdict in ("correct", "wrong", "unverifiable")]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_run(path).stages[0, "sft"].items
    assert read is not None
    assert [item.values["accuracy"] for item in read] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("row", "expected"), [({"a": 1}, 1.0), ({"a": 0.5}, 0.5), ({"a": None}, None), ({}, None), ({"a": "x"}, None)]
)
def test_metric_value(row: dict[str, object], expected: float | None) -> None:
    assert metric_value(row, "a") == expected
