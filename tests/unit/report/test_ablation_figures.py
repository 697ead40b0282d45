"""Ablations: curves and charts show what the cells measured."""

import json
import re
from pathlib import Path

import pytest

from ablation_runs import (
    RECIPE,
    WITHOUT,
    evaluate,
    two_seeds,
    write,
    write_cell,
    write_game,
    write_listing,
)
from prism.report import render_ablation, render_report
from prism.report.ablation import measured_cells, read_listing
from prism.report.ablation_figures import alpha_section, course_lines, game_lines


def test_curves_of_the_game_are_means_over_seeds_for_each_mode(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "whole", "kl"))
    full = write_cell(tmp_path, "full", seeds=(0, 1))
    whole = write_cell(tmp_path, "whole", discriminator={"type": "whole-response"})
    kl = write_cell(tmp_path, "kl", align=RECIPE["align"] | {"kl": {"coefficient": 0.01}})
    write_game(full, 0, [{"gap/perception": 1.0, "accuracy/perception": 0.9}, {"gap/perception": 0.5}])
    write_game(full, 1, [{"gap/perception": 2.0, "accuracy/perception": 0.7}, {"gap/perception": None}])
    write_game(whole, 0, [{"gap/response": 0.25, "accuracy/response": 0.75}])
    write_game(kl, 0, [{"gap/perception": 1.0}])
    found = [game_lines(cell, run) for cell, run in measured_cells(read_listing(tmp_path)) if run is not None]
    assert found[0]["gap/perception"].points == ((1, 1.5), (2, None))
    assert found[0]["gap/perception"].label == "full (moe)"
    assert found[0]["accuracy/perception"].points == ((1, pytest.approx(0.8)),)
    assert {metric: line.points for metric, line in found[1].items()} == {
        "gap/response": ((1, 0.25),),
        "accuracy/response": ((1, 0.75),),
    }
    assert found[2] == {}, "a cell that changes something else has the reference's discriminator"
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "Score gap, whole response" in page
    assert "Score gap, perception" in page
    assert "Score gap, reasoning" not in page


def test_rollouts_of_both_arms_share_an_axis_that_begins_after_sft(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "no-alignment", "dense"))
    full = write_cell(tmp_path, "full", seeds=(0, 1))
    control = write_cell(tmp_path, "no-alignment", **WITHOUT)
    dense = write_cell(tmp_path, "dense", discriminator={"type": "dense"})
    for seed, length in ((0, 90.0), (1, 110.0)):
        write_game(full, seed, [{"rollout/length": length}, {"rollout/length": length + 20}])
        write_game(full, seed, [{"rollout/length": 80.0, "reward/accuracy": 0.5 + seed / 2}], "prism-grpo")
    write_game(control, 0, [{"rollout/length": 60.0, "reward/accuracy": 0.25}], "sft-grpo")
    write_game(dense, 0, [{"rollout/length": 60.0}], "prism-grpo")
    found = [course_lines(cell, run) for cell, run in measured_cells(read_listing(tmp_path)) if run is not None]
    assert [{key: line.points for key, line in lines.items()} for lines in found] == [
        {("grpo", "rollout/length"): ((1, 100), (2, 120), (3, 80)), ("grpo", "reward/accuracy"): ((3, 0.75),)},
        {("grpo", "rollout/length"): ((1, 60),), ("grpo", "reward/accuracy"): ((1, 0.25),)},
        {},
    ]
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert '<section id="course">' in page and "Response length, tokens" in page
    assert "steps after SFT<" in page and "kept groups" not in page


def test_courses_without_sft_begin_after_the_base(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "no-alignment"))
    full, control = write_cell(tmp_path, "full", sft=None), write_cell(tmp_path, "no-alignment", sft=None, **WITHOUT)
    write_game(full, 0, [{"rollout/length": 90.0}])
    write_game(full, 0, [{"rollout/length": 90.0}], "prism-grpo")
    write_game(control, 0, [{"rollout/length": 90.0}], "base-grpo")
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "in steps after the base:" in page and "steps after the base<" in page and "after SFT" not in page
    control = write_cell(tmp_path, "no-alignment", **WITHOUT)
    write_game(control, 0, [{"rollout/length": 90.0}], "sft-grpo")
    assert "steps after SFT, or the base without one<" in render_ablation(tmp_path).read_text(encoding="utf-8")


def test_charts_of_dynamic_sampling_say_that_they_show_kept_groups_alone(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full",))
    rlvr = RECIPE["rlvr"] | {"algorithms": [{"type": "dapo", "overlong_buffer": 64}, {"type": "grpo"}]}
    full = write_cell(tmp_path, "full", rlvr=rlvr)
    for stage in ("prism-dapo", "prism-grpo"):
        write_game(full, 0, [{"rollout/length": 90.0}])
        write_game(full, 0, [{"rollout/length": 90.0, "reward/accuracy": 0.5}], stage)
    for page in (render_ablation(tmp_path), render_report(full)):
        assert "only the groups that it keeps are counted" in page.read_text(encoding="utf-8")
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    dapo, grpo = page[page.index("<h3>DAPO") : page.index("<h3>GRPO")], page[page.index("<h3>GRPO") :]
    assert "Right answers of the rollouts, of kept groups<" in dapo and "kept groups" not in grpo


def test_the_band_of_accuracy_is_that_of_the_reference(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "dense"))
    control = {"control": {"low": 0.5, "high": 0.9}}
    full = write_cell(tmp_path, "full", align=RECIPE["align"] | control)
    dense = write_cell(tmp_path, "dense", discriminator={"type": "dense"})
    for cell in (full, dense):
        write_game(cell, 0, [{"accuracy/perception": 0.9}, {"accuracy/perception": 0.7}])
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "the band is 50% to 90%" in page
    [(bottom, level)] = [
        (float(top) + float(height), float(level))
        for top, height, level in re.findall(
            r'y="([\d.]+)" [^>]*height="([\d.]+)" class="band"/><line [^>]*y1="([\d.]+)"', page
        )
    ]
    assert bottom == pytest.approx(level, abs=0.02), "its lower edge is chance"
    write_cell(tmp_path, "full")
    assert "the band is 65% to 85%" in render_ablation(tmp_path).read_text(encoding="utf-8")


def test_each_cell_shows_its_own_drift(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    steps = {"mean": 1.5, "low": None, "high": None, "count": 6, "plug_in": 1.5, "floor": 0.1}
    for seed in (0, 1):
        path = root / "cells" / "full" / f"seed-{seed}" / "prism-grpo" / "evaluation" / "summary.json"
        drift = {"reference": "test", "greedy": {"reasoning/steps": steps}, "sampled": {}}
        write(path, json.loads(path.read_text(encoding="utf-8")) | {"drift": drift})
    page = render_ablation(root).read_text(encoding="utf-8")
    section = page[page.index('<section id="distributions">') : page.index('<section id="cells">')]
    ours, theirs = section.split("Cell no-alignment")
    assert "<td>1.50<small>1.50 · 1.50</small></td>" in ours
    assert "Drift from the teacher, greedy" in ours and "PRISM → GRPO<small>n = 12</small>" in ours
    assert "Drift" not in theirs, "its evaluations hold none"


def test_accuracy_against_alpha(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "alpha-1", "alpha-0", "kl"))
    right = {"full": [1, 1, 0, 0], "alpha-1": [1, 0, 0, 0], "alpha-0": [1, 1, 1, 0], "kl": [1, 1, 1, 1]}
    align = {
        "alpha-1": {"advantage": {"alpha": 1.0}},
        "alpha-0": {"advantage": {"alpha": 0.0}},
        "kl": {"kl": {"coefficient": 0.01}},
    }
    for name, answers in right.items():
        cell = write_cell(tmp_path, name, align=RECIPE["align"] | align.get(name, {}))
        evaluate(cell, "align", {"color": answers})
    listing = read_listing(tmp_path)
    cells = [cell for cell, _ in measured_cells(listing)]
    section = str(alpha_section(listing, cells))
    [curve] = re.findall(r'<polyline points="([^"]+)"', section)
    points = [tuple(map(float, pair.split(","))) for pair in curve.split()]
    bars = [
        tuple(map(float, found))
        for found in re.findall(r'<line x1="([\d.]+)" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)" class="curve', section)
    ]
    # α = 0, ½, 1 with .75, .5, .25: equal steps on both axes. Each bar reaches .1 to both sides of its point.
    assert points[1] == pytest.approx([(points[0][i] + points[2][i]) / 2 for i in (0, 1)], abs=0.02)
    assert points[0][0] < points[2][0] and points[0][1] < points[2][1]
    per_unit = (points[2][1] - points[0][1]) / 0.5
    assert [(x, (low + high) / 2) for x, low, high in bars] == [pytest.approx(point, abs=0.02) for point in points]
    assert [abs(high - low) for _, low, high in bars] == pytest.approx([0.2 * per_unit] * 3, abs=0.05)
    assert alpha_section(listing, [cell for cell in cells if not cell.name.startswith("alpha")]) is None


def test_accuracy_against_alpha_is_over_the_seeds_that_all_have(tmp_path: Path) -> None:
    """The reference has a seed more, on whose questions it does worse."""
    write_listing(tmp_path, ("full", "alpha-1"))
    full = write_cell(tmp_path, "full", seeds=(0, 1))
    other = write_cell(tmp_path, "alpha-1", seeds=(1,), align=RECIPE["align"] | {"advantage": {"alpha": 1.0}})
    evaluate(full, "align", {"color": [0, 0, 0, 0]}, seed=0)
    evaluate(full, "align", {"color": [1, 1, 0, 0]}, seed=1)
    evaluate(other, "align", {"color": [1, 0, 0, 0]}, seed=1)
    listing = read_listing(tmp_path)
    section = str(alpha_section(listing, [cell for cell, _ in measured_cells(listing)]))
    assert "Before RLVR, seed 1<" in section and "seeds 0" not in section
    bars = re.findall(r'<line x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)" class="curve', section)
    heights = [(float(low) + float(high)) / 2 for low, high in bars]
    length = float(bars[0][0]) - float(bars[0][1])
    # From .5 to .25 with limits of .1 to both sides.
    assert heights[1] - heights[0] == pytest.approx(0.25 / 0.2 * length, abs=0.05)
