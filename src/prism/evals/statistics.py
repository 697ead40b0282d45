"""Intervals and comparisons for evaluation results, without scipy.

The unit of evaluation is the item (a prompt), not the sample: several samples of one item share its
difficulty, so every interval here treats the item as the thing drawn at random.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np

from prism.errors import DataError

_BOOTSTRAP_CHUNK = 2_000_000
"""Resampled values held in memory at once."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence limits over `count` independent units; all three None where nothing was measured.

    `low` and `high` are also None where the units show no spread: a width of zero would claim certainty.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


NOTHING_MEASURED = Interval(None, None, None, 0)


def wilson_interval(successes: int, count: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion: inside [0, 1] and sensible at 0 and at all successes."""
    if not 0 <= successes <= count:
        raise ValueError(f"{successes} successes in {count} trials")
    if count == 0:
        return NOTHING_MEASURED
    z = _normal_quantile(level)
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == count else centre + half
    return Interval(share, low, high, count)


def mean_interval(samples: Mapping[str, Sequence[float]], level: float = 0.95) -> Interval:
    """Mean over items of the mean over each item's samples, with the item-clustered standard error.

    `samples` maps an item to its values. The limits are Student's t with items − 1 degrees of freedom on
    the standard error of the item means, which is the clustered one, whatever the correlation in an item.
    """
    return seeds_interval([fmean(values) for values in samples.values() if len(values)], level)


def seeds_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student-t limits of independent values, e.g. one result per seed."""
    count = len(values)
    if count == 0:
        return NOTHING_MEASURED
    mean = fmean(values)
    if count == 1 or min(values) == max(values):
        return Interval(mean, None, None, count)
    half = student_t_quantile(0.5 + level / 2, count - 1) * stdev(values) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def paired_difference(
    first: Mapping[str, float],
    second: Mapping[str, float],
    level: float = 0.95,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of `first − second` over shared items, with percentile limits of the paired bootstrap.

    Both map an item to its mean. Items are resampled as pairs, so the difficulty they share cancels.
    The result does not depend on the order of the mappings; without any spread there are no limits.
    Raises DataError unless the items are the same.
    """
    if first.keys() != second.keys():
        stray = sorted(first.keys() ^ second.keys())
        raise DataError(
            f"a paired comparison needs the same items on both sides: {len(stray)} are on one side only, "
            f"e.g. {stray[0]!r}; evaluate both checkpoints on one test set"
        )
    differences = np.array([first[item] - second[item] for item in sorted(first)], dtype=np.float64)
    if differences.size == 0:
        return NOTHING_MEASURED
    mean = float(differences.mean())
    if differences.min() == differences.max():
        return Interval(mean, None, None, differences.size)
    means = _bootstrap_means(differences, num_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(mean, float(low), float(high), differences.size)


def _bootstrap_means(values: np.ndarray, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    rows = max(1, _BOOTSTRAP_CHUNK // values.size)
    means = []
    for start in range(0, num_resamples, rows):
        chunk = min(rows, num_resamples - start)
        means.append(values[generator.integers(values.size, size=(chunk, values.size))].mean(axis=1))
    return np.concatenate(means)


def macro_average(intervals: Sequence[Interval]) -> Interval:
    """Unweighted mean of independent benchmarks' means; `count` is the sum of their items.

    Limits by the method of variance estimates recovery (Zou and Donner 2008): the distances from each mean
    to its own limit add in squares, separately below and above. Asymmetric limits stay asymmetric, the
    average of Wilson intervals stays in [0, 1], and benchmarks without variation keep their width.
    Benchmarks where nothing was measured are left out.
    """
    measured = [interval for interval in intervals if interval.mean is not None]
    if not measured:
        return NOTHING_MEASURED
    mean = fmean(interval.mean for interval in measured if interval.mean is not None)
    count = sum(interval.count for interval in measured)
    below, above = [], []
    for interval in measured:
        if interval.mean is None or interval.low is None or interval.high is None:
            return Interval(mean, None, None, count)
        below.append(interval.mean - interval.low)
        above.append(interval.high - interval.mean)
    return Interval(mean, mean - math.hypot(*below) / len(below), mean + math.hypot(*above) / len(above), count)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right: 1 − C(n − c, k) / C(n, k)."""
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} from {num_correct} right of {num_samples} samples")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def minimum_detectable_difference(num_items: int, sd: float, power: float = 0.8, level: float = 0.95) -> float:
    """Smallest true mean difference a two-sided paired test finds with probability `power`.

    `sd` is the standard deviation over items of the paired differences; normal approximation.
    """
    if num_items < 1:
        raise ValueError("a comparison needs at least one item")
    return (_normal_quantile(level) + NormalDist().inv_cdf(power)) * sd / math.sqrt(num_items)


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def student_t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """The value below which Student's t lies with `probability` in (0.5, 1), by bisection to 1e-12 relative."""
    if not 0.5 < probability < 1 or degrees_of_freedom <= 0:
        raise ValueError(f"no t quantile for probability {probability} and {degrees_of_freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while _student_t_cdf(high, degrees_of_freedom) < probability:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _student_t_cdf(middle, degrees_of_freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _student_t_cdf(t: float, degrees_of_freedom: float) -> float:
    tail = _regularised_beta(degrees_of_freedom / (degrees_of_freedom + t * t), degrees_of_freedom / 2, 0.5)
    return 1.0 - tail / 2


def _regularised_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), taken from whichever end its continued fraction converges fast at."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1.0 - front * _beta_fraction(1.0 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's algorithm."""
    tiny = 1e-300
    numerator, denominator, value = 1.0, 0.0, 1.0
    for term in range(10_000):
        m = term // 2
        if term == 0:
            coefficient = 1.0
        elif term % 2 == 0:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        denominator = 1.0 / ((1.0 + coefficient * denominator) or tiny)
        numerator = (1.0 + coefficient / numerator) or tiny
        value *= numerator * denominator
        if term and abs(numerator * denominator - 1.0) < 1e-15:
            return value - 1.0
    raise ArithmeticError(f"the incomplete beta function did not converge at x={x}, a={a}, b={b}")
