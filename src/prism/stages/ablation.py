"""Runs the cells of an ablation; stages that cells have in common are run once.

A cell is a run directory whose stages are links into a common store. A stage's place there follows from
everything that its results depend on, so cells that agree up to a stage share it, and each cell can be
read, resumed and reported like any run.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

from prism.config import Ablation, PlannedStage, Recipe, plan_stages
from prism.errors import StorageError
from prism.runtime.atomic import write_json
from prism.runtime.distributed import from_first, processes
from prism.runtime.hashing import config_sha256
from prism.runtime.progress import say
from prism.stages.pipeline import run_recipe
from prism.stages.workspace import CONSOLE, TRAINING

STORE, LISTING = "store", "ablation.json"


def run_ablation(ablation: Ablation) -> None:
    """Runs or resumes the chosen cells, one after the other. `ablation.json` lists all of them for the report."""
    ablation.directory.mkdir(parents=True, exist_ok=True)
    listing = {"reference": ablation.reference, "cells": list(ablation.names)}
    write_json(ablation.directory / LISTING, listing)
    with processes():
        for number, (name, recipe) in enumerate(ablation.cells.items(), start=1):
            say(CONSOLE, f"cell {name} ({number} of {len(ablation.cells)})")
            from_first(partial(_link_seeds, ablation.directory, recipe))
            run_recipe(recipe)


def _link_seeds(directory: Path, recipe: Recipe) -> None:
    for seed in recipe.seeds:
        link_stages(directory, recipe, seed)


def link_stages(directory: Path, recipe: Recipe, seed: int) -> None:
    """Makes the stages of one seed of a cell links into the store; raises StorageError where something else is."""
    store, cell = directory / STORE / f"seed-{seed}", recipe.run_directory / f"seed-{seed}"
    cell.mkdir(parents=True, exist_ok=True)
    for name, key in (*stage_keys(recipe, seed).items(), ("images", "")):
        target, link = store / (f"{name}-{key[:12]}" if key else name), cell / name
        target.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            if link.resolve() == target.resolve():
                continue
            link.unlink()  # the cell's settings changed: the old stage stays in the store
        elif link.exists():
            raise StorageError(f"{link} is no link into {store}: name another directory for the ablation")
        link.symlink_to(os.path.relpath(target, cell), target_is_directory=True)


def stage_keys(recipe: Recipe, seed: int) -> dict[str, str]:
    """For the data and every planned stage a hash of all that its results depend on, by the recipe alone."""
    keys = {"data": config_sha256({"data": recipe.data.model_dump(mode="json"), "seed": seed})}
    common = {"evaluation": _dumped(recipe.evaluation), "max_prompt_tokens": recipe.max_prompt_tokens}
    common["rollout"] = recipe.rollout.model_dump(mode="json", exclude={"type"})
    for stage in plan_stages(recipe):
        own = {"stage": _settings(recipe, stage), "inputs": [keys[name] for name in ("data", *stage.inputs)]}
        keys[stage.name] = config_sha256(common | own)
    return keys


def _settings(recipe: Recipe, stage: PlannedStage) -> dict[str, Any]:
    parts: dict[str, Any] = {"kind": stage.kind, "start": stage.start, "num_steps": stage.num_steps}
    parts |= {"lora": _dumped(recipe.lora)} if recipe.lora and stage.kind in TRAINING else {}
    if stage.kind == "rlvr" and recipe.rlvr is not None:
        shared = recipe.rlvr.model_dump(mode="json", exclude={"algorithms", "baselines", "num_steps"})
        return parts | {"rlvr": shared, "algorithm": _dumped(stage.algorithm)}
    names = {
        "base": ("base",),
        "sft": ("sft",),
        "warmup": ("warmup", "discriminator"),
        "audit": ("audit", "warmup", "align", "discriminator"),
    }
    read = names.get(stage.kind, ("align", "discriminator"))
    return parts | {name: _dumped(getattr(recipe, name)) for name in read}


def _dumped(config: Any) -> Any:
    return None if config is None else config.model_dump(mode="json")
