"""The results as plain text, for the end of a run."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from prism.report.completeness import left_over_parts, missing_parts
from prism.report.events import warning_lines
from prism.report.identity import stage_title
from prism.report.plots import signed_points
from prism.report.results import ALL, IN_DISTRIBUTION, MODES, OUT_OF_DISTRIBUTION, ResultsTable, results_table
from prism.report.rundir import read_run
from prism.report.statistics import Estimate
from prism.report.tables import interval_note, interval_text

_COLUMNS = {
    "in-distribution": (IN_DISTRIBUTION, "accuracy"),
    "out-of-distribution": (OUT_OF_DISTRIBUTION, "accuracy"),
    "all": (ALL, "accuracy"),
    "description exact": (ALL, "caption_exact"),
}


def print_results_table(run_directory: Path) -> str:
    """Averages of every checkpoint and differences to the baseline, in percent and points with 95% intervals."""
    run = read_run(run_directory)
    lines = [*missing_parts(run), *left_over_parts(run), *warning_lines(run)]
    if not run.evaluated_names:
        return "\n".join([*lines, "No checkpoint of this run has been evaluated."])
    for mode in MODES:
        lines += ["", *_mode_lines(results_table(run, mode))]
    note = f"Shares in percent, differences in points, paired by item. {interval_note(len(run.seeds))}"
    return "\n".join([*lines, "", *wrap(note, 120)])


def _mode_lines(table: ResultsTable) -> list[str]:
    indices = [table.column_index(*key) for key in _COLUMNS.values()]
    overall = table.column_index(ALL, "accuracy")
    rows = [[table.mode, *_COLUMNS, "n"]]
    for row in table.rows:
        score = row.scores[overall]
        count = f"{score.count:,}" if score and score.count is not None else "–"
        rows.append([stage_title(row.stage), *(score_text(row.scores[index]) for index in indices), count])
    return [*aligned(rows), *_difference_lines(table, overall)]


def _difference_lines(table: ResultsTable, overall: int) -> list[str]:
    rows = []
    for row in table.compared:
        gain = row.gains[overall]
        if gain is not None:
            pair = f"{stage_title(row.stage)} − {stage_title(row.baseline or '')}"
            rows.append(
                [f"  {pair}", signed_points(gain.mean), interval_text(gain, signed=True), f"n = {gain.count:,}"]
            )
    return [f"differences, all, {table.mode}", *aligned(rows)] if rows else []


def score_text(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    interval = interval_text(estimate)
    return f"{estimate.mean * 100:.1f} {interval if estimate.low is None else f'({interval})'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
