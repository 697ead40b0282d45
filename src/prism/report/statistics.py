"""The few statistics that a run directory does not already hold: over seeds, and paired by item."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95% interval, None where the observations show no spread to take one from.

    `count` is the number of test items or of pairs behind it, summed over `num_seeds`.
    """

    mean: float
    low: float | None
    high: float | None
    count: int | None
    num_seeds: int = 1

    def __neg__(self) -> "Estimate":
        """The difference taken the other way round."""
        low, high = (None if limit is None else -limit for limit in (self.high, self.low))
        return Estimate(-self.mean, low, high, self.count, self.num_seeds)

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


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
    """One seed keeps its own interval; from two on it is Student's over the seeds' means.

    Seeds that happen to agree exactly give no interval: one of zero width would claim certainty.
    """
    if len(estimates) < 2:
        return estimates[0] if estimates else None
    means = [estimate.mean for estimate in estimates]
    counts = [estimate.count for estimate in estimates if estimate.count is not None]
    count = sum(counts) if len(counts) == len(estimates) else None
    error = stdev(means) / math.sqrt(len(means))
    return _estimate(fmean(means), error, len(means) - 1, count, num_seeds=len(means))


def _estimate(mean: float, error: float, freedom: int, count: int | None, *, num_seeds: int = 1) -> Estimate:
    if error == 0:
        return Estimate(mean, None, None, count, num_seeds)
    margin = student_t(freedom) * error
    return Estimate(mean, mean - margin, mean + margin, count, num_seeds)


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
    if any(len(group) < 2 for group in groups):
        return Estimate(centre, None, None, count)
    error = math.sqrt(sum(stdev(group) ** 2 / len(group) for group in groups)) / len(groups)
    return _estimate(centre, error, count - len(groups), count)


def total_variation(left: Mapping[int, int], right: Mapping[int, int]) -> float | None:
    """Half the sum of absolute differences of shares: 0 the same distribution, 1 nothing in common."""
    num_left, num_right = sum(left.values()), sum(right.values())
    if not num_left or not num_right:
        return None
    return sum(abs(left.get(k, 0) / num_left - right.get(k, 0) / num_right) for k in {*left, *right}) / 2
