"""The few statistics that a run directory does not already hold: over seeds, and paired by item."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev

from prism.spread import is_constant

SEEDS_TO_JUDGE = 3
"""The fewest seeds that a gain or a loss is called by. One says nothing about how runs vary; two have one difference
between them, from which Student's limits, 12.7 errors away, come out narrow or wide by chance."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95% interval, None where the observations show no spread to take one from.

    `count` is the number of test items or of pairs behind it, summed over `num_seeds`. `by_seed` are the means of the
    seeds in their order, where there are several.
    """

    mean: float
    low: float | None
    high: float | None
    count: int | None
    num_seeds: int = 1
    by_seed: tuple[float, ...] = ()

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def is_judged(self) -> bool:
        """Whether it has the seeds to be called a gain, a loss or neither."""
        return self.num_seeds >= SEEDS_TO_JUDGE

    @property
    def is_pair(self) -> bool:
        """Of two seeds, whose values say more than limits from the one difference between them."""
        return len(self.by_seed) == 2

    @property
    def extent(self) -> tuple[float, ...]:
        """What there is to show of its spread: the values of two seeds, else its limits if it has any."""
        if self.is_pair:
            return self.by_seed
        return () if self.low is None or self.high is None else (self.low, self.high)


def _central_probability(t: float, freedom: int) -> float:
    """P(|T| ≤ t) of Student's t, by the finite series of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(freedom))
    squared = math.cos(theta) ** 2
    is_odd = freedom % 2
    term, total = (math.cos(theta), 0.0) if is_odd else (1.0, 0.0)
    for k in range(1 + is_odd, freedom, 2):
        total += term
        term *= squared * k / (k + 1)
    if is_odd:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total


@lru_cache(maxsize=4096)
def student_t(freedom: int) -> float:
    """The t with 95% of Student's distribution inside ±t."""
    low, high = 0.0, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def over_seeds(estimates: Sequence[Estimate]) -> Estimate | None:
    """One seed keeps its own interval; from two on it is one over seeds and scenes: Student's over the seeds' means,
    and on either side at least as wide as that over the items within the seeds.

    Seeds differ in all that their items do and in their runs besides, so limits inside what the items alone allow come
    of few seeds that lie close by chance. Over the items, seeds are independent: the distances from their means to
    their limits add in squares. Seeds without spread, between them or inside, give no interval: one of zero width would
    claim certainty.
    """
    if len(estimates) < 2:
        return estimates[0] if estimates else None
    means = tuple(estimate.mean for estimate in estimates)
    mean, num_seeds = fmean(means), len(means)
    counts = [estimate.count for estimate in estimates if estimate.count is not None]
    count = sum(counts) if len(counts) == num_seeds else None
    between = 0.0 if is_constant(means) else student_t(num_seeds - 1) * stdev(means) / math.sqrt(num_seeds)
    below = math.hypot(*(each.mean - each.low for each in estimates if each.low is not None)) / num_seeds
    above = math.hypot(*(each.high - each.mean for each in estimates if each.high is not None)) / num_seeds
    if not any((between, below, above)):
        return Estimate(mean, None, None, count, num_seeds, means)
    return Estimate(mean, mean - max(between, below), mean + max(between, above), count, num_seeds, means)


def mean_of_paired_differences(differences: Mapping[str, Sequence[float]]) -> Estimate | None:
    """Mean over benchmarks of the mean paired difference, so that every benchmark weighs the same.

    The items of a benchmark are the sampling units: variances of the benchmarks' means add up, and
    the degrees of freedom are pairs − benchmarks.
    """
    groups = list(differences.values())
    if not groups or not all(groups):
        return None
    centre = fmean(fmean(group) for group in groups)
    count = sum(map(len, groups))
    if any(len(group) < 2 for group in groups) or all(map(is_constant, groups)):
        return Estimate(centre, None, None, count)
    variances = [0.0 if is_constant(group) else stdev(group) ** 2 / len(group) for group in groups]
    margin = student_t(count - len(groups)) * math.sqrt(sum(variances)) / len(groups)
    return Estimate(centre, centre - margin, centre + margin, count)


def total_variation(left: Mapping[int, int], right: Mapping[int, int]) -> float | None:
    """Half the sum of absolute differences of shares: 0 the same distribution, 1 nothing in common."""
    num_left, num_right = sum(left.values()), sum(right.values())
    if not num_left or not num_right:
        return None
    return sum(abs(left.get(k, 0) / num_left - right.get(k, 0) / num_right) for k in {*left, *right}) / 2


def imitators_distance(counts: Mapping[int, int], num_draws: int) -> float | None:
    """The total variation distance that `num_draws` responses drawn from the distribution itself have from it, on
    average: what chance gives a perfect imitator. By De Moivre's mean deviation of a binomial,
    E|X − np| = 2ν · C(n, ν) · p^ν · (1 − p)^(n − ν + 1) with ν = ⌊np⌋ + 1."""
    total = sum(counts.values())
    if not total or not num_draws:
        return None
    return sum(_mean_deviation(num_draws, count / total) for count in counts.values()) / num_draws / 2


def _mean_deviation(n: int, p: float) -> float:
    if p <= 0 or p >= 1:
        return 0.0
    v = math.floor(n * p) + 1
    ways = math.lgamma(n + 1) - math.lgamma(v + 1) - math.lgamma(n - v + 1)
    return 2 * v * math.exp(ways + v * math.log(p) + (n - v + 1) * math.log1p(-p))
