"""Against printed tables and numbers worked by hand."""

import math
import random
from collections import Counter
from statistics import fmean

import pytest

from prism.report.statistics import (
    Estimate,
    imitators_distance,
    mean_of_paired_differences,
    over_seeds,
    student_t,
    total_variation,
)

# Two-sided 95% points of Student's t as printed in statistical tables.
PRINTED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("freedom", "expected"), PRINTED.items())
def test_student_t_agrees_with_printed_tables(freedom: int, expected: float) -> None:
    assert student_t(freedom) == pytest.approx(expected, abs=5e-4)


def test_student_t_tends_to_the_normal_distribution() -> None:
    assert student_t(5000) == pytest.approx(1.9604, abs=1e-4)


def estimate(mean: float, count: int | None = 10) -> Estimate:
    return Estimate(mean, mean - 0.1, mean + 0.1, count)


def test_three_seeds_by_hand() -> None:
    # Means .5 .6 .7: standard deviation .1, error .1/√3 = .057735, times 4.3027 = .248413.
    result = over_seeds([estimate(0.5), estimate(0.6), estimate(0.7)])
    assert result is not None
    assert (result.mean, result.count, result.num_seeds) == (pytest.approx(0.6), 30, 3)
    assert (result.low, result.high) == (pytest.approx(0.351587, abs=1e-5), pytest.approx(0.848413, abs=1e-5))


def test_one_seed_keeps_its_interval() -> None:
    only = estimate(0.4)
    assert over_seeds([only]) is only
    assert over_seeds([]) is None


def test_seeds_that_agree_keep_the_interval_over_their_items() -> None:
    # ±.1 in each of two seeds: √(.1² + .1²)/2 = .0707107.
    for other in (0.5, 0.5 + 1e-16):
        result = over_seeds([estimate(0.5), estimate(other)])
        assert result is not None
        assert (result.low, result.high) == (pytest.approx(0.4292893), pytest.approx(0.5707107))


def test_seeds_that_agree_but_for_rounding_claim_no_certainty() -> None:
    """Seventeen of 150 questions each, summed in another order."""
    means = (-0.11333333333333333, -0.11333333333333334)
    assert means[0] != means[1]
    result = over_seeds([Estimate(mean, None, None, 150) for mean in means])
    assert result is not None and (result.low, result.high, result.by_seed) == (None, None, means)
    nothing = over_seeds([Estimate(mean, None, None, 150) for mean in (0.0, 1e-17)])
    assert nothing is not None and not nothing.excludes_zero, "what should be 0 is a difference of roundings"


def test_items_that_differ_alike_but_for_rounding_claim_no_certainty() -> None:
    result = mean_of_paired_differences({"color": [0.1, 0.3 - 0.2], "count": [0.0, 0.0]})
    assert 0.1 != 0.3 - 0.2 and result is not None
    assert (result.mean, result.low, result.high, result.count) == (pytest.approx(0.05), None, None, 4)


def test_an_interval_over_seeds_is_no_narrower_than_their_items_allow() -> None:
    # Means .49 .50 .51 would have 4.30265 · .01/√3 = .0248 to both sides. Over the items of the three seeds it is
    # √(3 · .1²)/3 = .057735, and where one of them reaches .4 upwards √(.1² + .1² + .4²)/3 = .141421.
    even = over_seeds([estimate(0.49), estimate(0.5), estimate(0.51)])
    assert even is not None
    assert (even.low, even.high) == (pytest.approx(0.442265), pytest.approx(0.557735))
    skewed = over_seeds([estimate(0.49), Estimate(0.5, 0.4, 0.9, 10), estimate(0.51)])
    assert skewed is not None
    assert (skewed.low, skewed.high) == (pytest.approx(0.442265), pytest.approx(0.641421))


def test_gains_are_called_from_three_seeds_on() -> None:
    found = [over_seeds([estimate(mean) for mean in means]) for means in ([0.5], [0.5, 0.5], [0.5, 0.5, 0.5])]
    assert [each.is_judged for each in found if each] == [False, False, True]
    assert all(each.excludes_zero for each in found if each)


def test_a_missing_count_stays_missing() -> None:
    result = over_seeds([estimate(0.5, None), estimate(0.6)])
    assert result is not None and result.count is None


def test_paired_difference_of_one_benchmark_by_hand() -> None:
    # Differences 1 0 1 0 −1: mean .2, variance (.64 + .04 + .64 + .04 + 1.44)/4 = .7, error √(.7/5) = .374166,
    # times t with 4 degrees of freedom, 2.7764, = 1.03886.
    result = mean_of_paired_differences({"color": [1, 0, 1, 0, -1]})
    assert result is not None
    assert (result.mean, result.count) == (pytest.approx(0.2), 5)
    assert result.low == pytest.approx(0.2 - 1.03886, abs=1e-4)
    assert result.high == pytest.approx(0.2 + 1.03886, abs=1e-4)


def test_benchmarks_weigh_the_same_whatever_their_size() -> None:
    # Means .5 (n 2, variance .5) and 0 (n 4, variance 2/3): centre .25, error √(.25 + 1/6)/2 = .322749,
    # times t with 6 − 2 = 4 degrees of freedom, 2.7764.
    result = mean_of_paired_differences({"a": [1, 0], "b": [1, -1, 0, 0]})
    assert result is not None
    assert (result.mean, result.count) == (0.25, 6)
    assert result.high == pytest.approx(0.25 + 2.77645 * math.sqrt(0.25 + 1 / 6) / 2, abs=1e-4)


def test_a_benchmark_without_pairs_leaves_the_average_missing() -> None:
    assert mean_of_paired_differences({"a": [1.0, 0.0], "b": []}) is None
    assert mean_of_paired_differences({}) is None


def test_a_single_pair_has_no_interval() -> None:
    assert mean_of_paired_differences({"a": [1.0]}) == Estimate(1.0, None, None, 1)


def test_swapping_sides_mirrors_the_interval() -> None:
    values = [1.0, 0.0, 0.5, -0.5, 1.0]
    there = mean_of_paired_differences({"a": values})
    back = mean_of_paired_differences({"a": [-value for value in values]})
    assert there is not None and back is not None and there.low is not None and back.high is not None
    assert (there.mean, there.low) == (pytest.approx(-back.mean), pytest.approx(-back.high))


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.1, 0.1, False), (None, None, False)]
)
def test_excludes_zero(low: float | None, high: float | None, expected: bool) -> None:
    assert Estimate(0.1, low, high, 3).excludes_zero is expected


def test_total_variation() -> None:
    assert total_variation({3: 1, 4: 1}, {3: 10, 4: 10}) == 0
    assert total_variation({3: 5}, {4: 5}) == 1
    # Shares .5 .5 0 against .25 .25 .5: half of (.25 + .25 + .5).
    assert total_variation({1: 2, 2: 2}, {1: 1, 2: 1, 3: 2}) == 0.5
    assert total_variation({}, {1: 1}) is None


def test_the_distance_of_a_perfect_imitator_by_hand() -> None:
    even = {3: 1, 4: 1}
    # One draw is half of the distribution away; of two, half are 1 : 1 and level, the others as far away as one.
    assert imitators_distance(even, 1) == pytest.approx(0.5)
    assert imitators_distance(even, 2) == pytest.approx(0.25)
    # Shares ¾ and ¼, two draws: 2 : 0 (9/16) is ¼ away, 1 : 1 (6/16) ¼, 0 : 2 (1/16) ¾.
    assert imitators_distance({3: 3, 4: 1}, 2) == pytest.approx((9 / 4 + 6 / 4 + 3 / 4) / 16)
    assert imitators_distance({3: 5}, 9) == 0
    assert imitators_distance({}, 9) is imitators_distance(even, 0) is None


def test_the_distance_of_a_perfect_imitator_is_what_draws_have_on_average() -> None:
    rng, shares = random.Random(0), {2: 5, 3: 20, 4: 60, 5: 15}
    draws = [Counter(rng.choices([*shares], [*shares.values()], k=200)) for _ in range(2000)]
    mean = fmean(total_variation(draw, shares) or 0.0 for draw in draws)
    assert imitators_distance(shares, 200) == pytest.approx(mean, rel=0.02)
