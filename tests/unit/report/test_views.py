"""A discriminator with one score for the whole response, and cells of an ablation, in the report of a run."""

import json
from collections.abc import Callable
from pathlib import Path

from prism.report.curves import alignment_section, losses_section, other_metrics
from prism.report.rundir import read_run
from prism.report.samples import samples_section

MakeRun = Callable[..., Path]


def whole_response_run(make_run: MakeRun) -> Path:
    """A run in which everything about perception is about the response, and nothing about the reasoning."""
    run = make_run(seeds=(0,), stages=("warmup", "align"))
    for stage in ("warmup", "align"):
        path = run / "seed-0" / stage / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        renamed = [
            {name.replace("perception", "response"): value for name, value in row.items() if "reasoning" not in name}
            for row in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in renamed))
    samples = run / "seed-0" / "align" / "samples.jsonl"
    rows = [json.loads(line) | {"scores": {"response": 0.42}} for line in samples.read_text().splitlines()]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_the_whole_response_has_curves(make_run: MakeRun) -> None:
    run = read_run(whole_response_run(make_run))
    alignment, losses = str(alignment_section(run)), str(losses_section(run))
    assert "Not recorded." not in alignment + losses
    assert alignment.count("<polyline") == 4, "the gap, the accuracy in two stretches, and the valid share"
    assert alignment.count("</svg>response</li>") == 2, "a line that is alone is named"
    assert losses.count("curve c-response") == 2, "warm-up: the loss and the accuracy"
    assert "c-perception" not in alignment + losses


def test_what_has_curves_of_its_own_is_not_repeated(make_run: MakeRun) -> None:
    folded = str(other_metrics(read_run(whole_response_run(make_run))))
    assert "accuracy/count" in folded
    assert not any(name in folded for name in ("gap/response", "accuracy/response", "heldout/response_accuracy"))


def test_the_score_of_a_response_is_shown_with_it(make_run: MakeRun) -> None:
    section = str(samples_section(read_run(whole_response_run(make_run))))
    assert "response score 0.42" in section
    assert "perception score" not in section


def as_cell(make_run: MakeRun, directory: Path) -> Path:
    """The run moved to where an ablation has its cells, its images being a link to those of all cells."""
    cell = directory / "cells" / "full"
    cell.parent.mkdir(parents=True)
    make_run(seeds=(0,), stages=("align",)).rename(cell)
    (cell / "seed-0" / "images").rename(directory / "images")
    (cell / "seed-0" / "images").symlink_to(directory / "images")
    return cell


def test_a_cell_shows_images_that_it_shares_with_other_cells(make_run: MakeRun, tmp_path: Path) -> None:
    cell = as_cell(make_run, tmp_path / "ablation")
    (tmp_path / "ablation" / "ablation.json").write_text("{}")
    section = str(samples_section(read_run(cell)))
    assert "data:image/png;base64," in section
    assert "outside the run directory" not in section


def test_links_out_of_a_directory_that_is_no_cell_are_not_followed(make_run: MakeRun, tmp_path: Path) -> None:
    section = str(samples_section(read_run(as_cell(make_run, tmp_path / "elsewhere"))))
    assert "outside the run directory" in section
    assert "data:" not in section
