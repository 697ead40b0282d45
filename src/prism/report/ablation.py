"""Reads an ablation cell by cell: what each changes, how far it got, what its checkpoints score and by how much the
reference cell's are ahead of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from prism.config import CELLS, LISTING, PlannedStage, Recipe, load_recipe, plan_stages
from prism.errors import DataError
from prism.report.completeness import missing_parts
from prism.report.events import warnings_note
from prism.report.identity import algorithm_title, stage_title
from prism.report.results import (
    ACCURACIES,
    DESCRIPTIONS,
    MODES,
    ItemMeans,
    gain_over_seeds,
    item_means,
    mean_score,
    scores_of,
)
from prism.report.rundir import Run, read_object, read_run
from prism.report.statistics import Estimate, over_seeds

COLUMNS = (*ACCURACIES, *DESCRIPTIONS)
OVERALL = len(ACCURACIES) - 1
"""The place of accuracy over all sub-benchmarks among `COLUMNS`."""

Estimates = Mapping[str, tuple[Estimate | None, ...]]
"""mode → one estimate for each of `COLUMNS`"""


@dataclass(frozen=True, slots=True)
class Group:
    """Checkpoints that are compared across cells: those of one algorithm, the mean of several, or, with none,
    the policies that RLVR starts from."""

    algorithms: tuple[str, ...]

    @property
    def title(self) -> str:
        if not self.algorithms:
            return "Before RLVR"
        names = [algorithm_title(name) for name in self.algorithms]
        return names[0] if len(names) == 1 else f"Mean of {', '.join(names)}"

    @property
    def unevaluated(self) -> str:
        return "not all evaluated" if len(self.algorithms) > 1 else "not evaluated"


BEFORE_RLVR = Group(())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a cell has in a group. `gains` are the reference cell's checkpoint less this one, paired by seed and item:
    the same direction in words, tables and plots."""

    title: str
    scores: Estimates
    gains: Estimates

    @property
    def is_evaluated(self) -> bool:
        return any(score is not None for scores in self.scores.values() for score in scores)


@dataclass(frozen=True, slots=True)
class Cell:
    """`recipe` is None where the cell has not begun. `changes` are the settings that the reference has otherwise,
    None where one of the two has not begun. `missing` says what a cell that has begun lacks, `warning` what its games
    are warned of, empty where there is nothing."""

    name: str
    colour: str
    recipe: Recipe | None
    changes: Mapping[str, Any] | None
    missing: tuple[str, ...]
    warning: str
    checkpoints: Mapping[Group, Checkpoint]


@dataclass(frozen=True)
class Listing:
    """The cells in the order of `ablation.json`; a recipe is None where the cell has not begun."""

    directory: Path
    reference: str
    recipes: Mapping[str, Recipe | None]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The mean over the reference's algorithms, each algorithm of any cell, then what they start from."""
        reference = _algorithms(self.recipes[self.reference])
        everyone = dict.fromkeys(
            name for recipe in (self.recipes[self.reference], *self.recipes.values()) for name in _algorithms(recipe)
        )
        mean = [Group(reference)] if len(reference) > 1 else []
        return (*mean, *(Group((name,)) for name in everyone), BEFORE_RLVR)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({seed for recipe in self.recipes.values() if recipe for seed in recipe.seeds}))


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
    return Listing(directory, str(reference), recipes)


def _is_cell_name(name: object) -> bool:
    """Whether it names a directory below `cells`, and none elsewhere."""
    return isinstance(name, str) and Path(name).name == name and not name.startswith(".")


@dataclass(frozen=True, slots=True)
class _Answers:
    """How one checkpoint, or several on average, answered the items of one seed."""

    means: ItemMeans
    test_sha256: str | None


_AnswersBySeed = Mapping[int, _Answers]


def measured_cells(listing: Listing) -> Iterator[tuple[Cell, Run | None]]:
    """Each cell with the run it was measured from, None where it has not begun.

    Beside the reference only one cell's graded responses are held at a time: drop the run before the next.
    """
    base = listing.recipes[listing.reference]
    reference = None if base is None else read_run(listing.directory / CELLS / listing.reference)
    theirs = {} if reference is None else _answers(reference, listing.groups)
    for number, (name, recipe) in enumerate(listing.recipes.items()):
        colour = f"c-cell-{number % NUM_COLOURS + 1}"
        if recipe is None:
            yield Cell(name, colour, None, None, (), "", {}), None
            continue
        is_reference = name == listing.reference
        run = reference if is_reference and reference else read_run(listing.directory / CELLS / name)
        checkpoints = _checkpoints(run, listing.groups, {} if is_reference else theirs)
        changes = None if base is None else changed_settings(recipe, base)
        yield Cell(name, colour, recipe, changes, tuple(missing_parts(run)), warnings_note(run), checkpoints), run


NUM_COLOURS = 8
"""Classes `c-cell-1` … of the stylesheet; further cells begin again with the first."""


def changed_settings(recipe: Recipe, reference: Recipe) -> dict[str, Any]:
    """Settings by dotted name that `recipe` has and `reference` has not, or otherwise."""
    ours, theirs = (each.model_dump(mode="json", exclude={"name", "output"}) for each in (recipe, reference))
    return dict(_changes(ours, theirs, ""))


def _changes(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in ours.items():
        other = theirs.get(key)
        if key in theirs and value == other:
            continue
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _changes(value, other, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _checkpoints(
    run: Run, groups: Sequence[Group], reference: Mapping[tuple[Group, str], _AnswersBySeed]
) -> dict[Group, Checkpoint]:
    """Those that the run's recipe asks for, evaluated or not."""
    answers = _answers(run, groups)
    found = {}
    for group in groups:
        stages = stages_of(run.recipe, group)
        if stages is None:
            continue
        scores, gains = {}, {}
        for mode in MODES:
            scores[mode] = _scores(run, stages, answers[group, mode], mode)
            pairs = _pairs(reference.get((group, mode), {}), answers[group, mode])
            gains[mode] = tuple(gain_over_seeds(pairs, column) for column in COLUMNS)
        found[group] = Checkpoint(_title(run.recipe, stages), scores, gains)
    return found


def stages_of(recipe: Recipe, group: Group) -> tuple[PlannedStage, ...] | None:
    """The last stage of each algorithm of the group, or the one RLVR starts from; None unless the recipe has all.

    A matched-budget baseline inside a cell is not that cell's result.
    """
    policies = (stage for stage in plan_stages(recipe) if stage.kind not in ("warmup", "audit"))
    planned = {stage.name: stage for stage in policies if not stage.is_baseline}
    trained = {stage.algorithm.name: stage for stage in planned.values() if stage.algorithm is not None}
    if not group.algorithms:
        starts = [stage.start for stage in trained.values()] or [list(planned)[-1]]
        return (planned[starts[-1]],)
    if not all(name in trained for name in group.algorithms):
        return None
    return tuple(trained[name] for name in group.algorithms)


def _title(recipe: Recipe, stages: Sequence[PlannedStage]) -> str:
    """The checkpoint and its training steps since SFT, those of alignment first."""
    last = stages[-1]
    title = stage_title(last.name) if len(stages) == 1 else f"{stage_title(last.start)} → RLVR"
    is_aligned = "align" in (last.name, last.start)
    steps = [recipe.align.num_steps] if is_aligned and recipe.align else []
    steps += [last.num_steps] if last.kind == "rlvr" and last.num_steps is not None else []
    return f"{title}, {' + '.join(map(str, steps))} steps" if steps else title


def _answers(run: Run, groups: Sequence[Group]) -> dict[tuple[Group, str], _AnswersBySeed]:
    """For each group that the recipe has and each mode, the seeds that have all its stages evaluated."""
    stages = {group: found for group in groups if (found := stages_of(run.recipe, group)) is not None}
    names = {stage.name for found in stages.values() for stage in found}
    answers: dict[tuple[Group, str], _AnswersBySeed] = {}
    for mode in MODES:
        single = {
            (stage.seed, stage.name): _Answers(means, stage.test_sha256)
            for name in names
            for stage in run.over_seeds(name)
            if stage.summary is not None and (means := item_means(stage, mode))
        }
        for group, found in stages.items():
            by_seed = {seed: [single.get((seed, stage.name)) for stage in found] for seed in run.seeds}
            answers[group, mode] = {
                seed: _together([each for each in several if each is not None])
                for seed, several in by_seed.items()
                if None not in several
            }
    return answers


def _together(checkpoints: Sequence[_Answers]) -> _Answers:
    tests = {each.test_sha256 for each in checkpoints}
    return _Answers(averaged([each.means for each in checkpoints]), tests.pop() if len(tests) == 1 else None)


def averaged(checkpoints: Sequence[ItemMeans]) -> ItemMeans:
    """The mean of each item over the checkpoints that have a value for it."""
    if len(checkpoints) == 1:
        return checkpoints[0]
    values: dict[str, dict[str, dict[tuple[str, str], list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for means in checkpoints:
        for metric, benchmarks in means.items():
            for benchmark, items in benchmarks.items():
                for item, value in items.items():
                    values[metric][benchmark].setdefault(item, []).append(value)
    return {
        metric: {name: {item: fmean(found) for item, found in items.items()} for name, items in benchmarks.items()}
        for metric, benchmarks in values.items()
    }


def _scores(
    run: Run, stages: Sequence[PlannedStage], answers: _AnswersBySeed, mode: str
) -> tuple[Estimate | None, ...]:
    if len(stages) == 1:
        return tuple(over_seeds(scores_of(run.over_seeds(stages[0].name), column, mode)) for column in COLUMNS)
    found = [[mean_score(each.means, column) for each in answers.values()] for column in COLUMNS]
    return tuple(over_seeds([score for score in scores if score is not None]) for scores in found)


def _pairs(ours: _AnswersBySeed, theirs: _AnswersBySeed) -> list[tuple[ItemMeans, ItemMeans]]:
    """Seeds that both have, where both answered the same test set as far as is recorded."""
    pairs = []
    for seed, mine in ours.items():
        other = theirs.get(seed)
        if other is not None and (
            mine.test_sha256 == other.test_sha256 or None in (mine.test_sha256, other.test_sha256)
        ):
            pairs.append((mine.means, other.means))
    return pairs
