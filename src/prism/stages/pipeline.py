"""A whole recipe: every stage of every seed, in order, each run once."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prism.config import PlannedStage, Recipe, VllmRollout, plan_stages, select_stages
from prism.errors import ConfigError
from prism.models.adapters import require_peft
from prism.models.device import free_memory, own_device
from prism.models.sharding import check_fsdp_size
from prism.rollout.vllm_engine import require_vllm
from prism.runtime.atomic import write_json
from prism.runtime.distributed import num_processes, processes
from prism.runtime.progress import say
from prism.runtime.threads import choose_threads
from prism.stages import align, audit, base, datasets, evaluation, rlvr, sft, warmup
from prism.stages.discriminators import check_source
from prism.stages.workspace import CONSOLE, TRAINING, Workspace

_STAGES: dict[str, Callable[[Workspace, PlannedStage], None]] = {
    "base": base.run,
    "sft": sft.run,
    "second_sft": sft.run,
    "warmup": warmup.run,
    "audit": audit.run,
    "align": align.run,
    "rlvr": rlvr.run,
}
_SAMPLING = ("warmup", "audit", "align", "rlvr")
_PLAYING = ("warmup", "audit", "align")
TINY_PARAMETERS = 2_000_000


def run_recipe(
    recipe: Recipe, *, only: str | None = None, stop_after: str | None = None, seeds: Sequence[int] | None = None
) -> Path:
    """Runs `recipe` and evaluates its checkpoints; returns the run directory.

    A stage that is complete and unchanged is not run again, one that was cut off goes on. `only` is
    the name or kind of stages to run alone ("eval" for the evaluations), `stop_after` that of the
    last stages to run, `seeds` some of the recipe's.
    """
    _choose_threads(recipe)
    planned = plan_stages(recipe)
    if stop_after is not None:
        last = select_stages(recipe, stop_after)[-1]
        planned = planned[: planned.index(last) + 1]
    selected = planned if only in (None, "eval") else select_stages(recipe, only or "")
    evaluates = only in (None, "eval")
    _check_requirements(recipe, selected, evaluates=evaluates)
    directory = recipe.run_directory
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "recipe.json", recipe.model_dump(mode="json"))
    with processes(also_alone=recipe.precision == "bfloat16"):
        check_fsdp_size(recipe.fsdp_size, num_processes())
        for seed in recipe.seeds if seeds is None else seeds:
            workspace = Workspace(recipe, seed, recipe.seed_directory(seed))
            datasets.prepare(workspace)
            for stage in selected:
                if only != "eval":
                    _STAGES[stage.kind](workspace, stage)
                    free_memory()
                if stage.is_evaluated and evaluates:
                    evaluation.run(workspace, stage)
                    free_memory()
    return directory


def _check_requirements(recipe: Recipe, selected: Sequence[PlannedStage], *, evaluates: bool) -> None:
    """Raises ConfigError for what a later stage would find missing or cannot do: now, before the first has run."""
    if isinstance(recipe.rollout, VllmRollout) and any(
        stage.kind in _SAMPLING or (stage.is_evaluated and evaluates) for stage in selected
    ):
        require_vllm()
    if recipe.attention == "flex" and own_device().type == "cpu":
        raise ConfigError("attention: flex attention has no backward pass on the CPU; leave it out, or find a GPU")
    if any(stage.kind in _PLAYING for stage in selected):
        check_source(recipe)
    if recipe.lora is not None and any(stage.kind in TRAINING for stage in selected):
        require_peft()


def audit_recipe(recipe: Recipe) -> list[Path]:
    """Audits every seed of a run as far as it has come; the paths of what was found, an audit.json for each.

    Raises CheckpointError where the run lacks its data or the policy that alignment starts from.
    """
    _choose_threads(recipe)
    with processes(also_alone=recipe.precision == "bfloat16"):
        check_fsdp_size(recipe.fsdp_size, num_processes())
        return [audit.run_newest(Workspace(recipe, seed, recipe.seed_directory(seed))) for seed in recipe.seeds]


def _choose_threads(recipe: Recipe) -> None:
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)
        say(CONSOLE, f"{recipe.threads} threads, as the recipe says")
        return
    choice = choose_threads(TINY_PARAMETERS if recipe.base.type == "tiny" else 0)
    say(CONSOLE, f"{choice.num_threads} threads: {choice.reason}")
