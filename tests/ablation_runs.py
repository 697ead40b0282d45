"""Ablations on disk as `prism ablate` leaves them, written by hand with answers that are known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.report.ablation import Cell, measured_cells, read_listing
from prism.report.ablation_checkpoints import Group

GRPO = Group(("grpo",))
RECIPE: dict[str, Any] = {
    "data": {"type": "world"},
    "base": {"type": "tiny"},
    "sft": {"num_steps": 30},
    "warmup": {"num_steps": 4},
    "align": {"num_steps": 40},
    "rlvr": {"num_steps": 60, "algorithms": [{"type": "grpo"}, {"type": "gspo"}], "baselines": []},
    "evaluation": {},
}
WITHOUT = {"align": None, "warmup": None, "rlvr": RECIPE["rlvr"] | {"num_steps": 100}}
GROUPS = {"color": "in-distribution", "chart": "out-of-distribution"}

Answers = Mapping[str, Sequence[int]]
"""sub-benchmark → 1 or 0 for each item"""


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_listing(root: Path, cells: Sequence[str], reference: str = "full", **more: Any) -> None:
    write(root / "ablation.json", {"reference": reference, "cells": list(cells), **more})


def write_cell(root: Path, name: str, *, seeds: Sequence[int] = (0,), **settings: Any) -> Path:
    path = root / "cells" / name
    recipe = RECIPE | {"name": name, "seeds": list(seeds)} | settings
    write(path / "recipe.json", {key: value for key, value in recipe.items() if value is not None})
    return path


def evaluate(cell: Path, stage: str, answers: Answers, *, seed: int = 0, test: str = "a" * 64, **recorded: Any) -> None:
    """Writes a complete stage whose greedy answers are right where `answers` say so, and with `recorded` in its
    manifest. The summary's limits, ±0.1 around the mean, cannot be mistaken for any that the report works out."""
    path = cell / f"seed-{seed}" / stage
    outputs = {"model": {"path": "model", "sha256": "2" * 64}}
    kind = "rlvr" if "-" in stage else stage
    manifest = {"name": stage, "kind": kind, "status": "complete", "inputs": {}, "outputs": outputs}
    write(path / "manifest.json", manifest | recorded)
    write(
        path / "evaluation" / "manifest.json",
        {"status": "complete", "inputs": {"data/test": test}, "outputs": {"items": "3" * 64}},
    )
    rows = [
        {
            "benchmark": benchmark,
            "group": GROUPS[benchmark],
            "item_id": f"{benchmark}-{index}",
            "mode": "greedy",
            "verdict": "correct" if is_right else "wrong",
            "is_valid": True,
            "caption_fraction": 0.5,
            "is_caption_exact": False,
            "num_steps": 3,
            "num_items": 9,
        }
        for benchmark, verdicts in answers.items()
        for index, is_right in enumerate(verdicts)
    ]
    write_lines(path / "evaluation" / "items.jsonl", rows)
    means = {benchmark: sum(verdicts) / len(verdicts) for benchmark, verdicts in answers.items()}
    average = {}
    for scope in ("all", *dict.fromkeys(GROUPS[benchmark] for benchmark in answers)):
        chosen = [benchmark for benchmark in answers if scope in ("all", GROUPS[benchmark])]
        count = sum(len(answers[benchmark]) for benchmark in chosen)
        mean = sum(means[benchmark] for benchmark in chosen) / len(chosen)
        average[scope] = {"greedy": {"accuracy": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "count": count}}}
    write(path / "evaluation" / "summary.json", {"num_items": 6, "benchmarks": {}, "average": average})


def two_seeds(root: Path) -> Path:
    """`full` against `no-alignment` on GRPO over two seeds. In points out of one, full is ahead by
    .25 and .5 on the two sub-benchmarks of seed 0, so .375, and by 0 and .5 in seed 1, so .25."""
    write_listing(root, ("full", "no-alignment"))
    full = write_cell(root, "full", seeds=(0, 1))
    control = write_cell(root, "no-alignment", seeds=(0, 1), **WITHOUT)
    evaluate(full, "prism-grpo", {"color": [1, 1, 0, 0], "chart": [1, 0]}, seed=0)
    evaluate(control, "sft-grpo", {"color": [1, 0, 0, 0], "chart": [0, 0]}, seed=0)
    evaluate(full, "prism-grpo", {"color": [0, 1, 0, 1], "chart": [1, 1]}, seed=1)
    evaluate(control, "sft-grpo", {"color": [1, 0, 1, 0], "chart": [1, 0]}, seed=1)
    return root


def measured(root: Path) -> dict[str, Cell]:
    return {cell.name: cell for cell, _ in measured_cells(read_listing(root))}


def write_game(cell: Path, seed: int, rows: Sequence[Mapping[str, Any]], stage: str = "align") -> None:
    path = cell / f"seed-{seed}" / stage
    write(path / "manifest.json", {"name": stage, "kind": "rlvr" if "-" in stage else stage, "status": "complete"})
    write_lines(path / "metrics.jsonl", [{"step": step, **row} for step, row in enumerate(rows, start=1)])
