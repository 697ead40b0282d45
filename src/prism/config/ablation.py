"""Ablations: one recipe in several variants, the paper's table by default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from prism.config.base import Config, PathSafeName
from prism.config.loading import build_config, load_recipe, read_table
from prism.config.merging import merge, parse_override
from prism.config.models import (
    DedicatedDiscriminator,
    DenseDiscriminator,
    TextOnlyDiscriminator,
    WholeResponseDiscriminator,
)
from prism.config.recipe import Recipe
from prism.errors import ConfigError

FULL = "full"


class AblationFile(Config):
    """`recipe` (relative to this file) in variants: each of `cells` is a list of `key=value` settings.

    `settings` hold for every cell. Differences are taken to the cell `reference`.
    """

    name: PathSafeName
    recipe: Path
    settings: tuple[str, ...] = ()
    reference: PathSafeName = FULL
    cells: Annotated[dict[PathSafeName, tuple[str, ...]], Field(min_length=1)]


@dataclass(frozen=True)
class Ablation:
    """The recipes of the chosen cells, in the order of all `names`; what they have in common is run once, below
    `directory`."""

    directory: Path
    reference: str
    names: Sequence[str]
    cells: Mapping[str, Recipe]


def load_ablation(
    path: Path | str, overrides: Sequence[str] = (), *, output: Path | None = None, chosen: Sequence[str] = ()
) -> Ablation:
    """The ablation described by `path`, or the paper's ablations of the run's recipe at `path`.

    `overrides` change the recipe of every cell, before the cell's own settings. Only the `chosen` cells are made, all
    of them where none is named. Raises ConfigError for a name that no cell has and whatever is wrong with a cell made.
    """
    path = Path(path)
    table = read_table(path)
    if "cells" in table:
        file = build_config(AblationFile, table, (), source=str(path))
        base, settings = path.parent / file.recipe, (*file.settings, *overrides)
        name, reference, cells = file.name, file.reference, dict(file.cells)
    else:
        base, settings = path, tuple(overrides)
        recipe = load_recipe(base, settings)
        name, reference, cells = f"{recipe.name}-ablations", FULL, paper_cells(recipe)
    if reference not in cells:
        raise ConfigError(f"{path}: reference: there is no cell {reference!r}; there are: {', '.join(cells)}")
    if unknown := sorted(set(chosen) - set(cells)):
        raise ConfigError(f"--cell: there is no cell {unknown[0]!r}; there are: {', '.join(cells)}")
    directory = output if output is not None else Path("runs") / name
    recipes = {}
    for cell, changes in cells.items():
        if chosen and cell not in chosen:
            continue
        cell_table = read_table(base)
        for override in (*settings, *changes):
            cell_table = merge(cell_table, parse_override(override))
        cell_table |= {"name": cell, "output": str(directory / "cells" / cell)}
        recipes[cell] = build_config(Recipe, cell_table, (), source=f"{path}, cell {cell}")
    return Ablation(directory, reference, tuple(cells), recipes)


_MODES = {
    "dense": DenseDiscriminator,
    "text-only": TextOnlyDiscriminator,
    "whole-response": WholeResponseDiscriminator,
    "dedicated": DedicatedDiscriminator,
}


def _in_mode(recipe: Recipe, mode: str) -> tuple[str, ...]:
    """The recipe's discriminator in another mode: another type starts afresh, so what both know is repeated."""
    known = recipe.discriminator.model_dump(mode="json", exclude={"type", "checkpoint"}, exclude_none=True)
    kept = {name: value for name, value in known.items() if name in _MODES[mode].model_fields}
    return (f"discriminator.type={mode}", *(f"discriminator.{name}={value}" for name, value in kept.items()))


def paper_cells(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The paper's ablations of a recipe with alignment and RLVR, and the modes and mixtures it leaves out.

    Without alignment RLVR gets as many steps more as alignment had (the same rollouts), and in a second
    control as many as before (the same RLVR updates).
    """
    if recipe.align is None or recipe.rlvr is None:
        raise ConfigError(f"recipe {recipe.name}: an ablation needs the stages align and rlvr")
    matched = recipe.rlvr.num_steps + recipe.align.num_steps
    without = ("align=none", "warmup=none", *(("audit=none",) if recipe.audit else ()))
    cells: dict[str, tuple[str, ...]] = {
        FULL: (),
        "no-alignment": (*without, f"rlvr.num_steps={matched}"),
        "no-alignment-same-updates": without,
        **{mode: _in_mode(recipe, mode) for mode in _MODES},
        **{f"alpha-{alpha}": (f"align.advantage.alpha={alpha}",) for alpha in ("0.0", "0.25", "0.75", "1.0")},
        "kl": ("align.kl.coefficient=0.01",),
    }
    if recipe.warmup is not None:
        cells["no-warmup"] = ("warmup=none",)
    if recipe.sft is not None:
        cells["no-sft"] = ("sft=none",)
    if recipe.data.type == "world":
        cells["small-sft"] = ("data.public=0",)
    return {name: (*changes, "rlvr.baselines=[]") for name, changes in cells.items()}
