import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from prism.errors import DataError
from prism.evals.statistics import (
    NOTHING_MEASURED,
    Interval,
    avg_at_k_interval,
    bootstrap_interval,
    macro_average,
    mean_interval,
    minimum_detectable_difference,
    pass_at_k,
    pass_at_k_interval,
    share_interval,
    standard_error,
    student_t_quantile,
    wilson_interval,
)


def limits(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None and interval.high is not None
    return interval.low, interval.high


def families(
    generator: np.random.Generator, num_clusters: int, *, mean: float = 0.0
) -> tuple[dict[str, float], dict[str, str]]:
    """Units in families of 1 to 9 with unit variance, three quarters of it shared within the family."""
    values, clusters = {}, {}
    for cluster in range(num_clusters):
        shared = generator.normal(0, math.sqrt(0.75))
        for member in range(int(generator.integers(1, 10))):
            values[f"{cluster}/{member}"] = mean + shared + generator.normal(0, 0.5)
            clusters[f"{cluster}/{member}"] = str(cluster)
    return values, clusters


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_against_published_values(successes: int, count: int, low: float, high: float):
    interval = wilson_interval(successes, count)
    assert interval.mean == successes / count and interval.count == count
    assert limits(interval) == pytest.approx((low, high), abs=5e-5)


def test_wilson_limits_are_the_shares_whose_score_test_just_rejects():
    low, high = limits(wilson_interval(13, 40, level=0.9))
    for limit in (low, high):
        assert abs(13 / 40 - limit) / math.sqrt(limit * (1 - limit) / 40) == pytest.approx(1.6448536269514722)


def test_wilson_of_nothing():
    assert wilson_interval(0, 0) == NOTHING_MEASURED
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson_interval(3, 2)


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [
        (0.975, 1, 12.706205),
        (0.975, 2, 4.302653),
        (0.975, 4, 2.776445),
        (0.975, 30, 2.042272),
        (0.995, 5, 4.032143),
        (0.95, 10, 1.812461),
        (0.9995, 3, 12.923979),
        (0.975, 1000, 1.962339),
        (0.975, 10**7, 1.959964),
    ],
)
def test_t_quantile_against_tables(probability: float, freedom: int, quantile: float):
    assert student_t_quantile(probability, freedom) == pytest.approx(quantile, abs=2e-6)


@pytest.mark.parametrize("probability", [0.51, 0.6, 0.9, 0.999, 0.999999])
def test_t_quantile_against_closed_forms(probability: float):
    cauchy = math.tan(math.pi * (probability - 0.5))
    two = (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    assert student_t_quantile(probability, 1) == pytest.approx(cauchy, rel=1e-8)
    assert student_t_quantile(probability, 2) == pytest.approx(two, rel=1e-8)


def test_t_quantile_rejects_what_it_cannot_answer():
    for probability, freedom in [(0.5, 3), (1.0, 3), (0.9, 0)]:
        with pytest.raises(ValueError, match="no t quantile"):
            student_t_quantile(probability, freedom)


def test_mean_interval_by_hand():
    # mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776445
    interval = mean_interval({str(value): [float(value)] for value in range(1, 6)})
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert interval.mean == 3.0 and interval.count == 5
    assert limits(interval) == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_no_spread_gives_no_limits():
    assert mean_interval({}) == NOTHING_MEASURED == bootstrap_interval({})
    assert mean_interval({"a": [0.5]}) == bootstrap_interval({"a": 0.5}) == Interval(0.5, None, None, 1)
    agreed = {"a": 0.5, "b": 0.5}
    assert bootstrap_interval(agreed) == Interval(0.5, None, None, 2)
    assert mean_interval({unit: [value] for unit, value in agreed.items()}) == Interval(0.5, None, None, 2)
    # Families of different sizes that agree, though summing 0.1 three times leaves round-off.
    clusters = {"a": "x", "b": "x", "c": "x", "d": "y"}
    assert standard_error(dict.fromkeys(clusters, 0.1), clusters) is None
    # Spread within a family only: nothing is known about spread between families.
    assert bootstrap_interval({"a": 0.0, "b": 1.0}, {"a": "x", "b": "x"}) == Interval(0.5, None, None, 1)


def test_samples_of_one_item_add_no_certainty():
    once = mean_interval({"a": [0.0], "b": [1.0], "c": [1.0]})
    many = mean_interval({"a": [0.0] * 50, "b": [1.0] * 50, "c": [1.0] * 50})
    assert once == many and once.count == 3


def test_items_count_equally_whatever_their_number_of_samples():
    interval = mean_interval({"a": [0.0], "b": [1.0, 0.5, 0.0, 0.5], "c": []})
    assert interval.mean == pytest.approx(0.25) and interval.count == 2


def test_clustered_interval_covers_where_a_naive_one_does_not():
    generator = np.random.default_rng(0)
    covered, naive_covered, rounds = 0, 0, 600
    for _ in range(rounds):
        difficulty = generator.beta(0.5, 0.5, size=40)
        draws = (generator.random((40, 16)) < difficulty[:, None]).astype(float)
        low, high = limits(mean_interval({str(index): list(row) for index, row in enumerate(draws)}))
        covered += low <= 0.5 <= high
        low, high = limits(wilson_interval(int(draws.sum()), draws.size))
        naive_covered += low <= 0.5 <= high
    assert 0.92 < covered / rounds < 0.98
    assert naive_covered / rounds < 0.6


def test_standard_error_by_hand():
    # Sums 6, 1, 5 of sizes 3, 2, 1: mean 2, residuals 0, −3, 3, error sqrt(3/2 · 18) / 6.
    values = {"a": 2.0, "b": 2.0, "c": 2.0, "d": 1.0, "e": 0.0, "f": 5.0}
    clusters = dict(zip(values, "xxxyyz", strict=True))
    assert standard_error(values, clusters) == pytest.approx(math.sqrt(27) / 6)
    interval = mean_interval({unit: [value] for unit, value in values.items()}, clusters)
    half = 4.302653 * math.sqrt(27) / 6
    assert interval.mean == 2.0 and interval.count == 3
    assert limits(interval) == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_bootstrap_and_standard_error_against_the_jackknife_over_families():
    values, clusters = families(np.random.default_rng(1), 800, mean=1.0)
    names = sorted(set(clusters.values()))
    held = {name: [value for unit, value in values.items() if clusters[unit] == name] for name in names}
    total, count = sum(values.values()), len(values)
    without = np.array([(total - sum(held[name])) / (count - len(held[name])) for name in names])
    error = math.sqrt((len(names) - 1) / len(names) * ((without - without.mean()) ** 2).sum())
    assert standard_error(values, clusters) == pytest.approx(error, rel=5e-3)
    low, high = limits(bootstrap_interval(values, clusters))
    assert total / count - low == pytest.approx(1.959964 * error, rel=0.04)
    assert high - total / count == pytest.approx(1.959964 * error, rel=0.04)


def test_bootstrap_covers_with_families_where_it_does_not_without():
    generator = np.random.default_rng(2)
    covered, naive_covered, rounds = 0, 0, 400
    for seed in range(rounds):
        values, clusters = families(generator, 80)
        low, high = limits(bootstrap_interval(values, clusters, num_resamples=600, seed=seed))
        covered += low <= 0 <= high
        low, high = limits(bootstrap_interval(values, num_resamples=600, seed=seed))
        naive_covered += low <= 0 <= high
    assert 0.92 <= covered / rounds <= 0.98
    assert naive_covered / rounds < 0.75


def test_bootstrap_against_every_possible_resample():
    """Three families of sizes 1, 2 and 3 have 27 equally likely resamples."""
    values = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 1.0, "e": 1.0, "f": 1.0}
    clusters = dict(zip(values, "xyyzzz", strict=True))
    totals = [(0.0, 1), (1.0, 2), (3.0, 3)]
    resamples = itertools.product(totals, repeat=3)
    means = sorted(sum(s for s, _ in drawn) / sum(n for _, n in drawn) for drawn in resamples)
    for rank in (1, 3, 6, 10):  # levels whose quantile lies inside a step of the exact distribution
        level = 1 - 2 * (rank + 0.5) / 27
        found = limits(bootstrap_interval(values, clusters, level, num_resamples=20_000))
        assert found == pytest.approx((means[rank], means[26 - rank]))


def test_families_of_one_are_no_families():
    values, _ = families(np.random.default_rng(3), 20)
    own = {unit: unit for unit in values}
    samples = {unit: [value] for unit, value in values.items()}
    assert bootstrap_interval(values, own) == bootstrap_interval(values)
    assert mean_interval(samples, own) == mean_interval(samples)


def test_bootstrap_depends_on_seed_and_values_only():
    values, clusters = families(np.random.default_rng(4), 30)
    reordered = dict(reversed(values.items()))
    assert bootstrap_interval(values, clusters) == bootstrap_interval(reordered, clusters)
    assert bootstrap_interval(values, clusters, seed=1) != bootstrap_interval(values, clusters, seed=2)
    forward = limits(bootstrap_interval(values, clusters))
    backward = limits(bootstrap_interval({unit: -value for unit, value in values.items()}, clusters))
    assert (-backward[1], -backward[0]) == pytest.approx(forward)


def test_share_interval_is_wilson_for_trials_and_stays_in_range():
    assert share_interval({}) == NOTHING_MEASURED
    trials = {str(index): [float(index < 8)] for index in range(10)}
    assert share_interval(trials) == wilson_interval(8, 10)
    pairs = {str(index): [float(index < 16)] for index in range(20)}
    assert share_interval(pairs, {unit: str(int(unit) // 2) for unit in pairs}) == wilson_interval(8, 10)
    certain = {str(index): [1.0, 1.0] for index in range(12)}
    assert share_interval(certain, {unit: str(int(unit) % 5) for unit in certain}) == wilson_interval(5, 5)
    # Two families, one right and one wrong, but of different sizes: no trials of equal weight.
    assert share_interval({"a": [1.0], "b": [1.0], "c": [0.0]}, {"a": "x", "b": "x", "c": "y"}).mean == 2 / 3
    near_one = {"a": [1.0], "b": [1.0], "c": [0.5]}
    assert limits(mean_interval(near_one))[1] > 1
    assert limits(share_interval(near_one)) == (limits(mean_interval(near_one))[0], 1.0)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    for num_correct in range(7):
        right = [index < num_correct for index in range(6)]
        for k in range(1, 7):
            subsets = list(itertools.combinations(right, k))
            assert pass_at_k(6, num_correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    with pytest.raises(ValueError, match="pass@7"):
        pass_at_k(6, 1, 7)


def test_interval_of_pass_at_k_and_avg_at_k_by_hand():
    # pass@2: a 1 − C(3,2)/C(4,2) = 1/2, b 1 − 0/1 = 1, c 0, d 1 − C(2,2)/C(3,2) = 2/3; items weigh the same.
    samples = {
        "a": [True, False, False, False],
        "b": [True, False],
        "c": [False] * 5,
        "d": [False, True, False],
    }
    clusters = {"a": "x", "b": "x", "c": "y", "d": "z"}
    found = pass_at_k_interval(samples, 2, clusters)
    expected = mean_interval({"a": [1 / 2], "b": [1.0], "c": [0.0], "d": [2 / 3]}, clusters)
    assert found.mean == pytest.approx((1 / 2 + 1 + 0 + 2 / 3) / 4) and found.count == 3
    assert limits(found) == pytest.approx((max(0, limits(expected)[0]), min(1, limits(expected)[1])))
    average = avg_at_k_interval(samples, 2, clusters)
    assert average.mean == pytest.approx((1 / 4 + 1 / 2 + 0 + 1 / 3) / 4) and average.count == 3
    assert avg_at_k_interval(samples, 1, clusters) == average


def test_avg_at_1_equals_pass_at_1():
    samples = {"a": [True, False, True], "b": [False, False], "c": [True]}
    average, passed = avg_at_k_interval(samples, 1), pass_at_k_interval(samples, 1)
    assert average.mean == pytest.approx(passed.mean) and limits(average) == pytest.approx(limits(passed))


@pytest.mark.parametrize("interval", [avg_at_k_interval, pass_at_k_interval])
def test_more_samples_asked_for_than_drawn(interval: Callable[..., Interval]):
    with pytest.raises(
        DataError, match=r"@3 needs 3 samples of every item: 2 of 3 items have fewer, e\.g\. 'b' with 2"
    ):
        interval({"a": [True] * 3, "b": [True] * 2, "c": [False]}, 3)


def test_pass_at_k_interval_covers_with_families():
    generator = np.random.default_rng(5)
    covered, naive_covered, rounds, k = 0, 0, 300, 4
    truth = 1 - 1 / (k + 1)  # the mean of 1 − (1 − p)^k over p uniform on [0, 1]
    clusters = {str(item): str(item // 4) for item in range(160)}
    for _ in range(rounds):
        ease = np.repeat(generator.random(40), 4)
        samples = {
            str(item): [bool(right) for right in generator.random(k + item % 3) < ease[item]] for item in range(160)
        }
        low, high = limits(pass_at_k_interval(samples, k, clusters))
        covered += low <= truth <= high
        low, high = limits(pass_at_k_interval(samples, k))
        naive_covered += low <= truth <= high
    assert 0.92 <= covered / rounds <= 0.98
    assert naive_covered / rounds < 0.85


def test_minimum_detectable_difference_by_hand():
    # (1.959964 + 0.841621) · 0.5 / 20
    assert minimum_detectable_difference(0.5 / math.sqrt(400)) == pytest.approx(0.0700396, abs=1e-7)
    # (1.644854 + 1.281552) · 0.1
    assert minimum_detectable_difference(0.1, power=0.9, level=0.9) == pytest.approx(0.2926406, abs=1e-7)


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    generator = np.random.default_rng(6)
    errors = [standard_error(*families(generator, 100)) for _ in range(50)]
    detectable = minimum_detectable_difference(math.fsum(error or math.nan for error in errors) / len(errors))
    found, rounds = 0, 400
    for seed in range(rounds):
        values, clusters = families(generator, 100, mean=detectable)
        found += limits(bootstrap_interval(values, clusters, num_resamples=600, seed=seed))[0] > 0
    assert 0.75 <= found / rounds <= 0.86


def test_macro_average_by_hand():
    average = macro_average([Interval(0.5, 0.4, 0.7, 100), Interval(0.9, 0.6, 0.95, 20), NOTHING_MEASURED])
    assert average.count == 120
    assert average.mean == pytest.approx(0.7)
    # below: hypot(0.1, 0.3) / 2, above: hypot(0.2, 0.05) / 2
    assert limits(average) == pytest.approx((0.7 - 0.158114, 0.7 + 0.103078), abs=1e-6)


def test_macro_average_of_one_is_itself_and_stays_within_bounds():
    interval = wilson_interval(3, 9)
    assert limits(macro_average([interval])) == pytest.approx(limits(interval))
    low, high = limits(macro_average([wilson_interval(0, 5), wilson_interval(0, 7)]))
    assert low == 0.0 and 0 < high < 1
    assert macro_average([]) == NOTHING_MEASURED
    assert macro_average([interval, Interval(0.5, None, None, 1)]) == Interval((3 / 9 + 0.5) / 2, None, None, 10)
