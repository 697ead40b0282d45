"""What a run directory lacks, compared with what its recipe asks for, and what it has besides."""

from collections.abc import Callable, Iterable

from prism.report.identity import seeds_title, stage_title
from prism.report.rundir import Run


def missing_parts(run: Run) -> list[str]:
    """One line for each kind of gap; empty when everything the recipe asks for is there, finished, and as it should."""

    def is_missing(seed: int, name: str) -> bool:
        return (seed, name) not in run.stages

    def is_unfinished(seed: int, name: str) -> bool:
        return not is_missing(seed, name) and not run.stages[seed, name].is_complete

    def is_unevaluated(seed: int, name: str) -> bool:
        stage = run.stages.get((seed, name))
        return run.planned[name].is_evaluated and stage is not None and stage.is_complete and stage.summary is None

    lines = [f"Seed {seed} ended with an error: {error}" for seed, error in run.failures.items()]
    lines += [
        _line("Missing stages", run, is_missing),
        _line("Not finished", run, is_unfinished),
        _line("Not evaluated", run, is_unevaluated),
    ]
    differing = {line: None for found in run.disagreements.values() for line in found}
    for line in differing:
        seeds = [seed for seed in run.seeds if line in run.disagreements.get(seed, ())]
        lines.append(f"{line}{_seed_note(seeds, run.seeds)}")
    return [line for line in lines if line]


def left_over_parts(run: Run) -> list[str]:
    """What is there though the recipe does not ask for it: named, since it may be missed, and no gap."""
    lines = [f"Seed {seed} is left out: {reason}" for seed, reason in run.left_out.items()]
    unplanned = [name for name in run.stage_names if name not in run.planned]
    return [*lines, f"Not in the recipe: {', '.join(unplanned)}"] if unplanned else lines


def _line(title: str, run: Run, applies: Callable[[int, str], bool]) -> str:
    parts = []
    for name in run.planned:
        seeds = [seed for seed in run.seeds if applies(seed, name)]
        if seeds:
            parts.append(f"{stage_title(name)} ({name}{_seed_note(seeds, run.seeds)})")
    return f"{title}: {', '.join(parts)}" if parts else ""


def _seed_note(seeds: list[int], all_seeds: Iterable[int]) -> str:
    if seeds == list(all_seeds):
        return ""
    return f", {seeds_title(seeds)}"
