"""Two checkpoints compared on the same benchmark items: paired differences, their intervals, and a table."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from prism.errors import DataError
from prism.evals.benchmarks.accuracy import ACCURACY
from prism.evals.benchmarks.benchmark import Headline, ItemScore, Profile, UnitValues
from prism.evals.statistics import (
    Interval,
    bootstrap_interval,
    macro_average,
    minimum_detectable_difference,
    standard_error,
)
from prism.evals.tables import ABSENT, aligned, points

AVERAGE = "average"

_LEGEND = """in points, paired by item, question or family; its interval resamples families.
MDD: the smallest true difference that such a comparison finds with 80% power at 5%, two-sided."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two checkpoints: both means, and first − second paired by unit.

    `minimum_detectable` is the smallest true difference that this comparison would find with 80% power at
    5%, two-sided. It and the limits of `difference` are None where the clusters show no spread, the means
    too where the items make up no unit of the metric.
    """

    benchmark: str
    profile: Profile
    metric: str
    first: float | None
    second: float | None
    difference: Interval
    minimum_detectable: float | None
    num_items: int
    num_clusters: int


def compare(
    first: Sequence[ItemScore],
    second: Sequence[ItemScore],
    *,
    headline: Headline = ACCURACY,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two checkpoints on one benchmark under one profile, by its `headline`.

    Clusters are resampled as pairs. Raises DataError unless both sides hold the same items in the same
    clusters; their numbers of samples may differ.
    """
    subjects: set[tuple[str, Profile]] = {(score.benchmark, score.profile) for score in (*first, *second)}
    if len(subjects) != 1:
        found = ", ".join(map("/".join, sorted(subjects))) or "no scores"
        raise DataError(f"a comparison is of one benchmark under one profile, not of {found}; compare each by itself")
    benchmark, profile = subjects.pop()
    items = _shared_items(first, second, benchmark)
    ours, clusters = _values_and_clusters(first, headline.unit_values)
    theirs, _ = _values_and_clusters(second, headline.unit_values)
    if ours.keys() != theirs.keys():
        raise ValueError(f"the units of {headline.metric!r} depend on the answers: their differences cannot be paired")
    differences = {unit: ours[unit] - theirs[unit] for unit in ours}
    error = standard_error(differences, clusters)
    return Comparison(
        benchmark=benchmark,
        profile=profile,
        metric=headline.metric,
        first=_mean(ours.values()),
        second=_mean(theirs.values()),
        difference=bootstrap_interval(differences, clusters, num_resamples=num_resamples, seed=seed),
        minimum_detectable=None if error is None else minimum_detectable_difference(error),
        num_items=len(items),
        num_clusters=len(set(items.values())),
    )


def _shared_items(first: Sequence[ItemScore], second: Sequence[ItemScore], benchmark: str) -> dict[str, str]:
    """Item → cluster, the same on both sides."""
    ours, theirs = ({score.item_id: score.cluster for score in scores} for scores in (first, second))
    stray = sorted(ours.keys() ^ theirs.keys())
    if stray:
        raise DataError(
            f"{benchmark}: a paired comparison needs the same items on both sides, but {len(stray)} are on one side "
            f"only, e.g. {stray[0]!r}; evaluate both checkpoints on the same rows"
        )
    moved = sorted(item for item in ours if ours[item] != theirs[item])
    if moved:
        raise DataError(
            f"{benchmark}: {len(moved)} items are in another family on the other side, e.g. {moved[0]!r} in "
            f"{ours[moved[0]]!r} and {theirs[moved[0]]!r}; evaluate both checkpoints on the same rows"
        )
    return ours


def _values_and_clusters(
    scores: Sequence[ItemScore], unit_values: UnitValues
) -> tuple[dict[str, float], dict[str, str]]:
    members: dict[str, list[ItemScore]] = defaultdict(list)
    for score in scores:
        members[score.cluster].append(score)
    found = {cluster: unit_values(held) for cluster, held in members.items()}
    values = {unit: value for units in found.values() for unit, value in units.items()}
    clusters = {unit: cluster for cluster, units in found.items() for unit in units}
    if len(values) != sum(map(len, found.values())):
        raise ValueError("a unit lies in two clusters")
    return values, clusters


def average_comparison(comparisons: Sequence[Comparison]) -> Comparison:
    """Macro average: every benchmark weighs the same, and benchmarks are taken as independent of each other.

    Benchmarks without a value are left out; without limits in one of the others the average has none.
    """
    profiles: set[Profile] = {comparison.profile for comparison in comparisons}
    if len(profiles) != 1 or len({comparison.benchmark for comparison in comparisons}) < len(comparisons):
        raise ValueError("an average takes one comparison of each benchmark, all under one profile")
    measured = [comparison for comparison in comparisons if comparison.difference.mean is not None]
    detectable = [found.minimum_detectable for found in measured if found.minimum_detectable is not None]
    has_all = bool(measured) and len(detectable) == len(measured)
    return Comparison(
        benchmark=AVERAGE,
        profile=profiles.pop(),
        metric="macro",
        first=_mean(found.first for found in measured if found.first is not None),
        second=_mean(found.second for found in measured if found.second is not None),
        difference=macro_average([found.difference for found in measured]),
        # A multiple of the standard error, so it adds in squares as standard errors do.
        minimum_detectable=math.hypot(*detectable) / len(detectable) if has_all else None,
        num_items=sum(found.num_items for found in measured),
        num_clusters=sum(found.num_clusters for found in measured),
    )


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None


def format_comparison(comparisons: Sequence[Comparison], first_name: str, second_name: str) -> str:
    """A table for a terminal, one block per profile, in the order given; shares in percent."""
    blocks: dict[Profile, list[list[str]]] = {}
    for comparison in comparisons:
        head = [comparison.profile, "metric", first_name, second_name, "difference", "95% interval", "MDD", "items"]
        blocks.setdefault(comparison.profile, [[*head, "families"]]).append(_cells(comparison))
    tables = ["\n".join(aligned(rows)) for rows in blocks.values()]
    return "\n\n".join([*tables, f"Difference: {first_name} − {second_name}, {_LEGEND}"])


def _cells(comparison: Comparison) -> list[str]:
    low, high = comparison.difference.low, comparison.difference.high
    return [
        comparison.benchmark,
        comparison.metric,
        points(comparison.first),
        points(comparison.second),
        points(comparison.difference.mean, "+"),
        ABSENT if low is None or high is None else f"[{points(low)}, {points(high)}]",
        points(comparison.minimum_detectable),
        f"{comparison.num_items:,}",
        f"{comparison.num_clusters:,}",
    ]
