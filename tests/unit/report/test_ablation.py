"""Ablations: scores and differences, worked by hand."""

import re
from pathlib import Path

import pytest

from ablation_runs import GRPO, evaluate, measured, two_seeds, write_cell, write_listing
from prism.report import print_ablation_table, render_ablation
from prism.report.ablation import measured_cells, read_listing
from prism.report.ablation_checkpoints import BEFORE_RLVR, COLUMNS, OVERALL, Group
from prism.report.ablation_text import worth_of_alignment

GSPO, MEAN = Group(("gspo",)), Group(("grpo", "gspo"))
T1 = 12.7062  # Student's two-sided 95% point with one degree of freedom, as printed in tables


def test_differences_are_paired_by_seed_and_item(tmp_path: Path) -> None:
    cells = measured(two_seeds(tmp_path))
    gain = cells["no-alignment"].checkpoints[GRPO].gains["greedy"][OVERALL]
    # The reference less the control: .375 and .25, mean .3125; the error of a mean of two is half their distance.
    assert gain is not None and gain.low is not None and gain.high is not None
    assert (gain.mean, gain.count, gain.num_seeds) == (pytest.approx(0.3125), 12, 2)
    assert gain.low == pytest.approx(0.3125 - T1 * 0.0625, rel=1e-4)
    assert gain.high == pytest.approx(0.3125 + T1 * 0.0625, rel=1e-4)
    scopes = [gain.mean for gain in cells["no-alignment"].checkpoints[GRPO].gains["greedy"][:OVERALL] if gain]
    assert scopes == [pytest.approx(0.125), pytest.approx(0.5)]


def test_the_reference_has_no_difference_to_itself(tmp_path: Path) -> None:
    full = measured(two_seeds(tmp_path))["full"]
    assert full.checkpoints[GRPO].gains["greedy"] == (None,) * len(COLUMNS)


def test_scores_are_means_over_seeds_of_the_summaries(tmp_path: Path) -> None:
    score = measured(two_seeds(tmp_path))["full"].checkpoints[GRPO].scores["greedy"][OVERALL]
    # Seed 0: (.5 + .5)/2 = .5; seed 1: (.5 + 1)/2 = .75.
    assert score is not None and score.high is not None
    assert (score.mean, score.count, score.num_seeds) == (pytest.approx(0.625), 12, 2)
    assert score.high - score.mean == pytest.approx(T1 * 0.125, rel=1e-4)


def test_what_alignment_is_worth_has_one_direction_in_words_tables_and_plots(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    listing = read_listing(root)
    cells = [cell for cell, _ in measured_cells(listing)]
    [(pair, gain)] = worth_of_alignment(listing, cells, cells[1], "greedy")
    assert pair == "GRPO: PRISM → GRPO, 40 + 60 steps (full) against SFT → GRPO, 100 steps (no-alignment)"
    assert gain is not None and gain.mean == pytest.approx(0.3125)
    text, page = print_ablation_table(root), render_ablation(root).read_text(encoding="utf-8")
    assert re.search(r"^    full less it +\+12\.5 .*\+50\.0 .*\+31\.2 ", text, re.MULTILINE)
    assert page.count("<title>no-alignment: +31.2 points</title>") == 1, "the plot of all sub-benchmarks"
    assert "<b>+31.2</b>" in page and "−31.2" not in text + page


def test_one_seed_has_the_interval_of_its_summary(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full",))
    evaluate(write_cell(tmp_path, "full"), "prism-grpo", {"color": [1, 0], "chart": [1, 1]})
    score = measured(tmp_path)["full"].checkpoints[GRPO].scores["greedy"][OVERALL]
    assert score is not None
    assert (score.mean, score.low, score.high) == (0.75, 0.65, 0.85)


def test_a_mean_of_algorithms_averages_items_and_counts_them_once(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "dense"))
    full, dense = write_cell(tmp_path, "full"), write_cell(tmp_path, "dense", discriminator={"type": "dense"})
    for stage, ours, theirs in (
        ("prism-grpo", [1, 1, 0, 0], [0, 0, 0, 0]),
        ("prism-gspo", [1, 0, 1, 0], [1, 1, 0, 0]),
    ):
        evaluate(dense, stage, {"color": ours})
        evaluate(full, stage, {"color": theirs})
    checkpoint = measured(tmp_path)["dense"].checkpoints[MEAN]
    score, gain = checkpoint.scores["greedy"][OVERALL], checkpoint.gains["greedy"][OVERALL]
    assert score is not None and gain is not None and gain.low is not None
    # Items of dense average 1 .5 .5 0, of full .5 .5 0 0: differences −.5 0 −.5 0 with mean −.25 and standard
    # deviation √(1/12), so the error is √(1/48) = .144338 and t with 3 degrees of freedom 3.18245.
    assert (score.mean, score.count) == (pytest.approx(0.5), 4)
    assert (gain.mean, gain.count) == (pytest.approx(-0.25), 4)
    assert gain.low == pytest.approx(-0.25 - 3.18245 * 0.144338, abs=1e-4)


def test_a_mean_needs_all_of_its_algorithms(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    assert not measured(root)["full"].checkpoints[MEAN].is_evaluated
    assert "PRISM → RLVR, 40 + 60 steps: not all evaluated" in print_ablation_table(root)


def test_only_seeds_that_both_have_are_compared(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    evaluate(root / "cells" / "full", "align", {"color": [1, 1]}, seed=0)
    evaluate(root / "cells" / "full", "align", {"color": [1, 0]}, seed=1)
    evaluate(root / "cells" / "no-alignment", "sft", {"color": [0, 1]}, seed=1)
    gain = measured(root)["no-alignment"].checkpoints[BEFORE_RLVR].gains["greedy"][OVERALL]
    assert gain is not None
    assert (gain.mean, gain.count, gain.num_seeds) == (0.0, 2, 1)
    assert "1 of 2 seeds" in render_ablation(root).read_text(encoding="utf-8")


def test_answers_to_different_test_sets_are_not_paired(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    evaluate(root / "cells" / "no-alignment", "sft-grpo", {"color": [1, 0, 0, 0], "chart": [0, 0]}, test="b" * 64)
    checkpoint = measured(root)["no-alignment"].checkpoints[GRPO]
    gain = checkpoint.gains["greedy"][OVERALL]
    assert gain is not None
    assert (gain.mean, gain.num_seeds) == (pytest.approx(0.25), 1), "seed 1 alone"
    assert checkpoint.scores["greedy"][OVERALL] is not None


def test_an_algorithm_on_a_test_set_of_its_own_is_in_no_mean(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "dense"))
    full, dense = write_cell(tmp_path, "full"), write_cell(tmp_path, "dense", discriminator={"type": "dense"})
    for cell in (full, dense):
        evaluate(cell, "prism-grpo", {"color": [1, 0]})
        evaluate(cell, "prism-gspo", {"color": [1, 0]}, test=("b" if cell is dense else "a") * 64)
    checkpoints = measured(tmp_path)["dense"].checkpoints
    assert checkpoints[GRPO].gains["greedy"][OVERALL] is not None
    assert checkpoints[GSPO].gains["greedy"][OVERALL] is None
    assert checkpoints[MEAN].gains["greedy"][OVERALL] is None and not checkpoints[MEAN].is_evaluated
    assert re.search(
        r"^  dense +PRISM → RLVR, .*: not all evaluated on one test set", print_ablation_table(tmp_path), re.M
    )
