"""The table holds the numbers of summary.json, and differences that can be checked by hand."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from prism.report.results import MODES, Column, counts_of, paired_gain, results_table
from prism.report.rundir import Item, read_run

ACCURACY = Column("all", "", "all", True)


def summary(run: Path, seed: int, stage: str) -> dict:
    return json.loads((run / f"seed-{seed}" / stage / "evaluation" / "summary.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_one_seed_shows_the_numbers_of_its_summary(single_seed_run: Path, mode: str) -> None:
    table = results_table(read_run(single_seed_run), mode)
    num_checked = 0
    for row in table.rows:
        written = summary(single_seed_run, 0, row.stage)
        for column, estimate in zip(table.columns, row.scores, strict=True):
            entry = written["average" if column.is_average else "benchmarks"][column.scope][mode][column.metric]
            assert estimate is not None
            assert (estimate.mean, estimate.low, estimate.high, estimate.count) == tuple(entry.values())
            num_checked += 1
    assert num_checked == 7 * 12


def test_columns_are_averages_then_benchmarks_by_group(full_run: Path) -> None:
    columns = results_table(read_run(full_run), "greedy").columns
    assert [column.scope for column in columns if column.is_average] == [
        "in-distribution",
        "out-of-distribution",
        *["all"] * 4,
    ]
    assert [column.scope for column in columns if not column.is_average] == [
        "color",
        "count",
        "position",
        "chart",
        "compare",
        "large-grid",
    ]


def test_two_seeds_by_hand(full_run: Path) -> None:
    table = results_table(read_run(full_run), "greedy")
    row = next(row for row in table.rows if row.stage == "prism-grpo")
    estimate = row.scores[table.column_index("all", "accuracy")]
    first, second = (summary(full_run, seed, "prism-grpo")["average"]["all"]["greedy"]["accuracy"] for seed in (0, 1))
    assert estimate is not None and estimate.high is not None
    assert estimate.mean == pytest.approx((first["mean"] + second["mean"]) / 2)
    # For two seeds the error of the mean is half their distance, and t with one degree of freedom is 12.7062.
    assert estimate.high - estimate.mean == pytest.approx(12.7062 * abs(first["mean"] - second["mean"]) / 2, rel=1e-4)
    assert (estimate.count, estimate.num_seeds) == (240, 2)


@pytest.mark.parametrize("mode", MODES)
def test_a_paired_difference_on_the_same_items_is_the_difference_of_the_means(single_seed_run: Path, mode: str) -> None:
    table = results_table(read_run(single_seed_run), mode)
    by_name = {row.stage: row for row in table.rows}
    baseline = by_name["sft-grpo"]
    assert all(gain is None for gain in baseline.gains)
    for name in ("base", "sft", "align", "prism-grpo", "prism-dapo", "prism-gspo"):
        for column, gain, ours, theirs in zip(
            table.columns, by_name[name].gains, by_name[name].scores, baseline.scores, strict=True
        ):
            if column.metric in ("accuracy", "valid"):
                assert gain is not None and ours is not None and theirs is not None
                assert gain.mean == pytest.approx(ours.mean - theirs.mean)
                assert gain.count == ours.count


def test_pairing_makes_the_interval_narrower_than_that_of_unpaired_items(single_seed_run: Path) -> None:
    table = results_table(read_run(single_seed_run), "greedy")
    index = table.column_index("all", "accuracy")
    row = next(row for row in table.rows if row.stage == "prism-grpo")
    baseline = next(row for row in table.rows if row.stage == "sft-grpo")
    widths = []
    for estimate in (row.gains[index], row.scores[index], baseline.scores[index]):
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        widths.append(estimate.high - estimate.low)
    assert widths[0] < (widths[1] ** 2 + widths[2] ** 2) ** 0.5 * 1.1


def test_paired_gain_by_hand() -> None:
    group = "in-distribution"
    ours = {"accuracy": {"color": {(group, "1"): 1.0, (group, "2"): 1.0, (group, "3"): 0.0, (group, "x"): 1.0}}}
    theirs = {"accuracy": {"color": {(group, "1"): 0.0, (group, "2"): 1.0, (group, "3"): 0.0}}}
    gain = paired_gain(ours, theirs, ACCURACY)
    # The item "x" has no partner. Differences 1 0 0: mean 1/3, error √(1/3)/√3 = 1/3, t with 2 degrees 4.30265.
    assert gain is not None and gain.high is not None
    assert (gain.mean, gain.count) == (pytest.approx(1 / 3), 3)
    assert gain.high == pytest.approx(1 / 3 + 4.30265 / 3, abs=1e-4)


def test_an_average_with_a_benchmark_on_one_side_only_stays_missing() -> None:
    group = "in-distribution"
    ours = {"accuracy": {"color": {(group, "1"): 1.0}, "count": {(group, "1"): 1.0}}}
    theirs = {"accuracy": {"color": {(group, "1"): 0.0}}}
    assert paired_gain(ours, theirs, ACCURACY) is None
    assert paired_gain(ours, theirs, Column("color", "", "color", False)) is not None


def test_groups_are_kept_apart() -> None:
    ours = {"accuracy": {"a": {("in-distribution", "1"): 1.0}, "b": {("out-of-distribution", "1"): 0.0}}}
    theirs = {"accuracy": {"a": {("in-distribution", "1"): 0.0}, "b": {("out-of-distribution", "1"): 1.0}}}
    gains = [
        paired_gain(ours, theirs, Column("", "", scope, True))
        for scope in ("in-distribution", "out-of-distribution", "all")
    ]
    assert [gain.mean if gain else None for gain in gains] == [1.0, -1.0, 0.0]


def test_samples_of_an_item_are_averaged_before_pairing(single_seed_run: Path) -> None:
    """Against a straight computation from the file."""
    table = results_table(read_run(single_seed_run), "sampled")
    index = next(i for i, column in enumerate(table.columns) if column.scope == "chart")
    gain = next(row for row in table.rows if row.stage == "prism-grpo").gains[index]
    means = []
    for stage in ("prism-grpo", "sft-grpo"):
        lines = (single_seed_run / "seed-0" / stage / "evaluation" / "items.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if (row["benchmark"], row["mode"]) == ("chart", "sampled")]
        means.append(fmean(row["verdict"] == "correct" for row in rows))
    assert gain is not None
    assert (gain.mean, gain.count) == (pytest.approx(means[0] - means[1]), 20)


def test_counts_of_one_mode_only() -> None:
    items = [
        Item("color", "in-distribution", "1", mode, {}, num_steps=steps, num_items=9)
        for mode, steps in (("greedy", 3), ("greedy", 3), ("greedy", None), ("sampled", 5))
    ]
    assert counts_of(items, "num_steps", "greedy") == ({3: 2}, 1)
    assert counts_of(items, "num_items", "sampled") == ({9: 1}, 0)
