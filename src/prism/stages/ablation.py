"""Runs the cells of an ablation; stages that cells have in common are run once.

A cell is a run directory whose stages are links into a common store. A stage's place there follows from
everything that its results depend on, so cells that agree up to a stage share it, and each cell can be
read, resumed and reported like any run.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from prism.config import FAILURE, LISTING, Ablation, PlannedStage, Recipe, describe_plan, plan_stages
from prism.errors import (
    AlignmentCollapseError,
    AuditError,
    ConfigError,
    DataError,
    ModelError,
    NumericsError,
    StorageError,
)
from prism.models.device import free_memory
from prism.runtime.atomic import write_json, write_new
from prism.runtime.distributed import from_first, num_processes, processes
from prism.runtime.hashing import config_sha256
from prism.runtime.progress import say
from prism.stages.pipeline import run_recipe
from prism.stages.workspace import CONSOLE, Workspace

STORE = "store"
OWN_ERRORS = (ConfigError, DataError, ModelError, NumericsError, AlignmentCollapseError, AuditError)
"""What a cell's own settings can lead to; a full disk or a lost server would end the next cell as well."""


def run_ablation(ablation: Ablation) -> list[str]:
    """Runs or resumes the chosen cells, one after the other. `ablation.json` lists all of them for the report.

    A cell leaves out what the others have, and may fail for want of it: a seed of it that ends with an error of its own
    (`OWN_ERRORS`) keeps none of the others from running. The error is kept for the report; those of this call are
    returned, a line each. Under torchrun, where a process that fails ends the run, it is raised, and the same command
    begins with the other cells.
    """
    ablation.directory.mkdir(parents=True, exist_ok=True)
    # The recipes tell the report which cells are left over from another command.
    recipes = {name: recipe.model_dump(mode="json") for name, recipe in ablation.recipes.items()}
    listing = {"reference": ablation.reference, "cells": list(ablation.names), "recipes": recipes}
    write_json(ablation.directory / LISTING, listing)
    failures = []
    with processes():
        names = from_first(lambda: sorted(ablation.cells, key=lambda name: _has_failed(ablation.cells[name])))
        for number, name in enumerate(names, start=1):
            say(CONSOLE, f"cell {name} ({number} of {len(names)})")
            recipe = ablation.cells[name]
            from_first(partial(_link_seeds, ablation.directory, recipe))
            for seed in recipe.seeds:
                if (error := _run_seed(recipe, seed)) is not None:
                    failures.append(f"{name}, seed {seed}: {error}")
                    say(CONSOLE, f"{failures[-1]}; on to the next")
    return failures


def describe_ablation(ablation: Ablation) -> list[str]:
    """The plan of every cell, in which stages that an earlier cell has as well are no more than named."""
    first: dict[tuple[int, str, str], str] = {}
    """seed, stage and key → the first cell that has it"""
    lines = []
    for name, recipe in ablation.cells.items():
        keys = {seed: stage_keys(recipe, seed) for seed in recipe.seeds}
        shared = {}
        for stage in plan_stages(recipe):
            owners = {first.get((seed, stage.name, keys[seed][stage.name])) for seed in recipe.seeds}
            if (owner := owners.pop()) is not None and not owners:
                shared[stage.name] = owner
        lines += describe_plan(recipe, shared)
        for seed, found in keys.items():
            for stage, key in found.items():
                first.setdefault((seed, stage, key), name)
    return lines


def _run_seed(recipe: Recipe, seed: int) -> str | None:
    """The line of the error that one seed of a cell ended with, None where it came to its end."""
    path = _failure_path(recipe, seed)
    try:
        run_recipe(recipe, seeds=(seed,))
    except OWN_ERRORS as error:
        _keep_failure(path, str(error))
        if num_processes() > 1:
            raise
        line = str(error)
    else:
        line = None
        from_first(lambda: path.unlink(missing_ok=True))
    # What still holds the models and locks of a seed that failed would hold them beside the next.
    free_memory()
    return line


def _keep_failure(path: Path, line: str) -> None:
    """By whichever process failed, be it not the first one."""
    path.unlink(missing_ok=True)
    write_new(path, json.dumps({"error": line}).encode())


def _has_failed(recipe: Recipe) -> bool:
    return any(_failure_path(recipe, seed).exists() for seed in recipe.seeds)


def _failure_path(recipe: Recipe, seed: int) -> Path:
    return recipe.seed_directory(seed) / FAILURE


def _link_seeds(directory: Path, recipe: Recipe) -> None:
    for seed in recipe.seeds:
        link_stages(directory, recipe, seed)


def link_stages(directory: Path, recipe: Recipe, seed: int) -> None:
    """Makes the stages of one seed of a cell links into the store; raises StorageError where something else is."""
    store, cell = directory / STORE / f"seed-{seed}", recipe.seed_directory(seed)
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
    """For the data and every planned stage a hash of all that its results depend on, by the recipe alone.

    Whatever is part of a stage's identity must be part of its key: two cells would else write to one place by turns.
    """
    workspace = Workspace(recipe, seed, recipe.seed_directory(seed))
    keys = {"data": config_sha256({"data": recipe.data.model_dump(mode="json"), "seed": seed})}
    common = {"evaluation": _dumped(recipe.evaluation), "max_prompt_tokens": recipe.max_prompt_tokens}
    common["rollout"] = _dumped(recipe.rollout)
    for stage in plan_stages(recipe):
        settings = _settings(recipe, stage) | workspace.training_settings(stage.kind)
        own = {"stage": settings, "inputs": [keys[name] for name in ("data", *stage.inputs)]}
        if stage.kind == "base":
            # Its weights come of no data but the seed's; only the questions of its evaluation are among these.
            own["inputs"] = [_questions(recipe), seed]
        keys[stage.name] = config_sha256(common | own)
    return keys


def _questions(recipe: Recipe) -> dict[str, Any]:
    """The settings of the data that the test set, and the teacher that its answers are compared with, depend on."""
    fields = {"type", "test", "alignment", "image_root", "test_per_benchmark", "test_split"}
    return recipe.data.model_dump(mode="json", include=fields)


def _settings(recipe: Recipe, stage: PlannedStage) -> dict[str, Any]:
    parts: dict[str, Any] = {"kind": stage.kind, "start": stage.start, "num_steps": stage.num_steps}
    if stage.kind == "rlvr" and recipe.rlvr is not None:
        shared = recipe.rlvr.model_dump(mode="json", exclude={"algorithms", "baselines", "num_steps"})
        return parts | {"rlvr": shared, "algorithm": _dumped(stage.algorithm)}
    names = {
        "base": ("base",),
        "sft": ("sft",),
        "second_sft": ("second_sft",),
        "warmup": ("warmup", "discriminator"),
        "audit": ("audit", "warmup", "align", "discriminator"),
    }
    read = names.get(stage.kind, ("align", "discriminator"))
    dumped = {name: _dumped(getattr(recipe, name)) for name in read}
    if recipe.audit is not None and "audit" in dumped:
        dumped["audit"] = _dumped(recipe.audit.sampling)
    if stage.kind == "align" and recipe.audit is not None and recipe.audit.stop_on_flags:
        # The game is the same with audits and without, but for being stopped by them, or never begun.
        dumped["stopped_by"] = _dumped(recipe.audit)
    return parts | dumped


def _dumped(config: Any) -> Any:
    return None if config is None else config.model_dump(mode="json")
