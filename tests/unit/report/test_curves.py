"""Series: gaps, means over seeds, and the common axis of steps after SFT."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism.config import Recipe
from prism.report.curves import (
    accuracy_band,
    alignment_section,
    losses_section,
    mean_over_seeds,
    metric_points,
    other_metrics,
    policy_section,
    seed_lines,
    smoothed,
    steps_before,
)
from prism.report.rundir import Row, Stage, read_run

MakeRun = Callable[..., Path]


def stage_with(*metrics: Row, name: str = "align") -> Stage:
    return Stage(0, name, None, metrics, (), (), None, None)


def test_a_null_is_a_gap() -> None:
    stage = stage_with({"step": 1, "a/b": 0.5}, {"step": 2, "a/b": None}, {"step": 3, "a/b": 0.25})
    assert metric_points(stage, "a/b") == ((1, 0.5), (2, None), (3, 0.25))


def test_a_hole_in_a_dense_metric_is_a_gap() -> None:
    stage = stage_with(*({"step": step, "a/b": 1.0} for step in (1, 2, 3, 4, 9, 10)))
    assert metric_points(stage, "a/b") == ((1, 1), (2, 1), (3, 1), (4, 1), (6.5, None), (9, 1), (10, 1))


def test_a_metric_measured_every_fifty_steps_is_whole() -> None:
    rows = [{"step": step, "loss/nll": 1.0} | ({"loss/dev_nll": 2.0} if step % 50 == 0 else {}) for step in range(201)]
    points = metric_points(stage_with(*rows), "loss/dev_nll")
    assert points == tuple((step, 2.0) for step in (0, 50, 100, 150, 200))


def test_the_mean_needs_every_seed() -> None:
    assert mean_over_seeds([[(1, 1.0), (2, None), (3, 3.0)], [(1, 2.0), (2, 2.0)]]) == ((1, 1.5), (2, None), (3, None))


def test_smoothing_keeps_gaps_and_borrows_nothing_from_them() -> None:
    points = [(1, 1.0), (2, 2.0), (3, None), (4, 6.0)]
    assert smoothed(points, 2) == ((1, 1.5), (2, 1.5), (3, None), (4, 6.0))
    assert smoothed(points, 0) == tuple(points)


def test_one_short_series_is_one_line() -> None:
    lines = seed_lines([(0, ((1, 1.0), (2, 2.0)))], "a", "c-sft")
    assert [(line.label, line.is_faint) for line in lines] == [("a", False)]


def test_seeds_are_faint_and_their_mean_is_strong() -> None:
    lines = seed_lines([(0, ((1, 1.0),)), (3, ((1, 2.0),)), (4, ((1, None),))], "a", "c-sft")
    assert [line.label for line in lines] == ["a, seed 0", "a, seed 3", "a"]
    assert [line.is_faint for line in lines] == [True, True, False]
    assert lines[-1].points == ((1, 1.5),)


def test_a_long_series_is_smoothed_over_its_own_values() -> None:
    points = tuple((step, float(step % 2)) for step in range(400))
    raw, strong = seed_lines([(0, points)], "a", "c-sft")
    assert raw.points == points
    values = [value for _, value in strong.points[20:-20] if value is not None]
    assert max(values) - min(values) < 0.1


def test_a_prism_stage_begins_where_alignment_ended(full_run: Path) -> None:
    run = read_run(full_run)
    assert steps_before(run, run.stages[0, "prism-grpo"]) == 40
    assert steps_before(run, run.stages[0, "sft-grpo"]) == 0


def test_without_alignment_steps_nothing_is_placed(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("sft", "prism-grpo"))
    run = read_run(path)
    assert steps_before(run, run.stages[0, "prism-grpo"]) is None
    assert str(policy_section(run)).count("Not recorded.") == 5


def test_missing_discriminator_accuracy_is_a_gap_in_the_chart(single_seed_run: Path) -> None:
    section = str(alignment_section(read_run(single_seed_run)))
    chart = section[section.index("Discriminator accuracy") : section.index("Rollouts in valid format")]
    assert chart.count("<polyline") == 4, "two branches, each in two stretches"
    assert "least 0" in section


@pytest.mark.parametrize(
    ("align", "band"),
    [
        (None, (0.65, 0.85)),
        ({}, (0.65, 0.85)),
        ({"control": {}}, (0.65, 0.85)),
        ({"control": {"low": 0.4, "high": 0.8}}, (0.4, 0.8)),
    ],
)
def test_the_band_is_that_of_the_recipes_control(align: dict[str, Any] | None, band: tuple[float, float]) -> None:
    table: dict[str, Any] = {"name": "r", "data": {}, "base": {}, "warmup": {"num_steps": 1}}
    table |= {} if align is None else {"align": {"num_steps": 1} | align}
    assert accuracy_band(Recipe.model_validate(table)) == band


def test_without_a_recipe_the_band_is_the_default() -> None:
    assert accuracy_band(None) == (0.65, 0.85)


def test_the_configured_band_is_drawn_and_described(make_run: MakeRun) -> None:
    path = make_run(seeds=(0,), stages=("align",))
    recipe = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
    recipe["align"]["control"] = {"low": 0.4, "high": 0.8}
    (path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    section = str(alignment_section(read_run(path)))
    assert "inside the shaded band, 40% to 80%, neither side has won" in section
    [(top, height, level)] = [
        tuple(map(float, found))
        for found in re.findall(r'y="([\d.]+)" [^>]*height="([\d.]+)" class="band"/><line [^>]*y1="([\d.]+)"', section)
    ]
    # Chance, 0.5, lies a quarter of the way up from 0.4 to 0.8.
    assert (top + height - level) / height == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize("section", [alignment_section, policy_section])
def test_stages_that_are_not_there_have_no_section(make_run: MakeRun, section: Callable[..., object]) -> None:
    run = read_run(make_run(seeds=(0,), stages=("base", "sft")))
    assert section(run) is None
    assert losses_section(run) is not None


def test_metrics_without_a_chart_of_their_own_are_folded_away(full_run: Path) -> None:
    folded = str(other_metrics(read_run(full_run)))
    assert "policy/clip_fraction" in folded
    assert "time/step_seconds" in folded
    assert "gap/perception" not in folded
    assert "rollout/length" not in folded
