"""Small SVG charts. Colours come from classes, so the stylesheet decides what they look like in light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prism.report.markup import Html, element, join

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """`colour` is a class of the stylesheet; a point whose y is None is a gap. A faint line is not in the legend.

    `intervals` are (x, low, high), drawn as upright bars.
    """

    label: str
    colour: str
    points: tuple[Point, ...]
    is_faint: bool = False
    intervals: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Marks:
    """What a chart shows beside its data: a shaded y range, horizontal and vertical reference lines."""

    band: tuple[float, float] | None = None
    level: float | None = None
    boundary: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area and the maps from data to pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: float = 400
    height: float = 210
    left: float = 46
    right: float = 14
    top: float = 8
    bottom: float = 34

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 2)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 2
        )


def ticks(low: float, high: float, *, target: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) inside the range, about `target` of them."""
    raw = (high - low) / target
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [
        0.0 if index == 0 else round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)
    ]


def plain(value: float) -> str:
    if abs(value) >= 10000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}".replace("-", "−")


def percent(value: float) -> str:
    return f"{value * 100:.3g}%".replace("-", "−")


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str = "step",
    y_range: tuple[float, float] | None = None,
    label: Callable[[float], str] = plain,
    marks: Marks | None = None,
    is_counted: bool = True,
    is_named: bool = False,
) -> Html:
    """A figure with a legend; one that says so where there is nothing to draw. The x of steps `is_counted`: only
    whole numbers are written at its axis. A line that is alone needs no legend unless it `is_named`."""
    drawn = [line for line in lines if any(y is not None for _, y in line.points)]
    if not drawn:
        return element("figure", _caption(title), element("p", "Not recorded.", class_="absent"), class_="chart")
    marks = marks or Marks()
    frame = Frame(_x_extent(drawn), y_range or _y_extent(drawn, marks))
    parts = [_marks(frame, marks), _axes(frame, x_label, label, is_counted=is_counted)]
    parts += [_line(frame, line, label) for line in sorted(drawn, key=lambda line: not line.is_faint)]
    named = [line for line in drawn if not line.is_faint]
    svg = element(
        "svg", *parts, viewBox=f"0 0 {frame.width} {frame.height}", role="img", aria_label=_spoken(title, named, label)
    )
    items = [element("li", _swatch(line.colour), line.label) for line in named] if len(named) > 1 or is_named else []
    # An empty legend keeps its height, so that the charts of a row stand level.
    return element("figure", _caption(title), element("ul", *items, class_="legend"), svg, class_="chart")


def _caption(title: str) -> Html:
    return element("figcaption", title)


def _swatch(colour: str) -> Html:
    line = element("line", x1=0, y1=4, x2=16, y2=4, class_=f"curve {colour}")
    return element("svg", line, viewBox="0 0 16 8", class_="swatch", aria_hidden="true")


def _spoken(title: str, lines: Sequence[Line], label: Callable[[float], str]) -> str:
    ends = [f"{line.label} ends at {label(last)}" for line in lines if (last := _last(line)) is not None]
    return f"{title}: {'; '.join(ends)}" if ends else title


def _last(line: Line) -> float | None:
    return next((y for _, y in reversed(line.points) if y is not None), None)


def _x_extent(lines: Sequence[Line]) -> tuple[float, float]:
    xs = [x for line in lines for x, _ in line.points]
    low, high = min(xs), max(xs)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _y_extent(lines: Sequence[Line], marks: Marks) -> tuple[float, float]:
    ys = [y for line in lines for _, y in line.points if y is not None]
    ys += [limit for line in lines for _, low, high in line.intervals for limit in (low, high)]
    ys += [value for value in (*(marks.band or ()), marks.level) if value is not None]
    low, high = min(ys), max(ys)
    # An axis that nearly reaches zero starts there: the eye reads heights.
    low = 0.0 if 0 <= low < 0.4 * high else low
    margin = 0.06 * (high - low) or max(0.05 * abs(high), 1e-6)
    return (low if low == 0 else low - margin, high + margin)


def _axes(frame: Frame, x_label: str, label: Callable[[float], str], *, is_counted: bool) -> Html:
    right, floor = frame.width - frame.right, frame.height - frame.bottom
    parts = []
    for value in ticks(*frame.y_range):
        y = frame.y(value)
        parts.append(element("line", x1=frame.left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", label(value), x=frame.left - 6, y=y + 3.5, text_anchor="end"))
    for value in ticks(*frame.x_range, target=6):
        if not is_counted or value == int(value):
            parts.append(element("text", plain(value), x=frame.x(value), y=floor + 14, text_anchor="middle"))
    parts.append(element("line", x1=frame.left, x2=right, y1=floor, y2=floor, class_="axis"))
    parts.append(element("text", x_label, x=right, y=frame.height - 4, text_anchor="end", class_="axis-label"))
    return join(*parts)


def _marks(frame: Frame, marks: Marks) -> Html:
    left, right = frame.left, frame.width - frame.right
    parts = []
    if marks.band:
        top, floor = frame.y(marks.band[1]), frame.y(marks.band[0])
        parts.append(element("rect", x=left, y=top, width=right - left, height=floor - top, class_="band"))
    if marks.level is not None:
        y = frame.y(marks.level)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="level"))
    if marks.boundary is not None and frame.x_range[0] < marks.boundary < frame.x_range[1]:
        x = frame.x(marks.boundary)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.height - frame.bottom, class_="level"))
    return join(*parts)


def runs_of_points(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The stretches between gaps: a missing value interrupts the curve and is never drawn as a number."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            stretches.append([])
        else:
            stretches[-1].append((x, y))
    return [stretch for stretch in stretches if stretch]


def _line(frame: Frame, line: Line, label: Callable[[float], str]) -> Html:
    style = f"curve {line.colour} {'faint' if line.is_faint else ''}".strip()
    parts = []
    for stretch in runs_of_points(line.points):
        pixels = [(frame.x(x), frame.y(y)) for x, y in stretch]
        if len(pixels) == 1:
            parts.append(element("circle", cx=pixels[0][0], cy=pixels[0][1], r=1.8, class_=f"dot {style}"))
        else:
            parts.append(element("polyline", points=" ".join(f"{x:g},{y:g}" for x, y in pixels), class_=style))
    for x, low, high in line.intervals:
        parts.append(element("line", x1=frame.x(x), x2=frame.x(x), y1=frame.y(low), y2=frame.y(high), class_=style))
        middle = next((y for at, y in line.points if at == x), None)
        if middle is not None:
            parts.append(element("circle", cx=frame.x(x), cy=frame.y(middle), r=3, class_=f"fill {line.colour}"))
    last = _last(line)
    hint = element("title", f"{line.label}, last value {label(last)}") if last is not None else None
    return element("g", hint, *parts)
