"""How many rollouts a policy cost: the other half of its budget, beside steps."""

from collections.abc import Sequence
from statistics import fmean

from prism.config import Recipe, warmup_rollouts
from prism.report.rundir import Row, Run, Stage, metric_value


def rollouts_since_sft(run: Run, name: str) -> float | None:
    """Rollouts of the stage and of those of its kind before it, warm-up included: the mean over the seeds that have
    come to its end, None where they did not record them."""
    chain = _chain(run, name)
    complete = [seed for seed in run.seeds if all(_is_complete(run, seed, stage) for stage in chain)]
    counts = [[rollouts_of(run, run.stages[seed, stage]) for stage in chain] for seed in complete]
    known = [sum(count for count in found if count is not None) for found in counts if None not in found]
    if not known:
        return None
    return fmean(known) + (warmup_rollouts(run.recipe) if "align" in chain else 0)


def _chain(run: Run, name: str) -> list[str]:
    """The stages that sample, from the first to this one."""
    chain: list[str] = []
    while (planned := run.planned.get(name)) is not None:
        chain += [name] if planned.kind in ("align", "rlvr") else []
        name = planned.start
    return chain[::-1]


def _is_complete(run: Run, seed: int, name: str) -> bool:
    stage = run.stages.get((seed, name))
    return stage is not None and stage.is_complete


def rollouts_of(run: Run, stage: Stage) -> float | None:
    """Rollouts that a stage sampled, those included that dynamic sampling discards."""
    counts = [_of_step(run.recipe, row) for row in stage.metrics]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _of_step(recipe: Recipe, row: Row) -> float | None:
    generated = metric_value(row, "dapo/generated_prompts")
    if generated is None or recipe.rlvr is None:
        return metric_value(row, "rollout/count")
    return generated * recipe.rlvr.group_size


def rollouts_text(counts: Sequence[float | None]) -> str:
    """`8,768 rollouts`, or from the fewest to the most of several policies; empty where that of one is not known."""
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return ""
    ends = dict.fromkeys(f"{count:,.0f}" for count in (min(known), max(known)))
    return f"{' to '.join(ends)} rollouts"
