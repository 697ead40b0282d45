"""What a recipe will do, stage by stage: read by the pipeline to do it and by `--dry-run` to print it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prism.config.data import WorldData
from prism.config.models import CheckpointBase, TinyBase
from prism.config.recipe import Recipe
from prism.config.rlvr import Dapo, Grpo, Gspo, RlvrConfig
from prism.config.training import SAMPLES_PER_PROMPT, SftConfig
from prism.errors import ConfigError

StageKind = Literal["base", "sft", "second_sft", "warmup", "audit", "align", "rlvr"]
SECOND_SFT = "second-sft"
IMITATED: Mapping[str, str] = {"sft": "sft", "second_sft": "alignment"}
"""kind of a stage of SFT, which is its table in the recipe → the data set whose demonstrations it imitates"""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage of one seed's pipeline; `name` is its directory in the run.

    `start` is the stage, or the directory, whose weights it goes on from. `inputs` are all the stages
    it reads, and come earlier in the plan. `num_steps` is None where it is known only once the data
    are read, and 0 where nothing is trained. `is_evaluated` says that its model answers the test set,
    `is_baseline` that it is RLVR without alignment for `matched_steps`.
    """

    name: str
    kind: StageKind
    start: str
    inputs: tuple[str, ...]
    num_steps: int | None
    is_evaluated: bool
    algorithm: Grpo | Dapo | Gspo | None = None
    is_baseline: bool = False


def plan_stages(recipe: Recipe) -> list[PlannedStage]:
    """The stages of `recipe` in the order they run; every seed runs all of them."""
    stages = [_plan_base(recipe)]
    policy = "base"
    if recipe.sft:
        stages.append(_plan_sft(recipe, "sft", recipe.sft, policy))
        policy = "sft"
    if recipe.second_sft:
        stages.append(_plan_sft(recipe, "second_sft", recipe.second_sft, policy))
        policy = SECOND_SFT
    discriminator_inputs, discriminator = _discriminator_source(recipe)
    if recipe.warmup:
        inputs = _distinct(*discriminator_inputs, policy)
        stages.append(PlannedStage("warmup", "warmup", discriminator, inputs, recipe.warmup.num_steps, False))
        discriminator_inputs = ("warmup",)
    if recipe.audit:
        stages.append(plan_audit(recipe))
    if recipe.align:
        inputs = _distinct(policy, *discriminator_inputs)
        stages.append(PlannedStage("align", "align", policy, inputs, recipe.align.num_steps, bool(recipe.evaluation)))
    if recipe.rlvr:
        stages += _plan_rlvr(recipe, recipe.rlvr, policy)
    return stages


def matched_steps(recipe: Recipe) -> int:
    """The fewest steps of RLVR that sample as many rollouts as warm-up, alignment and RLVR of `recipe` together.

    Prompts that DAPO's dynamic sampling discards are left out on both sides: how many there are, only the run knows.
    Of files it is assumed that they hold as many prompts as the warm-up takes.
    """
    rlvr, align = recipe.rlvr, recipe.align
    assert rlvr is not None
    spent = align.num_steps * align.prompts_per_step * align.group_size if align else 0
    spent += warmup_rollouts(recipe)
    return rlvr.num_steps + math.ceil(spent / (rlvr.prompts_per_step * rlvr.group_size))


def warmup_rollouts(recipe: Recipe) -> int:
    """As many as the warm-up asks for, of the built-in world no more than it has prompts."""
    if recipe.warmup is None:
        return 0
    num_prompts = recipe.warmup.num_prompts
    if isinstance(recipe.data, WorldData):
        num_prompts = min(num_prompts, recipe.data.alignment)
    return num_prompts * SAMPLES_PER_PROMPT


def select_stages(recipe: Recipe, name: str) -> list[PlannedStage]:
    """The planned stages called `name`, or all those of the kind `name`; ConfigError if there is none."""
    planned = plan_stages(recipe)
    selected = [stage for stage in planned if stage.name == name] or [stage for stage in planned if stage.kind == name]
    if not selected:
        raise ConfigError(f"recipe {recipe.name} has no stage {name!r}; it has: {', '.join(s.name for s in planned)}")
    return selected


def _plan_sft(recipe: Recipe, kind: Literal["sft", "second_sft"], config: SftConfig, policy: str) -> PlannedStage:
    """Its steps are None when it lasts some epochs over files that have not been counted."""
    num_steps = config.num_steps
    if config.num_epochs is not None and isinstance(recipe.data, WorldData):
        size = recipe.data.num_demonstrations if kind == "sft" else recipe.data.alignment
        num_steps = math.ceil(config.num_epochs * size / config.batch_size)
    name = SECOND_SFT if kind == "second_sft" else kind
    return PlannedStage(name, kind, policy, (policy,), num_steps, bool(recipe.evaluation))


def _plan_base(recipe: Recipe) -> PlannedStage:
    match recipe.base:
        case CheckpointBase(path=path):
            start, num_steps = str(path), 0
        case TinyBase(source="shipped"):
            start, num_steps = "shipped tiny base", 0
        case TinyBase(source="kept", path=path):
            start, num_steps = f"tiny base in {path}", 0
        case TinyBase(pretrain=pretrain):
            start, num_steps = "random weights", pretrain.num_steps
    return PlannedStage("base", "base", start, (), num_steps, bool(recipe.evaluation))


def policy_before_alignment(recipe: Recipe) -> str:
    """The stage whose policy alignment starts from, and the warm-up samples from."""
    if recipe.second_sft:
        return SECOND_SFT
    return "sft" if recipe.sft else "base"


def plan_audit(recipe: Recipe) -> PlannedStage:
    """The audit before the game, of the policy and, where the recipe has one, the warm-up's discriminator."""
    policy = policy_before_alignment(recipe)
    return PlannedStage("audit", "audit", policy, (policy, "warmup") if recipe.warmup else (policy,), 0, False)


def _discriminator_source(recipe: Recipe) -> tuple[tuple[str, ...], str]:
    """The stages an untrained discriminator is made from, and what to call its origin."""
    outside = recipe.discriminator.checkpoint or recipe.discriminator.dense
    if outside is not None:
        return (), str(outside)
    return ("base",), "base"


def _plan_rlvr(recipe: Recipe, config: RlvrConfig, policy: str) -> list[PlannedStage]:
    """Matched-budget baselines first, then every algorithm from the aligned policy (or, without one, from `policy`)."""
    is_evaluated = bool(recipe.evaluation)
    planned = []
    if recipe.align:
        num_steps = matched_steps(recipe)
        for algorithm in config.baseline_algorithms:
            name = f"{policy}-{algorithm.name}"
            planned.append(
                PlannedStage(name, "rlvr", policy, (policy,), num_steps, is_evaluated, algorithm, is_baseline=True)
            )
    start, prefix = ("align", "prism") if recipe.align else (policy, policy)
    for algorithm in config.algorithms:
        name = f"{prefix}-{algorithm.name}"
        planned.append(PlannedStage(name, "rlvr", start, (start,), config.num_steps, is_evaluated, algorithm))
    return planned


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def describe_plan(recipe: Recipe, shared: Mapping[str, str] | None = None) -> list[str]:
    """The plan as lines to print: one per stage, beneath a heading. `shared` are stages that another plan, printed
    before, has as well: each with that one's name."""
    seeds = ", ".join(map(str, recipe.seeds))
    label = "seed" if len(recipe.seeds) == 1 else "each of the seeds"
    stages, shared = plan_stages(recipe), shared or {}
    width = max(len(stage.name) for stage in stages)
    heading = f"plan for {recipe.run_directory}, once for {label} {seeds}:"
    works = {
        stage.name: f"run once, with {shared[stage.name]}" if stage.name in shared else _describe_stage(stage)
        for stage in stages
    }
    return [heading, *(f"  {name:<{width}}  {work}" for name, work in works.items())]


def _describe_stage(stage: PlannedStage) -> str:
    if stage.num_steps == 0:
        work = stage.start
    elif stage.num_steps is None:
        work = f"from {stage.start}, as many steps as the data have"
    else:
        work = f"{stage.num_steps} steps from {stage.start}"
    notes = ["matched budget, no alignment"] if stage.is_baseline else []
    notes += ["evaluated"] if stage.is_evaluated else []
    return f"{work} ({'; '.join(notes)})" if notes else work
