"""Bars against the teacher's outline, and differences around zero."""

import math
from collections.abc import Mapping, Sequence

from prism.report.charts import Frame, percent, plain, ticks
from prism.report.markup import Html, element, join
from prism.report.statistics import Estimate

_CHARACTER = 6.5
"""Pixels that one takes at most."""


def histogram(
    title: str,
    counts: Mapping[int, int],
    teacher: Mapping[int, int],
    *,
    bins: Sequence[range],
    top: float,
    colour: str,
) -> Html:
    """Shares per bin as bars, the teacher's as an outline; `top` is the share at the upper edge, shared by panels."""
    frame = Frame(
        (bins[0].start - 0.5, bins[-1].stop - 0.5), (0, top), width=270, height=140, left=34, right=6, bottom=20
    )
    floor = frame.y(0)
    parts = [_histogram_axes(frame, bins)]
    for span, share in zip(bins, shares(counts, bins), strict=True):
        if share:
            x, y = frame.x(span.start - 0.42 * len(span) + (len(span) - 1) / 2), frame.y(share)
            width = frame.x(span.start + 0.84 * len(span)) - frame.x(span.start)
            hint = element("title", f"{_bin_name(span)}: {percent(share)}")
            parts.append(
                element("g", hint, element("rect", x=x, y=y, width=width, height=floor - y, class_=f"bar {colour}"))
            )
    if teacher:
        steps = [f"M{frame.x(bins[0].start - 0.5):g},{floor:g}"]
        for span, share in zip(bins, shares(teacher, bins), strict=True):
            steps.append(f"V{frame.y(share):g}H{frame.x(span.stop - 0.5):g}")
        parts.append(element("path", d="".join([*steps, f"V{floor:g}"]), class_="teacher"))
    svg = element("svg", *parts, viewBox=f"0 0 {frame.width:g} {frame.height:g}", role="img", aria_label=title)
    return svg


def _histogram_axes(frame: Frame, bins: Sequence[range]) -> Html:
    right, floor = frame.width - frame.right, frame.y(0)
    parts = []
    for value in ticks(0, frame.y_range[1], target=3):
        y = frame.y(value)
        parts.append(element("line", x1=frame.left, x2=right, y1=y, y2=y, class_="grid" if value else "axis"))
        parts.append(element("text", percent(value), x=frame.left - 4, y=y + 3.5, text_anchor="end"))
    longest = max(len(_bin_name(span)) for span in bins)
    every = math.ceil(len(bins) / min(8, (right - frame.left) // (_CHARACTER * longest + 8)))
    for span in bins[::every]:
        parts.append(
            element(
                "text", _bin_name(span), x=frame.x((span.start + span.stop - 1) / 2), y=floor + 13, text_anchor="middle"
            )
        )
    return join(*parts)


def _bin_name(span: range) -> str:
    return str(span.start) if len(span) == 1 else f"{span.start}–{span.stop - 1}"


def integer_bins(counts: Sequence[Mapping[int, int]], *, limit: int = 24) -> list[range]:
    """Bins of equal whole width over all values seen, at most `limit` of them."""
    values = [value for count in counts for value in count]
    low, high = min(values), max(values)
    width = math.ceil((high - low + 1) / limit)
    return [range(start, start + width) for start in range(low, high + 1, width)]


def shares(counts: Mapping[int, int], bins: Sequence[range]) -> list[float]:
    total = sum(counts.values())
    return [sum(counts.get(value, 0) for value in span) / total if total else 0.0 for span in bins]


def forest_plot(title: str, rows: Sequence[tuple[str, str, Estimate]], *, x_range: tuple[float, float]) -> Html:
    """Differences in points around a zero line, with their intervals or a dot for each of two seeds; `rows` are
    (label, colour, estimate)."""
    row_height, left = 24.0, max(92.0, 8 + 6.2 * max(len(label) for label, _, _ in rows))
    frame = Frame(x_range, (0, 1), width=194 + left, height=34 + row_height * len(rows), left=left, right=8, bottom=24)
    floor = frame.height - frame.bottom
    parts = []
    for value in ticks(*x_range, target=4):
        x = frame.x(value)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=floor, class_="grid" if value else "axis"))
        parts.append(element("text", plain(value * 100), x=x, y=floor + 14, text_anchor="middle"))
    for index, (label, colour, gain) in enumerate(rows):
        y = frame.top + 4 + row_height * (index + 0.5)
        parts.append(element("text", label, x=left - 8, y=y + 3.5, text_anchor="end", class_="row-label"))
        extent = [frame.x(value) for value in gain.extent]
        if gain.is_pair:
            parts += [element("circle", cx=x, cy=y, r=1.8, class_=f"fill {colour}") for x in extent]
        elif extent:
            parts.append(element("line", x1=extent[0], x2=extent[1], y1=y, y2=y, class_=f"curve {colour}"))
        hint = element("title", f"{label}: {signed_points(gain.mean)} points")
        parts.append(element("g", hint, element("circle", cx=frame.x(gain.mean), cy=y, r=3.4, class_=f"fill {colour}")))
    svg = element("svg", *parts, viewBox=f"0 0 {frame.width:g} {frame.height:g}", role="img", aria_label=title)
    return element("figure", element("figcaption", title), svg, class_="chart")


def signed_points(value: float) -> str:
    """A difference of shares in percentage points, with its sign: 0.031 → +3.1."""
    shown = f"{value * 100:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")
