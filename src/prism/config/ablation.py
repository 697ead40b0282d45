"""Ablations: one recipe in several variants, the paper's table by default."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from prism.config.base import Config, PathSafeName
from prism.config.data import FilesData, WorldData
from prism.config.loading import build_config, load_recipe, read_table
from prism.config.merging import Table, merge, parse_override
from prism.config.models import (
    DedicatedDiscriminator,
    DenseDiscriminator,
    ExpertSettings,
    MoeDiscriminator,
    TextOnlyDiscriminator,
    WholeResponseDiscriminator,
)
from prism.config.plan import matched_steps
from prism.config.recipe import Recipe
from prism.config.training import BranchAdvantage, MixedAdvantage, SftConfig
from prism.errors import ConfigError

FULL = "full"
LISTING, CELLS = "ablation.json", "cells"
"""What marks the directory of an ablation: its list of cells, and the directory of their runs."""
FAILURE = "failure.json"
"""In a seed's directory: the error that this seed of a cell ended with."""


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
    """The recipes of the chosen `cells`, in the order of all `names`, and of all `recipes` that can be made; what they
    have in common is run once, below `directory`. Of the paper's ablations `omitted` are those that this recipe cannot
    have, and why, and `alike` those that ask for what it has."""

    directory: Path
    reference: str
    names: Sequence[str]
    cells: Mapping[str, Recipe]
    recipes: Mapping[str, Recipe]
    omitted: Mapping[str, str] = field(default_factory=dict)
    alike: frozenset[str] = frozenset()


def load_ablation(
    path: Path | str, overrides: Sequence[str] = (), *, output: Path | None = None, chosen: Sequence[str] = ()
) -> Ablation:
    """The ablation described by `path`, or the paper's ablations of the run's recipe at `path`.

    `overrides` change the recipe of every cell, before the cell's own settings. Of the cells that `path` describes only
    the `chosen` ones are made, all of them where none is named. Raises ConfigError for a name that no cell has and
    whatever is wrong with a cell made; the paper's cells are left out where the recipe does not admit them.
    """
    path = Path(path)
    table = read_table(path)
    _refuse_output(overrides, "override")
    ablation = _described(path, table, overrides, output, chosen) if "cells" in table else None
    ablation = ablation or _papers(path, overrides, output)
    for name in chosen:
        if name in ablation.omitted:
            raise ConfigError(f"--cell {name}: {ablation.omitted[name]}")
        if name in ablation.alike:
            raise ConfigError(f"--cell {name}: the recipe is that already: its cell is {ablation.reference!r}")
        if name not in ablation.names:
            raise ConfigError(f"--cell: there is no cell {name!r}; there are: {', '.join(ablation.names)}")
    cells = {name: recipe for name, recipe in ablation.recipes.items() if name in chosen or not chosen}
    return replace(ablation, cells=cells)


def _refuse_output(settings: Sequence[str], source: str) -> None:
    """A cell's place follows from the ablation's: to name another would do nothing."""
    for setting in settings:
        if "output" in parse_override(setting):
            reason = "every cell has a directory of its own below the ablation's, which --output names"
            raise ConfigError(f"{source} {setting!r}: {reason}")


def _described(
    path: Path, table: Table, overrides: Sequence[str], output: Path | None, chosen: Sequence[str]
) -> Ablation:
    file = build_config(AblationFile, table, (), source=str(path))
    if file.reference not in file.cells:
        names = ", ".join(file.cells)
        raise ConfigError(f"{path}: reference: there is no cell {file.reference!r}; there are: {names}")
    directory = output if output is not None else Path("runs") / file.name
    base = read_table(path.parent / file.recipe)
    _refuse_output(file.settings, f"{path}: settings:")
    recipes = {}
    for name, changes in file.cells.items():
        _refuse_output(changes, f"{path}, cell {name}:")
        try:
            recipes[name] = _cell(base, name, (*file.settings, *overrides, *changes), directory, source=path)
        except ConfigError:
            if name in chosen or not chosen:
                raise
    return Ablation(directory, file.reference, tuple(file.cells), recipes, recipes)


def _papers(path: Path, overrides: Sequence[str], output: Path | None) -> Ablation:
    recipe = load_recipe(path, overrides)
    directory = output if output is not None else Path("runs") / f"{recipe.name}-ablations"
    table, cells, alike, omitted = read_table(path), {}, set(), _without_meaning(recipe, source=path)
    for name, changes in paper_cells(recipe).items():
        if name in omitted:
            continue
        try:
            cell = _cell(table, name, (*overrides, *changes), directory, source=path)
        except ConfigError as error:
            if name == FULL:
                raise
            omitted[name] = str(error)
            continue
        # What the recipe has already, another discriminator or α for instance, is the reference.
        if name == FULL or not _are_alike(cell, cells[FULL]):
            cells[name] = cell
        else:
            alike.add(name)
    return Ablation(directory, FULL, tuple(cells), cells, cells, omitted, frozenset(alike))


def _cell(base: Table, name: str, changes: Sequence[str], directory: Path, *, source: Path) -> Recipe:
    table = base
    for change in changes:
        table = merge(table, parse_override(change))
    table = table | {"name": name, "output": str(directory / CELLS / name)}
    return build_config(Recipe, table, (), source=f"{source}, cell {name}")


def _are_alike(first: Recipe, second: Recipe) -> bool:
    """Whether both ask for the same, but for name and place."""
    one, other = (each.model_dump(exclude={"name", "output"}) for each in (first, second))
    return one == other


_MODES = {
    "moe": MoeDiscriminator,
    "dense": DenseDiscriminator,
    "text-only": TextOnlyDiscriminator,
    "whole-response": WholeResponseDiscriminator,
    "dedicated": DedicatedDiscriminator,
}


def _without_meaning(recipe: Recipe, *, source: Path) -> dict[str, str]:
    """Cells that would run and compare nothing, each with the reason."""
    found, discriminator = {}, recipe.discriminator
    if discriminator.checkpoint is not None:
        others = [mode for mode in _MODES if mode != discriminator.type]
        reason = (
            "discriminator.checkpoint is trained in a mode of its own: give discriminator.dense and a [warmup] instead"
        )
        found |= dict.fromkeys(others, reason)
    if discriminator.type == "whole-response":
        reason = "with one score for the whole response there is nothing that α could weigh"
        found |= dict.fromkeys(_ALPHAS, reason)
    return {name: f"{source}, cell {name}: {reason}" for name, reason in found.items()}


_ALPHAS = {f"alpha-{share}": share for share in ("0.0", "0.25", "0.5", "0.75", "1.0")}


def _in_mode(recipe: Recipe, mode: str) -> tuple[str, ...]:
    """The recipe's discriminator in another mode, with the same active compute: another type starts afresh, so what
    both know is repeated."""
    discriminator = recipe.discriminator
    known = discriminator.model_dump(mode="json", exclude={"type", "checkpoint"}, exclude_none=True)
    kept = {name: value for name, value in known.items() if name in _MODES[mode].model_fields}
    if mode == "dense" and isinstance(discriminator, ExpertSettings):
        kept["width"] = discriminator.top_k
    elif mode != "dense" and isinstance(discriminator, DenseDiscriminator):
        kept["top_k"] = discriminator.width
    return (f"discriminator.type={mode}", *(f"discriminator.{name}={value}" for name, value in kept.items()))


def paper_cells(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The settings of the paper's ablations of a recipe with alignment and RLVR, and of the modes and mixtures it
    leaves out. Some may ask for what the recipe has, or cannot have.

    Without alignment RLVR gets as many rollouts as warm-up, alignment and RLVR together, and in a second control as
    many steps as before (the same RLVR updates). In a third one it has as many rollouts again, behind an epoch of SFT
    on the demonstrations that alignment would have: it tells the game's worth from that of its data.
    """
    if recipe.align is None or recipe.rlvr is None:
        raise ConfigError(f"recipe {recipe.name}: an ablation needs the stages align and rlvr")
    without = ("align=none", "warmup=none", *(("audit=none",) if recipe.audit else ()))
    budget = (*without, f"rlvr.num_steps={matched_steps(recipe)}")
    advantage = recipe.align.advantage
    alpha = (
        "align.advantage.alpha"
        if isinstance(advantage, BranchAdvantage | MixedAdvantage)
        else "align.advantage.base.alpha"
    )
    cells: dict[str, tuple[str, ...]] = {
        FULL: (),
        "no-alignment": budget,
        "no-alignment-same-updates": without,
        **({"second-sft": (*budget, *_an_epoch_of(recipe.sft))} if recipe.sft and not recipe.second_sft else {}),
        **{mode: _in_mode(recipe, mode) for mode in _MODES},
        **{name: (f"{alpha}={share}",) for name, share in _ALPHAS.items()},
        "kl": ("align.kl.coefficient=0.01",),
        "no-warmup": ("warmup=none",),
        "no-sft": ("sft=none",),
    }
    if recipe.sft and (small := _small_sft(recipe.data)):
        cells["small-sft"] = (small,)
    return {name: (*changes, "rlvr.baselines=[]") for name, changes in cells.items()}


def _an_epoch_of(sft: SftConfig) -> tuple[str, ...]:
    """A second SFT by the settings of the first."""
    settings = sft.model_copy(update={"num_steps": None, "num_epochs": 1.0})
    known = settings.model_dump(mode="json", exclude_none=True)
    return tuple(f"second_sft.{name}={json.dumps(value)}" for name, value in known.items())


def _small_sft(data: WorldData | FilesData) -> str | None:
    """SFT on the curated demonstrations alone: of files, those in the last of several."""
    if isinstance(data, WorldData):
        return "data.public=0"
    return f"data.sft={json.dumps([str(data.sft[-1])])}" if len(data.sft) > 1 else None
