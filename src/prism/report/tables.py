"""The results section: findings in words, differences as a plot, and every number in one table."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from prism.report.identity import stage_colour, stage_title
from prism.report.markup import Html, element, join
from prism.report.plots import forest_plot, signed_points
from prism.report.results import ALL, AVERAGES, IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, Column, ResultRow, ResultsTable
from prism.report.rundir import Run
from prism.report.statistics import Estimate

SCOPES = {
    IN_DISTRIBUTION: "In-distribution",
    OUT_OF_DISTRIBUTION: "Out-of-distribution",
    ALL: "All sub-benchmarks",
}


def results_section(run: Run, tables: Sequence[ResultsTable]) -> Html:
    if not run.evaluated_names:
        body = element("p", "No checkpoint of this run has been evaluated.", class_="absent")
        return element("section", element("h2", "Results"), body, id="results")
    lead = "Every checkpoint on every sub-benchmark. Averages give each sub-benchmark the same weight."
    views = [
        element("div", findings(run, table), _forests(run, table), _grid(run, table), class_=f"only-{table.mode}")
        for table in tables
    ]
    return element(
        "section",
        element("h2", "Results"),
        element("p", lead, class_="lead"),
        *views,
        element("p", interval_note(len(run.seeds)), class_="note"),
        element("p", _pairing_note(), class_="note"),
        id="results",
    )


def interval_note(num_seeds: int, *, units: str = "test items", is_most: bool = False) -> str:
    """What stands beside a mean over `num_seeds` seeds, or over so many where it `is_most`; within a seed intervals
    are over `units`."""
    if num_seeds < 2:
        return f"95% intervals are over {units}: one seed says nothing about how runs vary."
    if num_seeds == 2:
        text = (
            "Means over two seeds and, beside each, their values in the order of the seeds: two say too little about "
            f"how runs vary to give an interval. n counts {units} over both."
        )
        return f"{text} What has a single seed has an interval over {units}."
    return (
        f"Means over {'up to ' if is_most else ''}{num_seeds} seeds with 95% intervals over seeds and {units}: "
        f"Student's over the seeds' means, and no narrower than the {units} within the seeds allow; n counts {units} "
        f"over all seeds. What has two seeds shows the value of each, what has one an interval over {units}."
    )


def _pairing_note() -> str:
    return (
        "Differences are paired item by item within a seed (an item's samples are averaged first), then put together "
        f"over seeds as above. {CHANCE_NOTE}"
    )


CHANCE_NOTE = (
    "▲ and ▼ mark intervals that exclude zero, of three seeds and more: what fewer show may be the chance of a run. "
    "Many intervals stand side by side here: one in twenty excludes zero by chance alone."
)


def findings(run: Run, table: ResultsTable) -> Html:
    """One sentence for each run of RLVR from the aligned policy: its paired difference overall, judged."""
    overall = table.column_index(ALL, "accuracy")
    planned = run.planned
    items = [
        finding(
            f"{stage_title(row.stage)} against {stage_title(row.baseline)}",
            row.gains[overall],
            mode=table.mode,
            colour=stage_colour(run, row.stage),
        )
        for row in table.rows
        if row.baseline and row.stage in planned and planned[row.stage].start == "align"
    ]
    if not items:
        text = "No aligned policy and its matched-budget baseline have both been trained and evaluated yet."
        if not any(stage.is_baseline for stage in planned.values()):
            text = "The recipe asks for no matched-budget baseline to compare with."
        return element("p", text, class_="absent")
    return element("ul", *items, class_="findings")


def finding(pair: str, gain: Estimate | None, *, mode: str, colour: str) -> Html:
    """One list item; `pair` says what is compared with what."""
    if gain is None:
        return element("li", f"{pair}: not every sub-benchmark was answered by both ({mode}).", class_=colour)
    if not gain.is_judged:
        verdict = f"{'Two seeds' if gain.num_seeds > 1 else 'One seed'} cannot tell it from how runs vary."
    elif gain.low is None or gain.high is None:
        verdict = "No interval can be given."
    elif gain.excludes_zero:
        verdict = f"A {'gain' if gain.mean > 0 else 'loss'}."
    else:
        verdict = "Not distinguishable from zero."
    basis = f"{gain.count:,} pairs, {gain.num_seeds} seed{'s' if gain.num_seeds > 1 else ''}"
    details = f" {interval_text(gain, signed=True)} points of {mode} accuracy over all sub-benchmarks ({basis}). "
    return element("li", f"{pair}: ", element("b", signed_points(gain.mean)), details, verdict, class_=colour)


def interval_text(estimate: Estimate, *, signed: bool = False) -> str:
    """`lo–hi` in percent, or `[lo, hi]` in points for a difference, and a dash where there is no interval; of two
    seeds the value of each, `a · b`."""
    if estimate.is_pair:
        shown = " · ".join(signed_points(value) if signed else f"{value * 100:.1f}" for value in estimate.by_seed)
        return f"({shown})" if signed else shown
    if estimate.low is None or estimate.high is None:
        return "[–]"
    if signed:
        return f"[{signed_points(estimate.low)}, {signed_points(estimate.high)}]".replace("+", "")
    # Student's interval over a few seeds may reach past what a share can be.
    return f"{max(estimate.low, 0) * 100:.1f}–{min(estimate.high, 1) * 100:.1f}"


def _forests(run: Run, table: ResultsTable) -> Html | None:
    chosen = {SCOPES[scope]: table.column_index(scope, "accuracy") for scope in AVERAGES}
    chosen["Described items right"] = table.column_index(ALL, "caption_fraction")
    panels = {
        title: [(stage_title(row.stage), stage_colour(run, row.stage), row.gains[index]) for row in table.compared]
        for title, index in chosen.items()
    }
    plots = forests(panels)
    if plots is None:
        return None
    return join(element("h3", f"Difference to the matched-budget baseline, points, {table.mode}"), plots)


def forests(panels: Mapping[str, Sequence[tuple[str, str, Estimate | None]]]) -> Html | None:
    """Difference plots on one common axis; `panels` maps titles to rows of (label, colour, difference)."""
    rows = {
        title: [(label, colour, gain) for label, colour, gain in panel if gain is not None]
        for title, panel in panels.items()
    }
    gains = [gain for panel in rows.values() for _, _, gain in panel]
    if not gains:
        return None
    edges = [value for gain in gains for value in (gain.mean, *gain.extent)]
    low, high = min(0.0, *edges), max(0.0, *edges)
    margin = 0.06 * (high - low) or 0.01
    x_range = (low - margin, high + margin)
    plots = [forest_plot(title, panel, x_range=x_range) for title, panel in rows.items() if panel]
    return element("div", *plots, class_="forests")


def _grid(run: Run, table: ResultsTable) -> Html:
    shared = [shared_count([row.scores[i] for row in table.rows]) for i in range(len(table.columns))]
    starts = _group_starts(table.columns)
    heading = divider(f"Score, %, {table.mode}", len(table.columns))
    body = [heading, *(_score_row(run, table, row, shared, starts) for row in table.rows)]
    if table.compared:
        body.append(divider(f"Difference to the matched-budget baseline, points, {table.mode}", len(table.columns)))
        body += [_gain_row(run, row, shared, starts) for row in table.compared]
    parts = (_head(table.columns, shared, starts), element("tbody", *body))
    return element("div", element("table", *parts), class_="scroll", tabindex=0, role="region", aria_label="Results")


def _group_starts(columns: Sequence[Column]) -> list[bool]:
    return [i == 0 or columns[i - 1].heading != column.heading for i, column in enumerate(columns)]


def _head(columns: Sequence[Column], shared: Sequence[int | None], starts: Sequence[bool]) -> Html:
    groups = [element("th")]
    for heading, members in groupby(columns, key=lambda column: column.heading):
        groups.append(element("th", heading, colspan=len(list(members)), scope="colgroup", class_="starts"))
    names = [element("th", "Checkpoint", scope="col", class_="first")]
    for column, count, is_start in zip(columns, shared, starts, strict=True):
        small = element("small", f"n = {count:,}" if count is not None else Html("&#160;"))
        names.append(element("th", column.title, small, scope="col", class_="starts" if is_start else None))
    return element("thead", element("tr", *groups), element("tr", *names))


def shared_count(estimates: Sequence[Estimate | None]) -> int | None:
    """The number of items where it is the same in the whole column, so that it can stand in its head."""
    counts = {estimate.count for estimate in estimates if estimate is not None}
    return counts.pop() if len(counts) == 1 else None


def divider(text: str, num_columns: int) -> Html:
    return element(
        "tr", element("th", element("span", text), colspan=num_columns + 1, scope="rowgroup"), class_="divider"
    )


def _row_head(run: Run, row: ResultRow, note: str, estimates: Sequence[Estimate | None]) -> Html:
    notes = (note, seeds_note(estimates, len(run.seeds)))
    return row_head(stage_title(row.stage), notes, colour=stage_colour(run, row.stage))


def row_head(title: str, notes: Sequence[str], *, colour: str) -> Html:
    small = [element("small", text) for text in notes if text]
    return element("th", title, *small, scope="row", class_=colour)


def seeds_note(estimates: Sequence[Estimate | None], num_seeds: int) -> str:
    """How many seeds are behind the estimates, where it is not all of them."""
    seeds = max((estimate.num_seeds for estimate in estimates if estimate is not None), default=0)
    return f"{seeds} of {num_seeds} seeds" if seeds < num_seeds else ""


def _score_row(
    run: Run, table: ResultsTable, row: ResultRow, shared: Sequence[int | None], starts: Sequence[bool]
) -> Html:
    planned = run.planned.get(row.stage)
    is_baseline = planned is not None and planned.is_baseline
    columns = zip(row.scores, shared, starts, strict=True)
    cells = [score_cell(estimate, count, is_start=is_start) for estimate, count, is_start in columns]
    note = "matched-budget baseline" if is_baseline else ""
    return element("tr", _row_head(run, row, note, row.scores), *cells, class_="baseline" if is_baseline else None)


def _gain_row(run: Run, row: ResultRow, shared: Sequence[int | None], starts: Sequence[bool]) -> Html:
    columns = zip(row.gains, shared, starts, strict=True)
    cells = [gain_cell(gain, count, is_start=is_start) for gain, count, is_start in columns]
    note = f"− {stage_title(row.baseline or '')}"
    return element("tr", _row_head(run, row, note, row.gains), *cells)


def score_cell(estimate: Estimate | None, count: int | None, *, is_start: bool = False) -> Html:
    """`count` is the number of items that stands in the column's head, if any does."""
    style = "starts" if is_start else None
    if estimate is None:
        return element("td", "–", title="not measured", class_=style)
    own_count = f"n = {estimate.count:,}" if count is None and estimate.count is not None else None
    small = [element("small", text) for text in (interval_text(estimate), own_count) if text]
    return element("td", f"{estimate.mean * 100:.1f}", *small, class_=style)


def gain_cell(gain: Estimate | None, count: int | None, *, is_start: bool = False) -> Html:
    style = "starts " if is_start else ""
    if gain is None:
        return element("td", "–", title="not measured on both sides", class_=style.strip() or None)
    direction = ("up" if gain.mean > 0 else "down") if gain.is_judged and gain.excludes_zero else "unclear"
    mark = {"up": " ▲", "down": " ▼", "unclear": ""}[direction]
    own_count = f"n = {gain.count:,}" if gain.count != count else None
    small = [element("small", text) for text in (interval_text(gain, signed=True), own_count) if text]
    return element("td", element("b", signed_points(gain.mean), mark), *small, class_=style + direction)
