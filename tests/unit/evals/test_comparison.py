import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from prism.errors import DataError
from prism.evals.benchmarks import BENCHMARKS
from prism.evals.benchmarks.benchmark import Headline, ItemScore, Profile
from prism.evals.comparison import Comparison, average_comparison, compare, format_comparison
from prism.evals.statistics import Interval


def score(
    item: str,
    is_correct: bool | None,
    *,
    cluster: str | None = None,
    sample: int = 0,
    benchmark: str = "shapes",
    profile: Profile = "strict",
) -> ItemScore:
    return ItemScore(benchmark, item, cluster or item, profile, is_correct, rule="stated", sample=sample)


def scores(verdicts: Sequence[bool | None], *, family_size: int = 1) -> list[ItemScore]:
    return [score(f"i{index}", right, cluster=f"f{index // family_size}") for index, right in enumerate(verdicts)]


def families_right(held: Sequence[ItemScore]) -> dict[str, float]:
    """A family counts as right in a sample if all its items are."""
    samples = defaultdict(list)
    for found in held:
        samples[found.sample].append(found.is_correct is True)
    return {held[0].cluster: sum(map(all, samples.values())) / len(samples)}


def comparison(benchmark: str, difference: Interval, detectable: float | None, *, first: float = 0.6) -> Comparison:
    return Comparison(
        benchmark, "strict", "accuracy", first, first - (difference.mean or 0), difference, detectable, 1200, 300
    )


def test_comparison_by_hand():
    first = scores([True, True, True, False, True, None], family_size=2)
    second = scores([True, False, False, False, False, True], family_size=2)
    found = compare(first, second)
    # Paired by item 0, 1 | 1, 0 | 1, −1: family sums 1, 1, 0 of two items each, mean 1/3, residuals 1/3, 1/3, −2/3.
    error = math.sqrt(3 / 2 * (1 / 9 + 1 / 9 + 4 / 9)) / 6
    assert (found.benchmark, found.profile, found.metric) == ("shapes", "strict", "accuracy")
    assert (found.num_items, found.num_clusters) == (6, 3)
    assert (found.first, found.second) == pytest.approx((4 / 6, 2 / 6))
    assert found.difference.mean == pytest.approx(1 / 3) and found.difference.count == 3
    # Of the 27 resamples of three families one has mean 0 (3.7%) and eight have 1/2 (29.6%): these bound 95%.
    assert (found.difference.low, found.difference.high) == (0.0, 0.5)
    assert found.minimum_detectable == pytest.approx((1.959964 + 0.841621) * error, rel=1e-6)


def test_interval_against_the_normal_limit_of_paired_family_means():
    generator = np.random.default_rng(0)
    ease = np.repeat(generator.random(1500), 4)
    verdicts = [[bool(right) for right in generator.random(6000) < ease + shift] for shift in (0.05, 0.0)]
    found = compare(scores(verdicts[0], family_size=4), scores(verdicts[1], family_size=4))
    differences = np.subtract(*np.array(verdicts, dtype=float)).reshape(1500, 4).mean(axis=1)
    half = 1.959964 * differences.std(ddof=1) / math.sqrt(1500)
    assert found.difference.mean == pytest.approx(differences.mean())
    assert found.difference.low == pytest.approx(differences.mean() - half, abs=6e-4)
    assert found.difference.high == pytest.approx(differences.mean() + half, abs=6e-4)


def test_samples_are_averaged_before_items():
    first = [score("a", True, sample=index) for index in range(8)] + [score("b", False)]
    second = [score("a", index < 2, sample=index) for index in range(4)] + [score("b", False), score("b", None)]
    found = compare(first, second)
    assert (found.first, found.second, found.difference.mean) == (0.5, 0.25, 0.25)
    assert found.num_items == 2


def test_a_metric_of_families():
    first = scores([True, True, True, False, True, True], family_size=2)
    second = scores([True, False, True, True, False, False], family_size=2)
    second += [replace(found, is_correct=True, sample=1) for found in second]
    found = compare(first, second, headline=Headline("whole", families_right))
    # Families right: 1, 0, 1 against 1/2, 1, 1/2.
    assert found.metric == "whole" and (found.num_items, found.num_clusters) == (6, 3)
    assert (found.first, found.second) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.difference.mean == pytest.approx(0)
    assert (found.difference.low, found.difference.high) == (-1.0, 0.5)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_compared_by_the_first_of_its_metrics(name: str) -> None:
    """Both forms of MMMU-Pro, both parts of each of We-Math's families; two samples of everything."""
    benchmark, generator = BENCHMARKS[name], np.random.default_rng(2)
    held = [
        replace(
            score(f"{family}/{part}", bool(right), cluster=f"f{family}", sample=sample, benchmark=name),
            keys={"family_steps": "1", "part": part, "form": "standard" if part == "1" else "vision", "category": "VD"}
            | {"figure_id": str(family), "question_id": part},
        )
        for family in range(20)
        for part in ("1", "multi")
        for sample, right in enumerate(generator.random(2) < 0.6)
    ]
    found, (metric, interval) = (
        compare(held, held, headline=benchmark.headline),
        next(iter(benchmark.metrics(held).items())),
    )
    assert found.metric == metric
    assert found.first == pytest.approx(interval.mean)


def test_a_question_of_mmmu_pro_counts_where_both_forms_were_asked() -> None:
    asked = [("standard", question) for question in range(4)] + [("vision", question) for question in range(2)]
    held = [
        replace(
            score(f"{form}/{question}", question > 0, cluster=str(question)), benchmark="mmmu_pro", keys={"form": form}
        )
        for form, question in asked
    ]
    found = compare(held, held, headline=BENCHMARKS["mmmu_pro"].headline)
    assert (found.first, found.difference.count) == (0.5, 2)


def test_comparison_is_antisymmetric_and_ignores_the_order_of_scores():
    generator = np.random.default_rng(1)
    first = scores([bool(right) for right in generator.random(60) < 0.6], family_size=3)
    second = scores([bool(right) for right in generator.random(60) < 0.4], family_size=3)
    forward, backward = compare(first, second), compare(second, first)
    assert compare(first[::-1], second) == forward
    assert compare(first, second, seed=1).difference != forward.difference
    assert forward.difference.low is not None and backward.difference.high is not None
    assert backward.difference.high == pytest.approx(-forward.difference.low)
    assert backward.minimum_detectable == forward.minimum_detectable


def test_equal_checkpoints_claim_no_certainty():
    same = scores([True, False, True])
    found = compare(same, same)
    assert found.difference == Interval(0.0, None, None, 3) and found.minimum_detectable is None


def test_items_without_a_unit_of_the_metric_have_no_value():
    found = compare(scores([True]), scores([False]), headline=Headline("whole", lambda held: {}))
    assert (found.first, found.second, found.difference.mean, found.minimum_detectable) == (None, None, None, None)
    assert found.num_items == 1


def test_both_sides_need_the_same_items_in_the_same_families():
    few, many = scores([True] * 2), scores([True] * 5)
    for first, second in ((few, many), (many, few), ([], many[2:])):
        with pytest.raises(DataError, match=r"shapes: .* 3 are on one side only, e\.g\. 'i2'"):
            compare(first, second)
    with pytest.raises(DataError, match=r"2 items are in another family .* 'i1' in 'f1' and 'f0'"):
        compare(scores([True] * 3), scores([True] * 3, family_size=2))


def test_one_benchmark_and_profile_at_a_time():
    with pytest.raises(DataError, match="not of shapes/prism, shapes/strict"):
        compare([score("a", True)], [score("a", True, profile="prism")])
    with pytest.raises(DataError, match="not of charts/strict, shapes/strict"):
        compare([score("a", True), score("b", True, benchmark="charts")], [score("a", True)])
    with pytest.raises(DataError, match="not of no scores"):
        compare([], [])


def test_units_must_be_paired_and_in_one_family():
    def only_right(held: Sequence[ItemScore]) -> dict[str, float]:
        return {found.item_id: 1.0 for found in held if found.is_correct}

    with pytest.raises(ValueError, match="'precision' depend on the answers"):
        compare(scores([True, True]), scores([True, False]), headline=Headline("precision", only_right))
    with pytest.raises(ValueError, match="in two clusters"):
        compare(scores([True] * 2), scores([True] * 2), headline=Headline("all", lambda held: {"all": 1.0}))


def test_average_by_hand():
    found = average_comparison(
        [
            comparison("shapes", Interval(0.10, 0.06, 0.16, 300), 0.05),
            comparison("charts", Interval(-0.02, -0.05, 0.06, 200), 0.12, first=0.4),
        ]
    )
    assert (found.benchmark, found.num_items, found.num_clusters) == ("average", 2400, 600)
    assert (found.first, found.second) == (pytest.approx(0.5), pytest.approx(0.46))
    # below hypot(0.04, 0.03) / 2, above hypot(0.06, 0.08) / 2, detectable hypot(0.05, 0.12) / 2
    assert found.difference.mean == pytest.approx(0.04)
    assert found.difference.low == pytest.approx(0.04 - 0.025)
    assert found.difference.high == pytest.approx(0.04 + 0.05)
    assert found.minimum_detectable == pytest.approx(0.065)


def test_average_leaves_out_what_was_not_measured_but_not_what_has_no_spread():
    shapes = comparison("shapes", Interval(0.10, 0.06, 0.16, 300), 0.05)
    nothing = compare([score("a", True, benchmark="maps")], [score("a", True, benchmark="maps")])
    empty = replace(nothing, first=None, second=None, difference=Interval(None, None, None, 0))
    average = average_comparison([shapes, empty])
    assert (average.first, average.num_items, average.minimum_detectable) == (0.6, 1200, 0.05)
    assert average.difference.low == pytest.approx(0.06)
    average = average_comparison([shapes, nothing])
    assert average.difference == Interval(0.05, None, None, 301) and average.minimum_detectable is None
    assert average_comparison([empty]).first is None


def test_average_takes_each_benchmark_once_and_one_profile():
    shapes = comparison("shapes", Interval(0.10, 0.06, 0.16, 300), 0.05)
    for others in ([], [shapes, shapes], [shapes, replace(shapes, benchmark="charts", profile="prism")]):
        with pytest.raises(ValueError, match="one comparison of each benchmark"):
            average_comparison(others)


def test_average_covers_and_finds_what_it_says():
    """Two benchmarks of different sizes, whose true differences lie 2 points above and below the detectable one."""
    generator = np.random.default_rng(2)

    def measured(num_families: int, size: int, gain: float, benchmark: str) -> Comparison:
        ease = np.repeat(0.3 + 0.2 * generator.random(num_families), size)
        moved = np.repeat(generator.normal(gain, 0.1, num_families), size)
        sides = []
        for shift in (moved, 0.0):
            right = generator.random(num_families * size) < ease + shift
            sides.append(
                [
                    score(f"{index}", bool(hit), cluster=f"{index // size}", benchmark=benchmark)
                    for index, hit in enumerate(right)
                ]
            )
        return compare(*sides, num_resamples=500)

    planned = average_comparison([measured(60, 3, 0.1, "shapes"), measured(30, 5, 0.1, "charts")]).minimum_detectable
    assert planned is not None
    covered, found, rounds = 0, 0, 150
    for _ in range(rounds):
        average = average_comparison(
            [measured(60, 3, planned + 0.02, "shapes"), measured(30, 5, planned - 0.02, "charts")]
        )
        low, high = average.difference.low, average.difference.high
        assert low is not None and high is not None
        covered += low <= planned <= high
        found += low > 0
    assert 0.90 <= covered / rounds <= 0.99
    assert 0.70 <= found / rounds <= 0.90


def test_table():
    shapes = replace(comparison("shapes", Interval(0.101, 0.062, 0.158, 300), 0.051), first=0.6, second=0.499)
    charts = comparison("charts", Interval(-0.0203, -0.052, 0.0004, 200), None)
    same = replace(shapes, profile="prism", metric="fAcc", difference=Interval(0.0, None, None, 300))
    empty = replace(same, first=None, second=None, difference=Interval(None, None, None, 0), minimum_detectable=None)
    text = format_comparison([shapes, charts, same, empty], "align", "sft")
    strict, prism, legend = text.split("\n\n")
    assert strict.splitlines() == [
        "strict  metric    align   sft  difference  95% interval  MDD  items  families",
        "shapes  accuracy   60.0  49.9       +10.1   [6.2, 15.8]  5.1  1,200       300",
        "charts  accuracy   60.0  62.0        −2.0   [−5.2, 0.0]    –  1,200       300",
    ]
    assert prism.splitlines() == [
        "prism   metric  align   sft  difference  95% interval  MDD  items  families",
        "shapes  fAcc     60.0  49.9         0.0             –  5.1  1,200       300",
        "shapes  fAcc        –     –           –             –    –  1,200       300",
    ]
    assert "align − sft" in legend and "80% power" in legend
