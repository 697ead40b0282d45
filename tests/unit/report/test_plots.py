"""Histograms and difference plots."""

import re

import pytest

from prism.report.plots import forest_plot, histogram, integer_bins, shares, signed_points
from prism.report.statistics import Estimate


def test_bins_cover_every_value_once() -> None:
    bins = integer_bins([{1: 1, 4: 2}, {9: 1}])
    assert [(span.start, span.stop) for span in bins] == [(value, value + 1) for value in range(1, 10)]


def test_wide_ranges_share_bins() -> None:
    bins = integer_bins([{0: 1, 99: 1}])
    assert len(bins) <= 24
    assert {len(span) for span in bins} == {5}
    assert sum(shares({0: 1, 99: 1}, bins)) == 1


def test_shares_by_hand() -> None:
    assert shares({3: 1, 4: 3}, integer_bins([{2: 1, 4: 1}])) == [0, 0.25, 0.75]
    assert shares({}, [range(0, 1)]) == [0]


def test_bar_heights_are_shares_and_the_outline_is_the_teacher() -> None:
    bins = integer_bins([{3: 1, 4: 1}])
    svg = histogram("t", {3: 1, 4: 3}, {3: 1}, bins=bins, top=1.0, colour="c-sft")
    heights = [float(value) for value in re.findall(r'height="([\d.]+)" class="bar', svg)]
    assert heights[1] == pytest.approx(3 * heights[0], rel=1e-3)
    outline = re.search(r'd="M[\d.]+,([\d.]+)V([\d.]+)', svg)
    assert outline is not None
    # Every teacher response is in the first bin: its outline is four times as high as a bar of one quarter.
    assert float(outline[1]) - float(outline[2]) == pytest.approx(4 * heights[0], rel=1e-3)


def test_without_a_teacher_there_is_no_outline() -> None:
    svg = histogram("t", {3: 1}, {}, bins=[range(3, 4)], top=1.0, colour="c-sft")
    assert 'class="teacher"' not in svg


def test_forest_plot_places_mean_inside_its_interval_and_zero_where_it_is() -> None:
    svg = forest_plot("t", [("a", "c-align", Estimate(0.1, 0.0, 0.2, 5))], x_range=(-0.2, 0.2))
    zero = re.search(r'<line x1="([\d.]+)"[^>]* class="axis"', svg)
    whisker = re.search(r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]* class="curve c-align"', svg)
    dot = re.search(r'<circle cx="([\d.]+)"', svg)
    assert zero and whisker and dot
    assert float(whisker[1]) == pytest.approx(float(zero[1]))
    assert float(dot[1]) == pytest.approx((float(whisker[1]) + float(whisker[2])) / 2, abs=0.02)


def test_the_plot_of_two_seeds_has_a_dot_for_each() -> None:
    svg = forest_plot("t", [("a", "c-align", Estimate(0.1, -0.9, 1.1, 5, 2, (0.0, 0.2)))], x_range=(-0.2, 0.4))
    places = sorted(float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg))
    assert len(places) == 3 and places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.02)
    assert 'class="curve' not in svg


def test_a_difference_without_interval_is_a_dot_alone() -> None:
    svg = forest_plot("t", [("a", "c-align", Estimate(0.1, None, None, 1))], x_range=(-0.2, 0.2))
    assert "<circle" in svg
    assert 'class="curve' not in svg


@pytest.mark.parametrize(("value", "shown"), [(0.031, "+3.1"), (-0.2, "−20.0"), (0.0001, "0.0"), (-0.0001, "0.0")])
def test_signed_points(value: float, shown: str) -> None:
    assert signed_points(value) == shown
