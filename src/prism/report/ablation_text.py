"""The table of an ablation as plain text, for the end of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.report.ablation import OVERALL, Cell, Group, Listing, measured_cells, read_listing
from prism.report.plots import signed_points
from prism.report.results import MODES
from prism.report.statistics import Estimate
from prism.report.tables import interval_text
from prism.report.text import aligned, score_text

_TITLES = ("in-distribution", "out-of-distribution", "all", "description exact", "described items right")


def print_ablation_table(directory: Path) -> str:
    """Every cell's checkpoints and, beneath each, what the reference cell's is ahead, for each decoding mode.

    Raises DataError where the directory is no ablation or a file in it is damaged.
    """
    listing = read_listing(directory)
    cells = [cell for cell, _ in measured_cells(listing)]
    lines = [f"ablation {directory}, reference {listing.reference}", *incomplete_cells(cells), *_warned_cells(cells)]
    for mode in MODES:
        lines += _comparison_lines(listing, cells, mode)
        for group in listing.groups:
            lines += ["", *_group_lines(listing, cells, group, mode)]
    return "\n".join([*lines, "", interval_note(listing), pairing_note(listing)])


def incomplete_cells(cells: Sequence[Cell]) -> list[str]:
    waiting = [cell.name for cell in cells if cell.recipe is None]
    lines = [f"{cell.name}: {line}" for cell in cells for line in cell.missing]
    return [*lines, f"Not begun: {', '.join(waiting)}"] if waiting else lines


def _warned_cells(cells: Sequence[Cell]) -> list[str]:
    return [f"{cell.name}: warning of its alignment: {cell.warning}" for cell in cells if cell.warning]


def interval_note(listing: Listing) -> str:
    if len(listing.seeds) < 2:
        return "Shares in percent with 95% intervals over test items: one seed says nothing about how runs vary."
    return (
        f"Shares in percent, means over up to {len(listing.seeds)} seeds with 95% Student-t intervals over the seeds' "
        "means; n counts test items over the seeds. A cell with a single seed keeps its interval over test items."
    )


def pairing_note(listing: Listing) -> str:
    return (
        f"Differences in points, {listing.reference} less the same checkpoint of a cell: paired item by item within a "
        "seed, then put together over the seeds that both have. A mean of algorithms averages each item over them "
        "first. Seeds whose test sets differ between two cells are not compared."
    )


def controls(listing: Listing, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that leave out an alignment which the reference has."""
    reference = listing.recipes[listing.reference]
    if reference is None or reference.align is None:
        return []
    return [cell for cell in cells if cell.recipe is not None and cell.recipe.align is None]


def worth_of_alignment(
    listing: Listing, cells: Sequence[Cell], control: Cell, mode: str
) -> list[tuple[str, Estimate | None]]:
    """The reference less a cell without alignment, in accuracy over all sub-benchmarks: for each group that both
    have, what is compared with what and the difference, None where it cannot be taken."""
    reference = next(cell for cell in cells if cell.name == listing.reference)
    found = []
    for group, checkpoint in control.checkpoints.items():
        other = reference.checkpoints.get(group)
        if other is not None and checkpoint.is_evaluated and other.is_evaluated:
            sides = f"{other.title} ({reference.name}) against {checkpoint.title} ({control.name})"
            found.append((f"{group.title}: {sides}", checkpoint.gains[mode][OVERALL]))
    return found


def settings_text(changes: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_value_text(value)}" for key, value in changes.items())


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_value_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value_text, value)) + "]"
    return "none" if value is None else str(value)


def _comparison_lines(listing: Listing, cells: Sequence[Cell], mode: str) -> list[str]:
    rows = []
    for control in controls(listing, cells):
        for pair, gain in worth_of_alignment(listing, cells, control, mode):
            rows.append([f"  {pair}", _gain_text(gain), f"n = {_count(gain)}"])
    title = f"with alignment against without, accuracy over all sub-benchmarks, {mode}"
    return ["", title, *aligned(rows)] if rows else []


def _group_lines(listing: Listing, cells: Sequence[Cell], group: Group, mode: str) -> list[str]:
    rows = [[f"{group.title}, {mode}", "checkpoint", *_TITLES, "n"]]
    for cell in cells:
        checkpoint = cell.checkpoints.get(group)
        if checkpoint is None:
            continue
        scores, gains = checkpoint.scores[mode], checkpoint.gains[mode]
        title = checkpoint.title if checkpoint.is_evaluated else f"{checkpoint.title}: {group.unevaluated}"
        rows.append([f"  {cell.name}", title, *map(score_text, scores), _count(scores[OVERALL])])
        if any(gain is not None for gain in gains):
            rows.append([f"    {listing.reference} less it", "", *map(_gain_text, gains), _count(gains[OVERALL])])
    without = without_checkpoint(cells, group)
    return [*aligned(rows), *([f"  {without}"] if without else [])]


def without_checkpoint(cells: Sequence[Cell], group: Group) -> str:
    names = [cell.name for cell in cells if cell.recipe is not None and group not in cell.checkpoints]
    return f"Not in the recipe of: {', '.join(names)}" if names else ""


def _gain_text(gain: Estimate | None) -> str:
    return "–" if gain is None else f"{signed_points(gain.mean)} {interval_text(gain, signed=True)}"


def _count(estimate: Estimate | None) -> str:
    return "–" if estimate is None or estimate.count is None else f"{estimate.count:,}"
