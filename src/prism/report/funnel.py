"""Rows through the steps of curation: bars as long as there are rows, and a table with every reason."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism.report.markup import Html, element, join

_ROW_HEIGHT = 26.0
_WIDTH = 860.0
_LEFT = 190.0
_RIGHT = 96.0
_PARTS = {
    "kept": ("c-prism-grpo", "kept"),
    "passed": ("c-sft", "passed on"),
    "dropped": ("c-sft-grpo", "dropped"),
    "pending": ("c-base", "still to do"),
}

Entry = Mapping[str, Any]


def parts_of(entry: Entry) -> dict[str, int]:
    return {
        "kept": int(entry["num_kept"]),
        "passed": sum(entry["passed"].values()),
        "dropped": sum(entry["dropped"].values()),
        "pending": int(entry["num_pending"]),
    }


def funnel_chart(entries: Sequence[Entry]) -> Html:
    """One bar per step, all on the scale of the longest; a step's parts add up to the rows that reached it."""
    if not entries:
        return element("p", "Nothing has been imported.", class_="absent")
    longest = max(1, *(sum(parts_of(entry).values()) for entry in entries))
    height = _ROW_HEIGHT * len(entries) + 8
    bars = [_bar(entry, 4 + _ROW_HEIGHT * index, longest) for index, entry in enumerate(entries)]
    spoken = "; ".join(f"{entry['step']}: {int(entry['num_in']):,} rows" for entry in entries)
    svg = element("svg", *bars, viewBox=f"0 0 {_WIDTH:g} {height:g}", role="img", aria_label=f"Funnel: {spoken}")
    legend = [element("li", _swatch(colour), name) for colour, name in _PARTS.values()]
    return element("figure", element("ul", *legend, class_="legend"), svg, class_="chart wide")


def _bar(entry: Entry, y: float, longest: int) -> Html:
    x, scale = _LEFT, (_WIDTH - _LEFT - _RIGHT) / longest
    drawn = []
    for name, count in parts_of(entry).items():
        if count:
            colour, title = _PARTS[name]
            hint = element("title", f"{entry['step']}: {count:,} {title}")
            # A single row of a million still shows.
            width = max(1.0, count * scale)
            rect = element("rect", x=round(x, 2), y=y, width=round(width, 2), height=18, class_=f"bar {colour}")
            drawn.append(element("g", hint, rect))
            x += width
    label = element("text", str(entry["step"])[:32], x=_LEFT - 8, y=y + 13, text_anchor="end", class_="row-label")
    total = element("text", f"{int(entry['num_in']):,}", x=round(x + 8, 2), y=y + 13)
    return join(label, *drawn, total)


def _swatch(colour: str) -> Html:
    bar = element("rect", x=2, y=0, width=12, height=8, class_=f"bar {colour}")
    return element("svg", bar, viewBox="0 0 16 8", class_="swatch", aria_hidden="true")


def funnel_table(entries: Sequence[Entry]) -> Html:
    names = ("Step", "Rows", "Kept", "Passed on", "Dropped", "To do", "Why, and how often")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    rows = [element("tr", *_cells(entry)) for entry in entries]
    table = element("table", element("thead", head), element("tbody", *rows), class_="funnel")
    return element("div", table, class_="scroll")


def _cells(entry: Entry) -> list[Html]:
    parts = parts_of(entry)
    reasons = [
        element("li", f"{count:,} {status}: {reason}")
        for status in ("dropped", "passed")
        for reason, count in sorted(entry[status].items(), key=lambda item: (-item[1], item[0]))
    ]
    return [
        element("th", str(entry["step"]), scope="row"),
        element("td", f"{int(entry['num_in']):,}"),
        *(element("td", f"{parts[name]:,}") for name in ("kept", "passed", "dropped", "pending")),
        element("td", element("ul", *reasons) if reasons else "–", class_="left"),
    ]
