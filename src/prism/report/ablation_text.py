"""The table of an ablation as plain text, for the end of a run."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from prism.report import tables
from prism.report.ablation import Cell, Listing, measured_cells, read_listing, versions_text
from prism.report.ablation_checkpoints import OVERALL, Group
from prism.report.identity import seeds_title
from prism.report.plots import signed_points
from prism.report.results import MODES
from prism.report.statistics import Estimate
from prism.report.tables import interval_text
from prism.report.text import aligned, score_text

_TITLES = ("in-distribution", "out-of-distribution", "all", "description exact", "described items right", "valid")


def print_ablation_table(directory: Path) -> str:
    """Every cell's checkpoints and, beneath each, what the reference cell's is ahead, for each decoding mode.

    Raises DataError where the directory is no ablation or a file in it is damaged.
    """
    listing = read_listing(directory)
    cells = [cell for cell, _ in measured_cells(listing)]
    lines = [f"ablation {directory}, reference {listing.reference}", *incomplete_cells(cells)]
    lines += [*notes_on_cells(cells), *_warned_cells(cells)]
    for mode in MODES:
        lines += _comparison_lines(listing, cells, mode)
        for group in listing.groups:
            lines += ["", *_group_lines(listing, cells, group, mode)]
    notes = (interval_note(cells), pairing_note(listing))
    return "\n".join([*lines, "", *(line for note in notes for line in wrap(note, 120))])


def incomplete_cells(cells: Sequence[Cell]) -> list[str]:
    """What cells lack, and what keeps those that are there from being compared."""
    waiting = [cell.name for cell in cells if cell.recipe is None]
    lines = [f"{cell.name}: {line}" for cell in cells for line in (*cell.missing, *cell.differing)]
    return [*lines, f"Not begun: {', '.join(waiting)}"] if waiting else lines


def notes_on_cells(cells: Sequence[Cell]) -> list[str]:
    """What is no gap and yet to be known: what was left out, and that seeds ran different code."""
    lines = [f"{cell.name}: {line}" for cell in cells for line in cell.left_over]
    found = versions_by_seed(cells)
    seeds: dict[str, list[int]] = {}
    for seed, version in found.items():
        seeds.setdefault(version, []).append(seed)
    if len(seeds) < 2:
        return lines
    ran = "; ".join(f"{seeds_title(ran)}: {version}" for version, ran in seeds.items())
    return [*lines, f"Seeds ran different code ({ran}): a mean over them is one over these versions."]


def versions_by_seed(cells: Sequence[Cell]) -> dict[int, str]:
    found: dict[int, dict[str, None]] = {}
    for cell in cells:
        for seed, versions in cell.versions.items():
            found.setdefault(seed, {}).update(dict.fromkeys(versions))
    return {seed: versions_text((*found[seed],)) for seed in sorted(found)}


def _warned_cells(cells: Sequence[Cell]) -> list[str]:
    return [f"{cell.name}: warning of its alignment: {cell.warning}" for cell in cells if cell.warning]


def interval_note(cells: Sequence[Cell]) -> str:
    """By the seeds that the scores are of: a recipe may ask for more than there are, or for fewer."""
    scores = [
        score for cell in cells for c in cell.checkpoints.values() for found in c.scores.values() for score in found
    ]
    num_seeds = max((score.num_seeds for score in scores if score is not None), default=0)
    return f"Shares in percent. {tables.interval_note(num_seeds, is_most=True)}"


def pairing_note(listing: Listing) -> str:
    return (
        f"Differences in points, {listing.reference} less the same checkpoint of a cell: paired item by item within a "
        "seed, then put together over the seeds that both have. A mean of algorithms averages each item over them "
        "first. Seeds whose test sets differ between two cells are not compared. Descriptions are over the responses "
        "that have one: read them with the share of valid ones. Rollouts are all that a policy cost, the warm-up's and "
        "those that dynamic sampling discards included; means over seeds."
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
