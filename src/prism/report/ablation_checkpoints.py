"""The checkpoints that are compared across the cells of an ablation: what they score, and by how much those of the
reference are ahead."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from prism.config import PlannedStage, Recipe, plan_stages
from prism.report.budgets import rollouts_since_sft, rollouts_text
from prism.report.identity import algorithm_title, stage_title
from prism.report.results import (
    ACCURACIES,
    DESCRIPTIONS,
    FORMAT,
    MODES,
    Column,
    ItemMeans,
    gain_over_seeds,
    item_means,
    mean_score,
    scores_of,
)
from prism.report.rundir import Run
from prism.report.statistics import Estimate, over_seeds

COLUMNS = (*ACCURACIES, *DESCRIPTIONS, FORMAT)
OVERALL, ITEMS_RIGHT = COLUMNS.index(ACCURACIES[-1]), COLUMNS.index(DESCRIPTIONS[-1])
"""The places of accuracy over all sub-benchmarks, and of described items that are right, among `COLUMNS`."""

Estimates = Mapping[str, tuple[Estimate | None, ...]]
"""mode → one estimate for each of `COLUMNS`"""
SeedScores = Mapping[str, tuple[Mapping[int, Estimate], ...]]
"""mode → for each of `COLUMNS` the estimate of every seed that has one"""


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
        return "not all evaluated on one test set" if len(self.algorithms) > 1 else "not evaluated"


BEFORE_RLVR = Group(())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a cell has in a group. `gains` are the reference cell's checkpoint less this one, paired by seed and item:
    the same direction in words, tables and plots. `title` has its steps, and its rollouts where they are known."""

    title: str
    seed_scores: SeedScores
    gains: Estimates

    @property
    def scores(self) -> Estimates:
        return {
            mode: tuple(over_seeds([*column.values()]) for column in found) for mode, found in self.seed_scores.items()
        }

    @property
    def is_evaluated(self) -> bool:
        return any(column for found in self.seed_scores.values() for column in found)


@dataclass(frozen=True, slots=True)
class _Answers:
    """How one checkpoint, or several on average, answered the items of one seed; `tests` are the hashes of the test
    sets that they are of, as far as recorded."""

    means: ItemMeans
    tests: frozenset[str]


AnswersBySeed = Mapping[int, _Answers]
Answers = Mapping[tuple[Group, str], AnswersBySeed]
"""(group, mode) → what each seed that has all of the group answered"""


def checkpoints_of(run: Run, groups: Sequence[Group], answers: Answers, reference: Answers) -> dict[Group, Checkpoint]:
    """Those that the run's recipe asks for, evaluated or not. `answers` are its own."""
    found = {}
    for group in groups:
        stages = stages_of(run.recipe, group)
        if stages is None:
            continue
        scores, gains = {}, {}
        for mode in MODES:
            own = answers[group, mode]
            scores[mode] = tuple(_seed_scores(run, stages, own, column, mode) for column in COLUMNS)
            pairs = _pairs(reference.get((group, mode), {}), own)
            gains[mode] = tuple(gain_over_seeds(pairs, column) for column in COLUMNS)
        found[group] = Checkpoint(_title(run, stages), scores, gains)
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


def _title(run: Run, stages: Sequence[PlannedStage]) -> str:
    """The checkpoint, its training steps since SFT, those of alignment first, and its rollouts."""
    last, align = stages[-1], run.recipe.align
    title = stage_title(last.name) if len(stages) == 1 else f"{stage_title(last.start)} → RLVR"
    steps = [align.num_steps] if align and "align" in (last.name, last.start) else []
    steps += [last.num_steps] if last.kind == "rlvr" and last.num_steps is not None else []
    budget = [f"{' + '.join(map(str, steps))} steps"] if steps else []
    budget += [rollouts_text([rollouts_since_sft(run, stage.name) for stage in stages])] if steps else []
    return ", ".join(part for part in (title, *budget) if part)


def answers_of(run: Run, groups: Sequence[Group]) -> dict[tuple[Group, str], AnswersBySeed]:
    """For each group that the recipe has and each mode, the seeds that have all its stages evaluated, on one test set:
    over several there is no mean of an item."""
    stages = {group: found for group in groups if (found := stages_of(run.recipe, group)) is not None}
    names = {stage.name for found in stages.values() for stage in found}
    answers: dict[tuple[Group, str], AnswersBySeed] = {}
    for mode in MODES:
        single = {
            (stage.seed, stage.name): _Answers(means, frozenset([stage.test_sha256] if stage.test_sha256 else []))
            for name in names
            for stage in run.over_seeds(name)
            if stage.summary is not None and (means := item_means(stage, mode))
        }
        for group, found in stages.items():
            by_seed = {seed: [single.get((seed, stage.name)) for stage in found] for seed in run.seeds}
            answers[group, mode] = {
                seed: together
                for seed, several in by_seed.items()
                if None not in several and (together := _together([each for each in several if each is not None]))
            }
    return answers


def _together(checkpoints: Sequence[_Answers]) -> _Answers | None:
    tests = _tests(checkpoints)
    return _Answers(averaged([each.means for each in checkpoints]), tests) if len(tests) < 2 else None


def _tests(checkpoints: Iterable[_Answers]) -> frozenset[str]:
    return frozenset(test for each in checkpoints for test in each.tests)


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


def _seed_scores(
    run: Run, stages: Sequence[PlannedStage], answers: AnswersBySeed, column: Column, mode: str
) -> dict[int, Estimate]:
    if len(stages) == 1:
        found = {stage.seed: scores_of([stage], column, mode) for stage in run.over_seeds(stages[0].name)}
        return {seed: scores[0] for seed, scores in found.items() if scores}
    means = {seed: mean_score(each.means, column) for seed, each in answers.items()}
    return {seed: score for seed, score in means.items() if score is not None}


def _pairs(ours: AnswersBySeed, theirs: AnswersBySeed) -> list[tuple[ItemMeans, ItemMeans]]:
    """Seeds that both have, where both answered the same test set as far as is recorded."""
    both = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    return [(mine.means, other.means) for mine, other in both if len(_tests((mine, other))) < 2]
