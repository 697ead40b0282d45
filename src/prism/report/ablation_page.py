"""The page of an ablation: its table, its differences, and the paper's figures."""

import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from prism.config import CELLS
from prism.report.ablation import Cell, Listing, measured_cells, read_listing
from prism.report.ablation_checkpoints import COLUMNS, Group
from prism.report.ablation_figures import (
    alpha_section,
    cell_distributions,
    cell_distributions_section,
    course_lines,
    course_section,
    difference_plots,
    game_lines,
    game_section,
)
from prism.report.ablation_text import (
    controls,
    incomplete_cells,
    interval_note,
    notes_on_cells,
    pairing_note,
    versions_by_seed,
    without_checkpoint,
    worth_of_alignment,
)
from prism.report.curves import accuracy_band
from prism.report.document import document, page_header, status, write_page
from prism.report.markup import Html, element, join
from prism.report.page import describe_base, describe_discriminator, dev_note
from prism.report.results import MODES
from prism.report.settings import settings_text
from prism.report.tables import (
    CHANCE_NOTE,
    divider,
    finding,
    gain_cell,
    row_head,
    score_cell,
    seeds_note,
    shared_count,
)

_TITLES = {
    "results": "Results",
    "game": "Discriminators",
    "course": "Rollouts",
    "distributions": "Distributions",
    "alpha": "α",
    "cells": "Cells",
}
_WIDTH = 2 * len(COLUMNS)


def render_ablation(directory: Path, output: Path | None = None) -> Path:
    """Write the report (`report.html` in the directory by default) and return its path.

    Raises DataError where the directory is no ablation or a file in it is damaged, and StorageError where
    the report cannot be written.
    """
    listing = read_listing(directory)
    path = output if output is not None else directory / "report.html"
    write_page(path, _page(listing))
    return path


def _page(listing: Listing) -> str:
    cells, games, courses, panels = [], [], {}, {}
    for cell, run in measured_cells(listing):
        cells.append(cell)
        if run is not None:
            games.append(game_lines(cell, run))
            courses[cell.name] = course_lines(cell, run)
            distributions = cell_distributions(run)
            if distributions is not None:
                panels[cell.name] = distributions
    opened = [listing.reference, *(cell.name for cell in controls(listing, cells))]
    sections = {
        "results": _results_section(listing, cells),
        "game": game_section(games, accuracy_band(listing.recipes[listing.reference])),
        "course": course_section(courses, listing.recipes),
        "distributions": cell_distributions_section(panels, opened),
        "alpha": alpha_section(listing, cells),
        "cells": _cells_section(listing, cells),
    }
    titled = {name: (_TITLES[name], section) for name, section in sections.items()}
    title = listing.directory.resolve().name
    header = _header(title, listing, cells)
    return document(f"{title}: PRISM ablation", header=header, sections=titled)


def _header(title: str, listing: Listing, cells: Sequence[Cell]) -> Html:
    reference = listing.recipes[listing.reference]
    num_begun = sum(cell.recipe is not None for cell in cells)
    versions = dict.fromkeys(versions_by_seed(cells).values())
    shown = {
        "Cells": f"{num_begun} of {len(cells)} begun",
        "Reference": listing.reference,
        "Seeds": (", ".join(map(str, _seeds_of(cells))) or "none yet") + (dev_note(reference) if reference else ""),
        "Policy": describe_base(reference) if reference else "not begun",
        "Discriminator of the reference": describe_discriminator(reference) if reference else "not begun",
        "Code version": ", ".join(versions) or "not recorded",
    }
    complete = f"Complete: every stage of all {len(cells)} cells finished."
    is_complete = num_begun == len(cells) and not any(cell.missing for cell in cells)
    incomplete = "Not all cells can be compared." if is_complete else "This ablation is not complete."
    return page_header(
        "PRISM ablation", title, shown, status(complete, incomplete, incomplete_cells(cells), notes_on_cells(cells))
    )


def _seeds_of(cells: Sequence[Cell]) -> list[int]:
    return sorted({seed for cell in cells for seed in cell.seeds})


def _results_section(listing: Listing, cells: Sequence[Cell]) -> Html:
    is_evaluated = any(checkpoint.is_evaluated for cell in cells for checkpoint in cell.checkpoints.values())
    if not is_evaluated:
        body = element("p", "No checkpoint of any cell has been evaluated.", class_="absent")
        return element("section", element("h2", "Results"), body, id="results")
    lead = (
        f"The same checkpoint of every cell, and what that of {listing.reference} is ahead of it. Averages give each "
        "sub-benchmark the same weight."
    )
    views = [
        element(
            "div",
            _comparison(listing, cells, mode),
            _differences(listing, cells, mode),
            _grid(listing, cells, mode),
            class_=f"only-{mode}",
        )
        for mode in MODES
    ]
    return element(
        "section",
        element("h2", "Results"),
        element("p", lead, class_="lead"),
        *views,
        element("p", interval_note(cells), class_="note"),
        element("p", pairing_note(listing), " ", CHANCE_NOTE, class_="note"),
        id="results",
    )


def _comparison(listing: Listing, cells: Sequence[Cell], mode: str) -> Html:
    """The main question in words, for each cell without alignment: what is alignment worth?"""
    parts = []
    for control in controls(listing, cells):
        items = [
            finding(pair, gain, mode=mode, colour=control.colour)
            for pair, gain in worth_of_alignment(listing, cells, control, mode)
        ]
        if items:
            heading = element("h3", f"{listing.reference} against {control.name}")
            note = element("p", f"{control.name}: {settings_text(control.changes or {})}", class_="note")
            parts += [heading, note, element("ul", *items, class_="findings")]
    return join(*parts)


def _differences(listing: Listing, cells: Sequence[Cell], mode: str) -> Html | None:
    """The first group and the policies before RLVR in sight, single algorithms folded away."""
    plots = {group: difference_plots(listing, cells, group, mode) for group in listing.groups}
    found = [(group, plot) for group, plot in plots.items() if plot is not None]
    if not found:
        return None
    heading = element("h3", f"{listing.reference} less each cell, points, {mode}")
    shown, folded = [], []
    for group, plot in found:
        if group in (listing.groups[0], listing.groups[-1]):
            shown += [element("h4", group.title), plot]
        else:
            folded.append(element("details", element("summary", group.title), plot))
    return join(heading, *shown, *folded)


def _grid(listing: Listing, cells: Sequence[Cell], mode: str) -> Html:
    checkpoints = [checkpoint for cell in cells for checkpoint in cell.checkpoints.values()]
    shared = [shared_count([each.scores[mode][place] for each in checkpoints]) for place in range(len(COLUMNS))]
    body = []
    for group in listing.groups:
        body.append(divider(f"{group.title}, {mode}: score, %, and {listing.reference} less it, points", _WIDTH))
        measured = [cell for cell in cells if group in cell.checkpoints]
        body += [_row(listing, cell, group, shared, mode, num_seeds=len(_seeds_of(cells))) for cell in measured]
        without = without_checkpoint(cells, group)
        waiting = [cell.name for cell in cells if cell.recipe is None]
        lines = [without, f"Not begun: {', '.join(waiting)}" if waiting else ""]
        body += [element("tr", element("td", line, colspan=_WIDTH + 1, class_="left")) for line in lines if line]
    parts = (_head(listing, shared), element("tbody", *body))
    return element("div", element("table", *parts), class_="scroll", tabindex=0, role="region", aria_label="Cells")


def _head(listing: Listing, shared: Sequence[int | None]) -> Html:
    groups = [element("th")]
    for heading, members in groupby(COLUMNS, key=lambda column: column.heading):
        groups.append(element("th", heading, colspan=2 * len(list(members)), scope="colgroup", class_="starts"))
    names = [element("th", "Cell", scope="col", class_="first")]
    for column, count in zip(COLUMNS, shared, strict=True):
        small = element("small", f"n = {count:,}" if count is not None else Html("&#160;"))
        names.append(element("th", column.title, small, scope="col", class_="starts"))
        names.append(element("th", f"{listing.reference} less it", element("small", Html("&#160;")), scope="col"))
    return element("thead", element("tr", *groups), element("tr", *names))


def _row(
    listing: Listing, cell: Cell, group: Group, shared: Sequence[int | None], mode: str, *, num_seeds: int
) -> Html:
    checkpoint, is_reference = cell.checkpoints[group], cell.name == listing.reference
    scores, gains = checkpoint.scores[mode], checkpoint.gains[mode]
    cells = []
    for score, gain, count in zip(scores, gains, shared, strict=True):
        cells.append(score_cell(score, count, is_start=True))
        cells.append(element("td") if is_reference else gain_cell(gain, score.count if score else count))
    state = seeds_note(scores, num_seeds) if checkpoint.is_evaluated else group.unevaluated
    notes = (checkpoint.title, state)
    head = row_head(cell.name, notes, colour=cell.colour)
    return element("tr", head, *cells, class_="baseline" if is_reference else None)


def _cells_section(listing: Listing, cells: Sequence[Cell]) -> Html:
    titles = ("Cell", f"Settings other than in {listing.reference}", "Seeds", "State")
    head = element("thead", element("tr", *(element("th", title, scope="col") for title in titles)))
    rows = [
        element(
            "tr",
            row_head(cell.name, (), colour=cell.colour),
            *(element("td", text) for text in (_settings(listing, cell), _seeds(cell), _state(cell))),
        )
        for cell in cells
    ]
    table = element("div", element("table", head, element("tbody", *rows), class_="cells"), class_="scroll")
    reference = listing.recipes[listing.reference]
    recipe = None
    if reference is not None:
        summary = element("summary", f"The resolved recipe of {listing.reference}")
        recipe = element("details", summary, element("pre", reference.model_dump_json(indent=2)))
    example = listing.directory / CELLS / listing.reference
    text = "Every cell is a run directory, with a report of its own that has all curves and samples:"
    return element(
        "section",
        element("h2", "Cells"),
        table,
        element("p", text),
        element("pre", f"prism report {shlex.quote(str(example))}"),
        recipe,
        id="cells",
    )


def _settings(listing: Listing, cell: Cell) -> str:
    if cell.name == listing.reference:
        return "the reference"
    return "–" if cell.changes is None else settings_text(cell.changes) or "none"


def _seeds(cell: Cell) -> str:
    return ", ".join(map(str, cell.seeds)) or "–"


def _state(cell: Cell) -> str:
    if cell.recipe is None:
        return "not begun"
    state = "; ".join([*(cell.missing or ("complete",)), *cell.differing, *cell.left_over])
    return f"{state}; warning of its alignment: {cell.warning}" if cell.warning else state
