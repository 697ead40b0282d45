import itertools
import math

import numpy as np
import pytest

from prism.errors import DataError
from prism.evals.statistics import (
    NOTHING_MEASURED,
    Interval,
    macro_average,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    pass_at_k,
    seeds_interval,
    student_t_quantile,
    wilson_interval,
)


def limits(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None and interval.high is not None
    return interval.low, interval.high


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
        (0.975, 1e7, 1.959964),
    ],
)
def test_t_quantile_against_tables(probability: float, freedom: float, quantile: float):
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


def test_seeds_interval_by_hand():
    # mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776445
    interval = seeds_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert interval.mean == 3.0 and interval.count == 5
    assert limits(interval) == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_no_spread_gives_no_limits():
    assert seeds_interval([]) == NOTHING_MEASURED
    assert seeds_interval([0.5]) == Interval(0.5, None, None, 1)
    assert seeds_interval([0.5, 0.5]) == Interval(0.5, None, None, 2)
    assert paired_difference({"a": 1.0}, {"a": 0.5}) == Interval(0.5, None, None, 1)


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


def test_paired_difference_against_the_normal_limit():
    generator = np.random.default_rng(1)
    shared = generator.random(500)
    first = {str(index): value + 0.03 for index, value in enumerate(shared)}
    noise = generator.normal(0, 0.1, 500)
    second = {str(index): value + noise[index] for index, value in enumerate(shared)}
    interval = paired_difference(first, second)
    differences = 0.03 - noise
    half = 1.959964 * differences.std(ddof=1) / math.sqrt(500)
    assert interval.mean == pytest.approx(differences.mean())
    assert limits(interval) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=6e-4)


def test_paired_bootstrap_against_the_exact_resampling_distribution():
    """Two items with differences 0 and 1: resampled means are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4."""
    interval = paired_difference({"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, level=0.4)
    assert limits(interval) == (0.5, 0.5)
    assert limits(paired_difference({"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, level=0.6)) == (0.0, 1.0)


def test_paired_difference_depends_on_seed_and_values_only():
    generator = np.random.default_rng(2)
    first = {str(index): float(value) for index, value in enumerate(generator.random(60))}
    second = {name: float(generator.random()) for name in first}
    reordered = dict(reversed(first.items()))
    assert paired_difference(first, second) == paired_difference(reordered, second)
    assert paired_difference(first, second, seed=1) != paired_difference(first, second, seed=2)
    forward, backward = paired_difference(first, second), paired_difference(second, first)
    assert (-limits(backward)[1], -limits(backward)[0]) == pytest.approx(limits(forward))


def test_paired_difference_needs_the_same_items():
    with pytest.raises(DataError, match=r"2 are on one side only, e\.g\. 'b'"):
        paired_difference({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0})
    assert paired_difference({}, {}) == NOTHING_MEASURED


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    for num_correct in range(7):
        right = [index < num_correct for index in range(6)]
        for k in range(1, 7):
            subsets = list(itertools.combinations(right, k))
            assert pass_at_k(6, num_correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    with pytest.raises(ValueError, match="pass@7"):
        pass_at_k(6, 1, 7)


def test_minimum_detectable_difference_by_hand():
    # (1.959964 + 0.841621) · 0.5 / 20
    assert minimum_detectable_difference(400, 0.5) == pytest.approx(0.0700396, abs=1e-7)
    assert minimum_detectable_difference(1600, 0.5) == pytest.approx(0.0700396 / 2, abs=1e-7)


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
