"""The table of the experts' loads against hand-worked means."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.report.routing import routing_table
from prism.report.rundir import read_run


def record(run: Path, seed: int, *rows: Mapping[str, Any]) -> None:
    path = run / f"seed-{seed}" / "align" / "router.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def row(step: int, loads: Sequence[Sequence[float]], entropies: Sequence[float], divergence: float) -> dict[str, Any]:
    """One layer of two experts."""
    views = ("perception", "reasoning")[: len(loads)]
    return {
        "step": step,
        "load": {view: [load] for view, load in zip(views, loads, strict=True)},
        "entropy": {view: [entropy] for view, entropy in zip(views, entropies, strict=True)},
        "divergence": [divergence],
    }


def test_the_last_routing_of_each_seed_is_averaged(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=(0, 1))
    assert routing_table(read_run(run)) is None, "nothing is recorded of a discriminator without experts"
    early = row(10, [[1.0, 0.0], [1.0, 0.0]], [0.0, 0.0], 0.0)
    record(run, 0, early, row(40, [[0.75, 0.25], [0.25, 0.75]], [0.81, 0.81], 0.19))
    record(run, 1, early, row(40, [[0.25, 0.75], [0.25, 0.75]], [0.81, 0.41], 0.0))
    table = str(routing_table(read_run(run)))
    assert "<tr><td>0</td><td>50, 50</td><td>0.81</td><td>25, 75</td><td>0.61</td><td>0.095</td></tr>" in table
    assert "After step 40, mean over 2 seeds." in table


def test_one_view_has_nothing_to_diverge_from(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=(0,))
    record(run, 0, row(40, [[0.5, 0.5]], [1.0], 0.0))
    table = str(routing_table(read_run(run)))
    assert "mean over 1 seed." in table and "Divergence of the views" not in table
