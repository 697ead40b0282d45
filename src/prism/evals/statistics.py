"""Intervals for evaluation results: proportions, means and differences over clusters of items, pass@k.

Several samples of one item share its difficulty, and so do the items of one family (the versions of a
problem, the questions about one figure). The cluster is therefore what is drawn at random: every interval
here takes `clusters`, unit → its family, and without it each unit is a family of its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean

import numpy as np

from prism.errors import DataError
from prism.spread import is_constant

_BOOTSTRAP_CHUNK = 2_000_000
"""Resampled values held in memory at once."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence limits, all None where nothing was measured; `count` is the number of
    independent units behind it, which is that of the clusters where there are any.

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


def mean_interval(
    samples: Mapping[str, Sequence[float]], clusters: Mapping[str, str] | None = None, level: float = 0.95
) -> Interval:
    """Mean over units of the mean over each unit's samples, with the cluster-robust standard error.

    `samples` maps a unit to its values; a unit without any is left out. The limits are Student's t with
    clusters − 1 degrees of freedom, so samples that agree and families that share their fate add no certainty.
    """
    values = _unit_means(samples)
    if not values:
        return NOTHING_MEASURED
    mean = fmean(values.values())
    sums, sizes = _cluster_totals(values, clusters)
    error = _ratio_error(sums, sizes)
    if error is None:
        return Interval(mean, None, None, len(sums))
    half = student_t_quantile(0.5 + level / 2, len(sums) - 1) * error
    return Interval(mean, mean - half, mean + half, len(sums))


def share_interval(
    samples: Mapping[str, Sequence[float]], clusters: Mapping[str, str] | None = None, level: float = 0.95
) -> Interval:
    """`mean_interval` of values in [0, 1], its limits cut to that range.

    Wilson's interval over clusters takes its place where they are trials that succeeded or failed as a
    whole: all of one size, or all with the same outcome, which gives limits where Student's t has none.
    """
    sums, sizes = _cluster_totals(_unit_means(samples), clusters)
    means = sums / sizes
    if np.isin(means, (0.0, 1.0)).all() and (len(set(sizes)) <= 1 or len(set(means)) <= 1):
        return wilson_interval(round(means.sum()), len(means), level)
    found = mean_interval(samples, clusters, level)
    if found.low is None or found.high is None:
        return found
    return Interval(found.mean, max(0.0, found.low), min(1.0, found.high), found.count)


def bootstrap_interval(
    values: Mapping[str, float],
    clusters: Mapping[str, str] | None = None,
    level: float = 0.95,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean over units with percentile limits of the bootstrap that draws whole clusters with replacement.

    For a comparison `values` are paired differences, so that the difficulty both sides share cancels. The
    mean weighs units equally: in a resample it is a ratio of sums over the clusters drawn. The result does
    not depend on the order of the mapping. With few clusters percentile limits are too narrow: simulated
    95% limits cover 93% of the time with 40 clusters, 92% with 20 and 89% with 10.
    """
    if not values:
        return NOTHING_MEASURED
    sums, sizes = _cluster_totals(values, clusters)
    mean = float(sums.sum() / sizes.sum())
    if is_constant((sums / sizes).tolist()):
        return Interval(mean, None, None, len(sums))
    generator = np.random.default_rng(seed)
    rows = max(1, _BOOTSTRAP_CHUNK // len(sums))
    means = []
    for start in range(0, num_resamples, rows):
        drawn = generator.integers(len(sums), size=(min(rows, num_resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.5 - level / 2, 0.5 + level / 2])
    return Interval(mean, float(low), float(high), len(sums))


def standard_error(values: Mapping[str, float], clusters: Mapping[str, str] | None = None) -> float | None:
    """Cluster-robust standard error of the mean over units; None where the clusters show no spread.

    The linearised ratio estimator with the factor C/(C − 1): the square root of
    C/(C − 1) · Σ (sum of the cluster − mean · size of the cluster)², over the number of units.
    """
    return _ratio_error(*_cluster_totals(values, clusters))


def _ratio_error(sums: np.ndarray, sizes: np.ndarray) -> float | None:
    if is_constant((sums / sizes).tolist()):
        return None
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return math.sqrt(len(sums) / (len(sums) - 1) * float(residuals @ residuals)) / float(sizes.sum())


def _unit_means(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {unit: fmean(values) for unit, values in samples.items() if len(values)}


def _cluster_totals(values: Mapping[str, float], clusters: Mapping[str, str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of the units of each cluster, by name."""
    units = sorted(values)
    names = units if clusters is None else [clusters[unit] for unit in units]
    index = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    sums = np.bincount(index, weights=np.array([values[unit] for unit in units], dtype=np.float64))
    return sums, np.bincount(index).astype(np.float64)


def macro_average(intervals: Sequence[Interval]) -> Interval:
    """Unweighted mean of independent benchmarks' means; `count` is the sum of theirs.

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


def avg_at_k_interval(
    samples: Mapping[str, Sequence[float]], k: int, clusters: Mapping[str, str] | None = None, level: float = 0.95
) -> Interval:
    """Mean over items of the expected mean of k samples.

    An item's n ≥ k samples all serve: their mean is that of all subsets of k. Items weigh the same
    whatever their n. Raises DataError if an item has fewer than k.
    """
    _require_samples(samples, k, f"avg@{k}")
    return share_interval(samples, clusters, level)


def pass_at_k_interval(
    samples: Mapping[str, Sequence[bool]], k: int, clusters: Mapping[str, str] | None = None, level: float = 0.95
) -> Interval:
    """Mean over items of the unbiased `pass_at_k`, each from its own n ≥ k samples; DataError if one has fewer."""
    _require_samples(samples, k, f"pass@{k}")
    shares = {item: [pass_at_k(len(values), sum(values), k)] for item, values in samples.items()}
    return share_interval(shares, clusters, level)


def _require_samples(samples: Mapping[str, Sequence[object]], k: int, metric: str) -> None:
    short = sorted(item for item, values in samples.items() if len(values) < k)
    if short:
        raise DataError(
            f"{metric} needs {k} samples of every item: {len(short)} of {len(samples)} items have fewer, "
            f"e.g. {short[0]!r} with {len(samples[short[0]])}; draw more samples or ask for a smaller k"
        )


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right: 1 − C(n − c, k) / C(n, k)."""
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} from {num_correct} right of {num_samples} samples")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def minimum_detectable_difference(error: float, power: float = 0.8, level: float = 0.95) -> float:
    """Smallest true difference that a two-sided test finds with probability `power`.

    `error` is the standard error of the difference: the observed one (`standard_error` of the paired
    differences), or sd / √n in a plan for n independent items. Normal approximation.
    """
    return (_normal_quantile(level) + NormalDist().inv_cdf(power)) * error


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


@lru_cache(maxsize=4096)
def student_t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """The value below which Student's t lies with `probability` in (0.5, 1).

    With t = √ν · tan θ the density is c · cos^(ν−1) θ, c = Γ((ν + 1)/2) / (√π Γ(ν/2)); its integral from 0 is
    taken by Gauss–Legendre quadrature and inverted by bisection. Relative error below 1e-7 up to ν = 10⁷.
    """
    if not 0.5 < probability < 1 or degrees_of_freedom < 1:
        raise ValueError(f"no t quantile for probability {probability} and {degrees_of_freedom} degrees of freedom")
    nodes, weights = np.polynomial.legendre.leggauss(64)
    nodes, weights = (nodes + 1) / 2, weights / 2
    log_norm = math.lgamma((degrees_of_freedom + 1) / 2) - math.lgamma(degrees_of_freedom / 2) - math.log(math.pi) / 2
    target = (probability - 0.5) / math.exp(log_norm)
    # Where ν is large all the mass lies near 0: a bracket to π/2 would have the quadrature miss it.
    low, high = 0.0, min(math.pi / 2, 40 / math.sqrt(degrees_of_freedom))
    for _ in range(80):
        theta = (low + high) / 2
        integral = theta * float(weights @ np.cos(theta * nodes) ** (degrees_of_freedom - 1))
        low, high = (theta, high) if integral < target else (low, theta)
    return math.sqrt(degrees_of_freedom) * math.tan((low + high) / 2)
