"""The results table: which columns there are, what each checkpoint scored, what it gained on the baseline."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from prism.report.rundir import Item, Run, Stage
from prism.report.statistics import Estimate, mean_of_paired_differences, over_seeds

MODES = ("greedy", "sampled")
IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, ALL = "in-distribution", "out-of-distribution", "all"
AVERAGES = (IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, ALL)


@dataclass(frozen=True, slots=True)
class Column:
    """`scope` is a name of `AVERAGES` when `is_average`, else a benchmark; `metric` a name as in summary.json."""

    title: str
    heading: str
    scope: str
    is_average: bool
    metric: str = "accuracy"


ACCURACIES = (
    Column("in-distr.", "Average accuracy", IN_DISTRIBUTION, True),
    Column("out-of-distr.", "Average accuracy", OUT_OF_DISTRIBUTION, True),
    Column("all", "Average accuracy", ALL, True),
)
DESCRIPTIONS = (
    Column("exact", "Description, all", ALL, True, "caption_exact"),
    Column("items right", "Description, all", ALL, True, "caption_fraction"),
)
FORMAT = Column("valid", "Format, all", ALL, True, "valid")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """`scores` and `gains` run parallel to the table's columns; a gain is the paired difference to `baseline`."""

    stage: str
    scores: tuple[Estimate | None, ...]
    baseline: str | None
    gains: tuple[Estimate | None, ...]


@dataclass(frozen=True, slots=True)
class ResultsTable:
    mode: str
    columns: tuple[Column, ...]
    rows: tuple[ResultRow, ...]

    def column_index(self, scope: str, metric: str) -> int:
        return next(i for i, c in enumerate(self.columns) if c.is_average and (c.scope, c.metric) == (scope, metric))

    @property
    def compared(self) -> list[ResultRow]:
        """The rows with at least one difference to show."""
        return [row for row in self.rows if any(gain is not None for gain in row.gains)]


def results_table(run: Run, mode: str) -> ResultsTable:
    columns = _columns(run)
    means = {
        (stage.seed, name): item_means(stage, mode)
        for name in run.evaluated_names
        for stage in run.over_seeds(name)
        if stage.items is not None
    }
    rows = []
    for name in run.evaluated_names:
        scores = tuple(over_seeds(scores_of(run.over_seeds(name), column, mode)) for column in columns)
        baseline = run.baseline_of(name)
        pairs = [
            (means[seed, name], means[seed, baseline])
            for seed in run.seeds
            if baseline and (seed, name) in means and (seed, baseline) in means
        ]
        gains = tuple(gain_over_seeds(pairs, column) for column in columns)
        rows.append(ResultRow(name, scores, baseline if pairs else None, gains))
    return ResultsTable(mode, columns, tuple(rows))


def _columns(run: Run) -> tuple[Column, ...]:
    groups: dict[str, str] = {}
    for stage in run.stages.values():
        for name, entry in (stage.summary or {}).get("benchmarks", {}).items():
            groups[name] = str(entry.get("group", ""))
    order = {IN_DISTRIBUTION: 0, OUT_OF_DISTRIBUTION: 1}
    names = sorted(groups, key=lambda name: (order.get(groups[name], 2), name))
    benchmarks = [Column(name, f"Accuracy, {groups[name]}", name, False) for name in names]
    return (*ACCURACIES, *DESCRIPTIONS, FORMAT, *benchmarks)


def scores_of(stages: Sequence[Stage], column: Column, mode: str) -> list[Estimate]:
    part = "average" if column.is_average else "benchmarks"
    found = []
    for stage in stages:
        entry = (stage.summary or {}).get(part, {}).get(column.scope) or {}
        interval = (entry.get(mode) or {}).get(column.metric) or {}
        if interval.get("mean") is not None:
            found.append(Estimate(interval["mean"], interval.get("low"), interval.get("high"), interval.get("count")))
    return found


ItemMeans = Mapping[str, Mapping[str, Mapping[tuple[str, str], float]]]
"""metric → benchmark → (group, item) → mean over the item's samples."""


def item_means(stage: Stage, mode: str) -> ItemMeans:
    collected: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for item in stage.items or ():
        if item.mode == mode:
            for metric, value in item.values.items():
                if value is not None:
                    collected[metric, item.benchmark, item.group, item.item_id].append(value)
    means: dict[str, dict[str, dict[tuple[str, str], float]]] = defaultdict(lambda: defaultdict(dict))
    for (metric, benchmark, group, item_id), values in collected.items():
        means[metric][benchmark][group, item_id] = fmean(values)
    return means


def gain_over_seeds(pairs: Iterable[tuple[ItemMeans, ItemMeans]], column: Column) -> Estimate | None:
    """Each seed is compared with the baseline of the same seed, item by item; then the seeds are put together."""
    return over_seeds([gain for ours, theirs in pairs if (gain := paired_gain(ours, theirs, column)) is not None])


def paired_gain(ours: ItemMeans, baseline: ItemMeans, column: Column) -> Estimate | None:
    """None unless every benchmark in the column's scope that either side measured has pairs on both."""
    left = _in_scope(ours.get(column.metric, {}), column)
    right = _in_scope(baseline.get(column.metric, {}), column)
    differences = {}
    for benchmark in sorted({*left, *right}):
        mine, theirs = left.get(benchmark, {}), right.get(benchmark, {})
        differences[benchmark] = [value - theirs[item] for item, value in mine.items() if item in theirs]
    return mean_of_paired_differences(differences)


def mean_score(means: ItemMeans, column: Column) -> Estimate | None:
    """What `summary.json` holds of one checkpoint, from its items; with Student's interval over them."""
    chosen = _in_scope(means.get(column.metric, {}), column)
    return mean_of_paired_differences({benchmark: list(items.values()) for benchmark, items in chosen.items()})


def _in_scope(
    means: Mapping[str, Mapping[tuple[str, str], float]], column: Column
) -> dict[str, dict[tuple[str, str], float]]:
    chosen: dict[str, dict[tuple[str, str], float]] = {}
    for benchmark, items in means.items():
        if not column.is_average:
            kept = dict(items) if benchmark == column.scope else {}
        else:
            kept = {key: value for key, value in items.items() if column.scope in (ALL, key[0])}
        if kept:
            chosen[benchmark] = kept
    return chosen


def counts_of(items: Sequence[Item], field: str, mode: str) -> tuple[dict[int, int], int]:
    """How often each number of steps or described items occurs, and how many responses have none to count."""
    counts: dict[int, int] = {}
    num_without = 0
    for item in items:
        if item.mode == mode:
            value = item.num_steps if field == "num_steps" else item.num_items
            if value is None:
                num_without += 1
            else:
                counts[value] = counts.get(value, 0) + 1
    return counts, num_without
