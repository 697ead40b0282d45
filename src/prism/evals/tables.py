"""Results of benchmarks as plain text for a terminal."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from prism.evals.benchmarks.benchmark import PROFILES

ABSENT = "–"


def format_benchmarks(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """One block per decoding mode: each benchmark's headline metric under both profiles, and who decided."""
    modes = list(dict.fromkeys(mode for summary in summaries.values() for mode in summary["modes"]))
    return "\n\n".join([*(_block(mode, summaries) for mode in modes), _LEGEND])


_LEGEND = """Headline metric in percent with 95% intervals.
prism: as the paper's evaluation scores; strict: with its defects mended. Under strict, "undecided" counts answers
that neither rule nor judge could decide, "unparseable" those in which no answer was found; both are not right."""


def _block(mode: str, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    found = {name: summary["modes"][mode] for name, summary in summaries.items() if mode in summary["modes"]}
    kinds = [(profile, "rules") for profile in PROFILES]
    if any(summary["judge"] for summary in found.values()):
        kinds += [(profile, "judged") for profile in PROFILES]
    titles = [profile if kind == "rules" else f"{profile} + judge" for profile, kind in kinds]
    rows = [[mode, "metric", *titles, "undecided", "unparseable", "truncated", "answers"]]
    means: list[list[float]] = [[] for _ in kinds]
    for name, summary in found.items():
        headlines = [_headline(summary["profiles"][profile][kind]) for profile, kind in kinds]
        for values, (_, interval) in zip(means, headlines, strict=True):
            if interval is not None and interval["mean"] is not None:
                values.append(interval["mean"])
        counts = summary["profiles"][PROFILES[0]]["counts"]
        numbers = (counts["undecided"], counts["unparseable"], summary["num_truncated"], summary["num_responses"])
        cells = [_interval_cell(interval) for _, interval in headlines]
        rows.append([name, headlines[0][0], *cells, *(f"{number:,}" for number in numbers)])
    if len(found) > 1 and all(len(values) == len(found) for values in means):
        rows.append(["average", "macro", *(points(fmean(values)) for values in means), "", "", "", ""])
    return "\n".join(aligned(rows))


def _headline(metrics: Mapping[str, Mapping[str, Any]] | None) -> tuple[str, Mapping[str, Any] | None]:
    return next(iter(metrics.items())) if metrics else ("", None)


def _interval_cell(interval: Mapping[str, Any] | None) -> str:
    if interval is None or interval["mean"] is None:
        return ABSENT
    if interval["low"] is None or interval["high"] is None:
        return points(interval["mean"])
    return f"{points(interval['mean'])} ({points(interval['low'])}–{points(interval['high'])})"


def points(share: float | None, sign: str = "-") -> str:
    """In percent or percentage points with a real minus; what rounds to zero has no sign."""
    if share is None:
        return ABSENT
    shown = format(share * 100, f"{sign}.1f")
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, the first two to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
