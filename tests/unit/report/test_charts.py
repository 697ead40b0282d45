"""Charts: round ticks, gaps that stay gaps, pixels that follow the data."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.report.charts import Line, Marks, line_chart, percent, plain, runs_of_points, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 100, [0, 20, 40, 60, 80, 100]), (-0.3, 0.3, [-0.2, 0.0, 0.2])],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-4, 1e6))
def test_ticks_lie_in_the_range_and_are_few(low: float, span: float) -> None:
    high = low + span
    found = ticks(low, high)
    assert all(low - 1e-6 * span <= value <= high + 1e-6 * span for value in found)
    assert len(found) <= 7


def test_numbers_are_short() -> None:
    assert [plain(value) for value in (0, 0.05, -1.5, 40, 12345)] == ["0", "0.05", "−1.5", "40", "12.35k"]
    assert percent(0.65) == "65%"


def test_a_missing_value_interrupts_the_curve() -> None:
    points = [(1, 0.5), (2, 0.6), (3, None), (4, 0.7)]
    assert runs_of_points(points) == [[(1, 0.5), (2, 0.6)], [(4, 0.7)]]


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]+)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in points.split()] for points in found]  # type: ignore[misc]


def test_a_gap_splits_the_polyline_and_a_lone_point_becomes_a_dot() -> None:
    svg = line_chart("t", [Line("a", "c-sft", ((1, 0.2), (2, 0.4), (3, None), (4, 0.3)))], y_range=(0, 1))
    assert [len(line) for line in polylines(svg)] == [2]
    assert svg.count("<circle") == 1


def test_pixels_are_linear_in_the_data() -> None:
    svg = line_chart("t", [Line("a", "c-sft", ((0, 0.0), (5, 0.5), (10, 1.0)))], y_range=(0, 1))
    (first, middle, last) = polylines(svg)[0]
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2))
    assert last[1] < first[1], "up is a smaller y in SVG"


def test_a_curve_of_nothing_but_gaps_is_said_to_be_missing() -> None:
    figure = line_chart("Score gap", [Line("a", "c-sft", ((1, None), (2, None)))])
    assert "Not recorded." in figure
    assert "<svg" not in figure


def test_faint_lines_are_drawn_but_not_in_the_legend() -> None:
    lines = [
        Line("seed 0", "c-sft", ((1, 0.1), (2, 0.2)), is_faint=True),
        Line("one", "c-sft", ((1, 0.1), (2, 0.3))),
        Line("two", "c-align", ((1, 0.1), (2, 0.4))),
    ]
    figure = line_chart("t", lines)
    assert len(polylines(figure)) == 3
    assert re.findall(r"</svg>(\w+)</li>", figure) == ["one", "two"]


def test_band_covers_its_range() -> None:
    svg = line_chart("t", [Line("a", "c-sft", ((1, 0.0), (2, 1.0)))], y_range=(0, 1), marks=Marks(band=(0.65, 0.85)))
    (low, high) = polylines(svg)[0][0][1], polylines(svg)[0][1][1]
    match = re.search(r'<rect [^>]*y="([\d.]+)" [^>]*height="([\d.]+)" class="band"', svg)
    assert match is not None
    top, height = float(match[1]), float(match[2])
    assert top == pytest.approx(low + 0.85 * (high - low), abs=0.02)
    assert height == pytest.approx(0.2 * (low - high), abs=0.02)


def test_constant_and_single_point_series_can_be_drawn() -> None:
    assert "<polyline" in line_chart("t", [Line("a", "c-sft", ((1, 0.0), (2, 0.0)))])
    assert "<circle" in line_chart("t", [Line("a", "c-sft", ((7, 3.0),))])


def test_titles_are_text() -> None:
    assert "<b>" not in line_chart("<b>", [Line("<b>", "c-sft", ((1, 1.0), (2, 2.0)))])
