"""Does alignment before RLVR help? Runs an ablation seed by seed and puts the seeds together.

    python benchmarks/effect.py [--recipe effect] run 0 [1 …]    # every cell of these seeds, then their archive
    python benchmarks/effect.py [--recipe effect] report         # the table over all archived seeds, and a page

The recipe is one of `recipes/ablations/` (`EXPERIMENTS`). A seed takes an hour and more of one core and is resumed when
it was cut off. Its archive in `benchmarks/results/RECIPE/` holds what a report reads, except samples and texts of
responses, and no weights, so that seeds can be run on several machines, or days.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean
from typing import Any

from prism.cli import main as prism
from prism.config import CELLS, LISTING, SAMPLES_PER_PROMPT, Recipe, plan_stages
from prism.evals.statistics import Interval, mean_interval
from prism.report import print_ablation_table
from prism.report.ablation import OVERALL, averaged
from prism.report.plots import signed_points
from prism.report.results import ACCURACIES, MODES, gain_over_seeds, item_means
from prism.report.rundir import Run, read_run
from prism.report.tables import interval_text as limits_text
from prism.runtime.jsonl import read_jsonl

RECIPES, RUNS, RESULTS = Path("recipes/ablations"), Path("runs"), Path(__file__).parent / "results"
KEPT = {
    *("recipe.json", LISTING, "manifest.json", "teacher_distribution.json"),
    *("metrics.jsonl", "timings.jsonl", "router.jsonl", "events.jsonl", "summary.json", "audit.json", "audits.jsonl"),
}
EXPERIMENTS = ("effect", "noisy-effect", "tuned-effect")
"""Recipes whose reference is the cell `full`."""
ITEMS = "items.jsonl"
PART = 10
"""Steps of alignment that are reported together."""


def run(recipe: str, seed: int) -> None:
    directory = RUNS / f"tiny-{recipe}-{seed}"
    if status := prism(["ablate", str(RECIPES / f"{recipe}.toml"), f"seeds=[{seed}]", "--output", str(directory)]):
        raise SystemExit(status)
    pack(directory, RESULTS / recipe / f"seed-{seed}.tar.xz")


def pack(directory: Path, path: Path) -> None:
    """The archive `path` of one seed's ablation in `directory`."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:xz") as archive:
        for kept in kept_files(directory):
            add(archive, kept, str(kept.relative_to(directory)))


def kept_files(directory: Path) -> Iterator[Path]:
    """Links of the cells' stages, and the small files behind them."""
    for path in sorted(directory.rglob("*")):
        is_stale = any(".stale-" in part for part in path.parts)
        if not is_stale and (path.is_symlink() or (path.is_file() and path.name in KEPT | {ITEMS})):
            yield path


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_symlink() or path.name != ITEMS:
        archive.add(path, name)
        return
    kept = ({key: value for key, value in row.items() if key != "response"} for row in read_jsonl(path))
    lines = (json.dumps(row) + "\n" for row in kept)
    data = "".join(lines).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def unite(archives: list[Path], directory: Path) -> None:
    """Puts the seeds of `archives` into `directory`, anew, as if one command had run them all.

    Raises SystemExit where two seeds ran different recipes: their mean would be that of no experiment.
    """
    if directory.exists():
        shutil.rmtree(directory)
    cells: dict[str, dict[str, Any]] = {}
    listed: dict[str, None] = {}
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(directory, filter="data")
            # Of this archive: another's cell that it lacks lies there as well.
            files = [directory / name for name in sorted(archive.getnames()) if fnmatch(name, f"{CELLS}/*/recipe.json")]
        listing = json.loads((directory / LISTING).read_text(encoding="utf-8"))
        listed |= dict.fromkeys(listing["cells"])
        for file in files:
            recipe = json.loads(file.read_text(encoding="utf-8"))
            [seed], recipe["output"] = recipe["seeds"], str(file.parent)
            first = cells.setdefault(file.parent.name, recipe | {"seeds": []})
            if differing := [key for key in recipe if key != "seeds" and recipe[key] != first[key]]:
                raise SystemExit(
                    f"{path}: the recipe of cell {file.parent.name} differs from that of {archives[0].name} in "
                    f"{', '.join(differing)}: run the seed again"
                )
            first["seeds"].append(seed)
    (directory / LISTING).write_text(json.dumps(listing | {"cells": list(listed)}), encoding="utf-8")
    for name, recipe in cells.items():
        (directory / CELLS / name / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


def report(recipe: str) -> int:
    archives = sorted((RESULTS / recipe).glob("seed-*.tar.xz"))
    if not archives:
        raise SystemExit(f"{RESULTS / recipe}: no seed is archived yet: run one first")
    united = RUNS / f"tiny-{recipe}-united"
    unite(archives, united)
    print(print_ablation_table(united))
    print("\n".join(budget_lines(united) + drift_lines(united) + game_lines(united)))
    return prism(["report", str(united)])


def budget_lines(united: Path) -> list[str]:
    """Rollouts that each arm with RLVR sampled, means over seeds, and what the aligned policies are ahead before any.

    The warm-up's rollouts count: a baseline of as many steps as alignment and RLVR have together has fewer.
    """
    runs = {cell.name: read_run(cell) for cell in sorted((united / CELLS).iterdir())}
    full, others = runs["full"], {name: run for name, run in runs.items() if run.recipe.align is None}
    aligned = warmup_rollouts(full.recipe) + sampled(full, "align")
    found = [f"{name} {aligned + sampled(full, f'prism-{name}'):,.0f}" for name in algorithms(full)]
    lines = ["", "rollouts sampled, means over seeds, those that dynamic sampling discards included"]
    lines.append(f"  full: warm-up and alignment {aligned:,.0f}, with RLVR {', '.join(found)}")
    for cell, run in others.items():
        found = [f"{name} {sampled(run, f'sft-{name}'):,.0f}" for name in algorithms(run)]
        lines += [
            f"  {cell}: {', '.join(found)}; PRISM without RLVR less this arm after RLVR, all sub-benchmarks, points",
            *(f"    {mode}: {lead_before_rlvr(full, run, mode)}" for mode in MODES),
        ]
    return lines


def algorithms(run: Run) -> list[str]:
    return list(dict.fromkeys(stage.algorithm.name for stage in plan_stages(run.recipe) if stage.algorithm is not None))


def lead_before_rlvr(full: Run, other: Run, mode: str) -> str:
    """Of the aligned policies over the mean of the other arm's algorithms, paired by question, 95% over seeds."""
    behind = [{s.seed: item_means(s, mode) for s in other.over_seeds(f"sft-{name}")} for name in algorithms(other)]
    pairs = [
        (item_means(stage, mode), averaged([seeds[stage.seed] for seeds in behind]))
        for stage in full.over_seeds("align")
        if all(stage.seed in seeds for seeds in behind)
    ]
    gain = gain_over_seeds(pairs, ACCURACIES[OVERALL])
    return f"{signed_points(gain.mean)} {limits_text(gain, signed=True)}" if gain else "–"


def warmup_rollouts(recipe: Recipe) -> int:
    return recipe.warmup.num_prompts * SAMPLES_PER_PROMPT if recipe.warmup else 0


def sampled(run: Run, name: str) -> float:
    """Rollouts of a stage, those included that dynamic sampling discards; the mean over its seeds."""
    per_step = [
        [
            row["dapo/generated_prompts"] * run.recipe.rlvr.group_size
            if run.recipe.rlvr and row.get("dapo/generated_prompts") is not None
            else row["rollout/count"]
            for row in stage.metrics
        ]
        for stage in run.over_seeds(name)
    ]
    return fmean(sum(counts) for counts in per_step) if per_step else 0.0


def drift_lines(united: Path) -> list[str]:
    """Of each seed: which measures of distance to the teacher are smaller after alignment than after SFT, and the share
    of descriptions without a mistake. A distance up to its floor cannot be told from none."""
    lines = ["", "distance to the teacher after SFT and after alignment; * is up to its floor"]
    for seed in sorted((united / CELLS / "full").glob("seed-*")):
        summaries = [read_summary(seed / stage) for stage in ("sft", "align")]
        for mode in MODES:
            first, second = (summary["drift"][mode] for summary in summaries)
            drifted = [name for name, distance in first.items() if distance["plug_in"] > distance["floor"]]
            closer = [name for name in drifted if second[name]["mean"] < first[name]["mean"]]
            exact = [summary["average"]["all"][mode]["caption_exact"]["mean"] for summary in summaries]
            lines.append(
                f"  {seed.name}, {mode}: {len(closer)} of the {len(drifted)} measures that SFT moved are closer; "
                f"descriptions without a mistake {exact[0]:.1%}, {exact[1]:.1%}"
            )
            lines += [f"    {name}: {distance_text(first[name])}, {distance_text(second[name])}" for name in first]
    return lines


def distance_text(distance: dict[str, float]) -> str:
    return f"{distance['mean']:.4f}{'' if distance['plug_in'] > distance['floor'] else '*'}"


def game_lines(united: Path) -> list[str]:
    """What each discriminator's rollouts are worth while its game is played, by parts of `PART` steps: the answers of
    all 64 a step, the descriptions of the valid ones.

    Means over seeds; of the others than the mixture less the mixture's, with 95% intervals over seeds.
    """
    games = {cell.name: read_games(cell) for cell in sorted((united / CELLS).iterdir())}
    mixture = games.pop("full")
    others = {name: seeds for name, seeds in games.items() if seeds}
    lines = ["", f"rollouts of the game, points; the mixture's, and the others' less those, {len(mixture)} seeds"]
    for start in range(0, min(map(len, mixture.values())), PART):
        lines.append(f"  steps {start + 1} to {start + PART}")
        for metric in ("reward/accuracy", "reward/caption_exact"):
            own = means_from(mixture, metric, start)
            found = [f"full {fmean(own.values()):.1f}"]
            for name, seeds in others.items():
                means = means_from(seeds, metric, start)
                less = mean_interval({seed: [mean - own[seed]] for seed, mean in means.items() if seed in own})
                found.append(f"{name} {interval_text(less)}")
            lines.append(f"    {metric}: {', '.join(found)}")
    return lines


def interval_text(interval: Interval) -> str:
    mean, low, high = interval.mean or 0.0, interval.low, interval.high
    limits = "no limits" if low is None or high is None else f"{low:.1f}, {high:.1f}"
    return f"{mean:+.1f} [{limits}]"


def means_from(seeds: dict[str, list[dict[str, Any]]], metric: str, start: int) -> dict[str, float]:
    """Means of each seed over the part that begins behind step `start`, in percent."""
    found = {
        seed: [row[metric] for row in rows[start : start + PART] if row[metric] is not None]
        for seed, rows in seeds.items()
    }
    return {seed: 100 * fmean(values) for seed, values in found.items() if values}


def read_games(cell: Path) -> dict[str, list[dict[str, Any]]]:
    """The metrics of every step of alignment, by seed."""
    return {file.parent.parent.name: read_jsonl(file) for file in sorted(cell.glob("seed-*/align/metrics.jsonl"))}


def read_summary(stage: Path) -> dict[str, Any]:
    return json.loads((stage / "evaluation" / "summary.json").read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="effect", choices=EXPERIMENTS)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("seeds", type=int, nargs="+")
    commands.add_parser("report")
    arguments = parser.parse_args()
    if arguments.command == "report":
        return report(arguments.recipe)
    for seed in arguments.seeds:
        # Each seed in a process of its own: threads and random state begin afresh.
        if len(arguments.seeds) > 1:
            subprocess.run([sys.executable, __file__, "--recipe", arguments.recipe, "run", str(seed)], check=True)
        else:
            run(arguments.recipe, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
