"""Reads an ablation cell by cell: what each changes, how far it got, what its checkpoints score and by how much the
reference cell's are ahead of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prism.config import CELLS, LISTING, Recipe, build_config, load_recipe
from prism.errors import DataError
from prism.report.ablation_checkpoints import BEFORE_RLVR, Checkpoint, Group, answers_of, checkpoints_of
from prism.report.completeness import left_over_parts, missing_parts
from prism.report.events import warnings_note
from prism.report.identity import seeds_title
from prism.report.rundir import Run, read_object, read_run
from prism.report.settings import changes, settings_text


@dataclass(frozen=True, slots=True)
class Cell:
    """`recipe` is None where the cell has not begun. `changes` are the settings that the reference has otherwise,
    None where one of the two has not begun. `missing` says what a cell that has begun lacks, `differing` what keeps it
    from being compared with the others, `left_over` what it has besides, `warning` what its games are warned of, empty
    where there is nothing. `versions` are those of the code that each of its `seeds` ran, in the order of stages."""

    name: str
    colour: str
    recipe: Recipe | None
    changes: Mapping[str, Any] | None
    missing: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    warning: str = ""
    seeds: tuple[int, ...] = ()
    versions: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    checkpoints: Mapping[Group, Checkpoint] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The cells in the order of `ablation.json`; a recipe is None where the cell has not begun. `asked` are the recipes
    that the newest command has for them, as far as it told."""

    directory: Path
    reference: str
    recipes: Mapping[str, Recipe | None]
    asked: Mapping[str, Recipe] = field(default_factory=dict)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The mean over the reference's algorithms, each algorithm of any cell, then what they start from."""
        reference = _algorithms(self.recipes[self.reference])
        everyone = dict.fromkeys(
            name for recipe in (self.recipes[self.reference], *self.recipes.values()) for name in _algorithms(recipe)
        )
        mean = [Group(reference)] if len(reference) > 1 else []
        return (*mean, *(Group((name,)) for name in everyone), BEFORE_RLVR)


def _algorithms(recipe: Recipe | None) -> tuple[str, ...]:
    return () if recipe is None or recipe.rlvr is None else tuple(a.name for a in recipe.rlvr.algorithms)


def read_listing(directory: Path) -> Listing:
    """Raises DataError where the directory is none that `prism ablate` wrote."""
    path = directory / LISTING
    table = read_object(path)
    if table is None:
        raise DataError(f"{directory}: holds no {LISTING}; give the directory that `prism ablate` wrote")
    reference, names = table.get("reference"), table.get("cells")
    if not isinstance(names, list) or not all(map(_is_cell_name, names)) or reference not in names:
        raise DataError(f"{path}: expected names of cells and one of them as reference; run `prism ablate` again")
    files = {name: directory / CELLS / name / "recipe.json" for name in names}
    recipes = {name: load_recipe(file) if file.is_file() else None for name, file in files.items()}
    listed = (table.get("recipes") or {}).items()
    asked = {name: build_config(Recipe, recipe, (), source=f"{path}, cell {name}") for name, recipe in listed}
    return Listing(directory, str(reference), recipes, asked)


def _is_cell_name(name: object) -> bool:
    """Whether it names a directory below `cells`, and none elsewhere."""
    return isinstance(name, str) and Path(name).name == name and not name.startswith(".")


NUM_COLOURS = 8
"""Classes `c-cell-1` … of the stylesheet; further cells begin again with the first."""


def measured_cells(listing: Listing) -> Iterator[tuple[Cell, Run | None]]:
    """Each cell with the run it was measured from, None where it has not begun.

    Beside the reference only one cell's graded responses are held at a time: drop the run before the next.
    """
    base = listing.recipes[listing.reference]
    reference = None if base is None else read_run(listing.directory / CELLS / listing.reference)
    theirs = {} if reference is None else answers_of(reference, listing.groups)
    for number, (name, recipe) in enumerate(listing.recipes.items()):
        colour = f"c-cell-{number % NUM_COLOURS + 1}"
        if recipe is None:
            yield Cell(name, colour, None, None), None
            continue
        is_reference = name == listing.reference
        run = reference if is_reference and reference else read_run(listing.directory / CELLS / name)
        answers = theirs if is_reference else answers_of(run, listing.groups)
        cell = Cell(
            name=name,
            colour=colour,
            recipe=recipe,
            changes=None if base is None else changed_settings(recipe, base),
            missing=tuple(missing_parts(run)),
            differing=tuple(_differing(listing, name, run, None if is_reference else reference)),
            left_over=tuple(left_over_parts(run)),
            warning=warnings_note(run),
            seeds=run.seeds,
            versions={seed: versions for seed in run.seeds if (versions := run.code_versions(seed))},
            checkpoints=checkpoints_of(run, listing.groups, answers, {} if is_reference else theirs),
        )
        yield cell, run


_OF_CELLS_ALONE = frozenset({"name", "output", "seeds"})
_OF_SPEED_ALONE = frozenset({"threads", "attention", "activation_checkpointing", "fsdp_size", "plan"})


def changed_settings(recipe: Recipe, reference: Recipe) -> dict[str, Any]:
    """Settings by dotted name that `recipe` has and `reference` has not, or otherwise; the seeds, which may be run by
    and by, are none."""
    ours, theirs = (each.model_dump(mode="json", exclude=set(_OF_CELLS_ALONE)) for each in (recipe, reference))
    return changes(ours, theirs)


def _differing(listing: Listing, name: str, run: Run, reference: Run | None) -> Iterator[str]:
    """Why a cell may not be comparable: left over from another recipe than the newest command's, or of other code than
    the reference."""
    asked = listing.asked.get(name)
    if asked is not None:
        changed = changed_settings(run.recipe, asked)
        of_results = {key: value for key, value in changed.items() if not _is_of_speed_alone(key)}
        if of_results:
            yield f"Of another recipe than the newest command's, with {settings_text(of_results)}"
    told: dict[str, list[int]] = {}
    for seed in run.seeds:
        ours, theirs = run.code_versions(seed), () if reference is None else reference.code_versions(seed)
        if ours and theirs and set(ours) != set(theirs):
            text = f"Of other code than {listing.reference}, {versions_text(ours)} and not {versions_text(theirs)}"
            told.setdefault(text, []).append(seed)
        elif len(ours) > 1 and reference is None:
            told.setdefault(f"Of code of several versions, {versions_text(ours)}", []).append(seed)
    yield from (f"{text}, {seeds_title(seeds)}" for text, seeds in told.items())


def _is_of_speed_alone(key: str) -> bool:
    return key.partition(".")[0] in _OF_SPEED_ALONE or key.endswith(".checkpoint_every")


def versions_text(versions: tuple[str, ...]) -> str:
    """A version is the hash of a package's source, told by its beginning."""
    return " and ".join(version[:7] if len(version) == 64 else version for version in versions)
