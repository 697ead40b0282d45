"""Ablations: differences worked by hand, cells that lack something, and a page that asks nothing of the outside."""

import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ablation_runs import RECIPE, WITHOUT, evaluate, two_seeds, write, write_cell, write_lines, write_listing
from prism.config import load_recipe
from prism.errors import DataError
from prism.report import print_ablation_table, render_ablation, render_report
from prism.report.ablation import Cell, changed_settings, measured_cells, read_listing
from prism.report.ablation_checkpoints import BEFORE_RLVR, COLUMNS, OVERALL, Group
from prism.report.ablation_figures import alpha_section, course_lines, game_lines
from prism.report.ablation_text import worth_of_alignment

GRPO, GSPO, MEAN = Group(("grpo",)), Group(("gspo",)), Group(("grpo", "gspo"))
T1 = 12.7062  # Student's two-sided 95% point with one degree of freedom, as printed in tables


def measured(root: Path) -> dict[str, Cell]:
    return {cell.name: cell for cell, _ in measured_cells(read_listing(root))}


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


def test_seeds_of_an_older_recipe_are_no_part_of_a_mean(tmp_path: Path) -> None:
    """Three seeds of forty steps, then the first one anew with eighty."""
    write_listing(tmp_path, ("full",))
    full = write_cell(tmp_path, "full", seeds=(0,), align=RECIPE["align"] | {"num_steps": 80})
    for seed, num_steps in ((0, 80), (1, 40), (2, 40)):
        evaluate(full, "align", {"color": [seed == 0, 1]}, seed=seed, num_steps=num_steps)
    write(full / "seed-2" / "failure.json", {"error": "no valid rollout"})
    score = measured(tmp_path)["full"].checkpoints[BEFORE_RLVR].scores["greedy"][OVERALL]
    assert score is not None and (score.mean, score.num_seeds) == (1.0, 1)
    text, page = print_ablation_table(tmp_path), render_ablation(tmp_path).read_text(encoding="utf-8")
    for seed in (1, 2):
        line = f"full: Seed {seed} is left out: of another recipe: align was made with align.num_steps=40"
        assert line in text.splitlines() and line in page
    assert "no valid rollout" not in text and "ended with an error" not in text


def test_the_note_on_intervals_is_by_the_seeds_that_there_are(tmp_path: Path) -> None:
    """A seed may have been run by itself, after the others, and one that is asked for not yet."""
    write_listing(tmp_path, ("full",))
    rlvr = RECIPE["rlvr"] | {"algorithms": [{"type": "grpo"}]}
    full = write_cell(tmp_path, "full", seeds=(2,), warmup=None, rlvr=rlvr)
    for seed in (0, 1):
        for stage in ("base", "sft", "align", "prism-grpo"):
            evaluate(full, stage, {"color": [1, 0]}, seed=seed)
    assert "Means over two seeds" in print_ablation_table(tmp_path)
    for stage in ("base", "sft", "align", "prism-grpo"):
        evaluate(full, stage, {"color": [0, 1]}, seed=2)
    text = print_ablation_table(tmp_path)
    assert "Means over up to 3 seeds with 95% intervals over seeds and test items" in text
    assert "<dd>0, 1, 2</dd>" in render_ablation(tmp_path).read_text(encoding="utf-8")
    evaluate(write_cell(tmp_path, "full", seeds=(3, 4, 5)), "align", {"color": [0, 1]}, seed=3)
    assert "one seed says nothing about how runs vary" in print_ablation_table(tmp_path), "three were asked for"


def test_left_over_links_are_named_and_the_ablation_is_complete(tmp_path: Path) -> None:
    """RLVR was narrowed to one of two algorithms."""
    write_listing(tmp_path, ("full",))
    full = write_cell(tmp_path, "full", warmup=None, rlvr=RECIPE["rlvr"] | {"algorithms": [{"type": "grpo"}]})
    for stage in ("base", "sft", "align", "prism-grpo", "prism-gspo"):
        evaluate(full, stage, {"color": [1, 0]})
    assert "full: Not in the recipe: prism-gspo" in print_ablation_table(tmp_path).splitlines()
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "Complete: every stage of all 1 cells finished." in page and "full: Not in the recipe: prism-gspo" in page
    assert "This ablation is not complete." not in page and "<td>complete; Not in the recipe: prism-gspo</td>" in page


def complete_cells(root: Path, versions: Mapping[str, str], **recipes: Mapping[str, Any]) -> None:
    """Cells with all of their stages but RLVR's, each by its version of the code."""
    for name, version in versions.items():
        cell = write_cell(root, name, warmup=None, rlvr=None, **recipes.get(name, {}))
        for stage in ("base", "sft", "align"):
            evaluate(cell, stage, {"color": [1, 0]}, code_version=version)


def test_a_cell_left_over_from_another_recipe_is_told(tmp_path: Path) -> None:
    """The newest command ran one cell with another SFT than the other cell has."""
    complete_cells(tmp_path, {"full": "1a", "kl": "1a"}, full={"sft": {"num_steps": 35}, "threads": 2})
    asked = {
        name: json.loads((tmp_path / "cells" / name / "recipe.json").read_text()) | {"sft": {"num_steps": 35}}
        for name in ("full", "kl")
    }
    asked["full"].pop("threads")
    write_listing(tmp_path, ("full", "kl"), recipes=asked)
    line = "kl: Of another recipe than the newest command's, with sft.num_steps=30"
    text, page = print_ablation_table(tmp_path), render_ablation(tmp_path).read_text(encoding="utf-8")
    assert line in text.splitlines() and line.replace("'", "&#x27;") in page
    assert "full: Of another recipe" not in text, "with how many threads is no matter"
    assert "Not all cells can be compared." in page and "This ablation is not complete." not in page


def test_cells_of_different_code_are_told(tmp_path: Path) -> None:
    versions = {"full": "1a" * 32, "kl": "2b" * 32, "dense": "1a" * 32}
    complete_cells(tmp_path, versions)
    write_listing(tmp_path, ("full", "kl", "dense"))
    told = [line for line in print_ablation_table(tmp_path).splitlines() if " code " in line]
    assert told == ["kl: Of other code than full, 2b2b2b2 and not 1a1a1a1, seed 0"]
    evaluate(tmp_path / "cells" / "full", "align", {"color": [1, 0]}, code_version="3c" * 32)
    told = [line for line in print_ablation_table(tmp_path).splitlines() if " code " in line]
    assert told[0] == "full: Of code of several versions, 1a1a1a1 and 3c3c3c3, seed 0"


def test_seeds_of_different_code_are_told_and_put_together(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "kl"))
    for name in ("full", "kl"):
        cell = write_cell(tmp_path, name, seeds=(0, 1, 2), warmup=None, rlvr=None)
        for seed, version in ((0, "1a"), (1, "1a"), (2, "2b")):
            for stage in ("base", "sft", "align"):
                evaluate(cell, stage, {"color": [1, 0]}, seed=seed, code_version=version * 32)
    line = (
        "Seeds ran different code (seeds 0, 1: 1a1a1a1; seed 2: 2b2b2b2): a mean over them is one over these versions."
    )
    assert line in print_ablation_table(tmp_path).splitlines()
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert line in page and "Complete: every stage of all 2 cells finished." in page
    assert "<dd>1a1a1a1, 2b2b2b2</dd>" in page


def test_rollouts_stand_beside_steps(tmp_path: Path) -> None:
    """The warm-up samples twice for each of its (4 + 1) · 8 prompts; what dynamic sampling discards is counted."""
    write_listing(tmp_path, ("full",))
    warmup = {"num_steps": 4, "batch_size": 8, "num_heldout": 8}
    rlvr = RECIPE["rlvr"] | {"group_size": 4, "algorithms": [{"type": "dapo", "overlong_buffer": 64}, {"type": "grpo"}]}
    full = write_cell(tmp_path, "full", seeds=(0, 1), warmup=warmup, rlvr=rlvr)
    for seed, generated in ((0, 10), (1, 14)):
        write_game(full, seed, [{"rollout/count": 64}, {"rollout/count": 64}])
        write_game(full, seed, [{"rollout/count": 32, "dapo/generated_prompts": generated}], "prism-dapo")
        write_game(full, seed, [{"rollout/count": 32}], "prism-grpo")
    text = print_ablation_table(tmp_path)
    assert "PRISM, 40 steps, 208 rollouts" in text
    assert "PRISM → GRPO, 40 + 60 steps, 240 rollouts" in text
    assert "PRISM → DAPO, 40 + 60 steps, 256 rollouts" in text, "80 + 128 and the mean of 40 and 56"
    assert "PRISM → RLVR, 40 + 60 steps, 240 to 256 rollouts" in text
    write_lines(full / "seed-0" / "prism-grpo" / "metrics.jsonl", [{"step": 1}])
    write_lines(full / "seed-1" / "prism-grpo" / "metrics.jsonl", [{"step": 1}])
    assert "PRISM → GRPO, 40 + 60 steps: not evaluated" in print_ablation_table(tmp_path), "not recorded"


def test_the_share_of_valid_responses_stands_beside_descriptions(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "dense"))
    for name in ("full", "dense"):
        evaluate(write_cell(tmp_path, name), "prism-grpo", {"color": [1, 0, 0, 0]})
    items = tmp_path / "cells" / "dense" / "seed-0" / "prism-grpo" / "evaluation" / "items.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    write_lines(items, [row | {"is_valid": place > 0} for place, row in enumerate(rows)])
    gain = measured(tmp_path)["dense"].checkpoints[GRPO].gains["greedy"][-1]
    assert COLUMNS[-1].metric == "valid" and gain is not None and gain.mean == 0.25
    assert re.search(r"described items right +valid +n$", print_ablation_table(tmp_path), re.M)
    assert "Format, all</th>" in render_ablation(tmp_path).read_text(encoding="utf-8")


def test_cells_that_lack_something_are_listed(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    write_listing(root, ("full", "no-alignment", "dense", "text-only"))
    write_cell(root, "dense", seeds=(0, 1), discriminator={"type": "dense"})
    text = print_ablation_table(root)
    lines = text.splitlines()
    assert "Not begun: text-only" in lines
    assert any(line.startswith("dense: Missing stages: Base (base), SFT (sft)") for line in lines)
    assert any(line.startswith("no-alignment: Missing stages: ") for line in lines)
    grpo = text[text.index("\nGRPO, greedy") : text.index("\nGSPO, greedy")]
    assert re.search(r"^  dense +PRISM → GRPO, 40 \+ 60 steps: not evaluated( +–){7}$", grpo, re.MULTILINE)
    gains = (r"\+12\.5 \(\+25\.0 · 0\.0\)", r"\+50\.0 \(\+50\.0 · \+50\.0\)", r"\+31\.2 \(\+37\.5 · \+25\.0\)")
    assert re.search(rf"^    full less it +{' +'.join(gains)}", grpo, re.MULTILINE)
    page = render_ablation(root).read_text(encoding="utf-8")
    assert "This ablation is not complete." in page
    assert "3 of 4 begun" in page
    assert page.count("Not begun: text-only") == 1 + 2 * len(read_listing(root).groups)


def test_cells_whose_alignment_is_warned_of_say_so(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    event = {"step": 40, "event": "warning", "diagnosis": "discriminator-blind", "reason": "perception: 0.500"}
    write_lines(root / "cells" / "full" / "seed-1" / "align" / "events.jsonl", [event])
    write(root / "cells" / "full" / "seed-1" / "align" / "manifest.json", {"kind": "align", "status": "complete"})
    line = "warning of its alignment: discriminator-blind (seed 1)"
    assert f"full: {line}" in print_ablation_table(root).splitlines()
    assert render_ablation(root).read_text(encoding="utf-8").count(line) == 1


def test_a_cell_without_an_algorithm_is_named(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    write_listing(root, ("full", "no-alignment", "one"))
    write_cell(root, "one", rlvr=RECIPE["rlvr"] | {"algorithms": [{"type": "grpo"}]})
    text = print_ablation_table(root)
    assert text.count("Not in the recipe of: one") == 4, "GSPO and the mean, greedy and sampled"
    assert "Not in the recipe of: one" in render_ablation(root).read_text(encoding="utf-8")


def test_a_baseline_inside_a_cell_is_not_the_cells_result(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full",))
    full = write_cell(tmp_path, "full", rlvr=RECIPE["rlvr"] | {"baselines": ["grpo"]})
    evaluate(full, "sft-grpo", {"color": [1, 1]})
    checkpoint = measured(tmp_path)["full"].checkpoints[GRPO]
    assert checkpoint.title == "PRISM → GRPO, 40 + 60 steps"
    assert not checkpoint.is_evaluated


def test_without_the_reference_there_are_scores_and_no_differences(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "dense"))
    evaluate(write_cell(tmp_path, "dense", discriminator={"type": "dense"}), "prism-grpo", {"color": [1, 0]})
    dense = measured(tmp_path)["dense"]
    assert dense.changes is None
    assert dense.checkpoints[GRPO].scores["greedy"][OVERALL] is not None
    assert dense.checkpoints[GRPO].gains["greedy"] == (None,) * len(COLUMNS)
    assert "Not begun: full" in render_ablation(tmp_path).read_text(encoding="utf-8")


def test_changed_settings(tmp_path: Path) -> None:
    kl = RECIPE["align"] | {"kl": {"coefficient": 0.01}}
    paths = [
        write_cell(tmp_path, "full"),
        write_cell(tmp_path, "other", align=kl, discriminator={"type": "dense"}, seeds=(0, 7)),
        write_cell(tmp_path, "none", **WITHOUT),
    ]
    full, other, none = (load_recipe(path / "recipe.json") for path in paths)
    assert changed_settings(full, full) == {}
    assert changed_settings(other, full) == {
        "discriminator.type": "dense",
        "discriminator.width": 2,
        "align.kl": {"coefficient": 0.01, "kind": "k3"},
    }
    assert changed_settings(none, full) == {"warmup": None, "align": None, "rlvr.num_steps": 100}


def test_a_directory_that_is_no_ablation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ablation\.json"):
        print_ablation_table(tmp_path)


@pytest.mark.parametrize(
    "listing", [{"reference": "full", "cells": ["../full"]}, {"reference": "x", "cells": ["full"]}]
)
def test_a_listing_that_leads_elsewhere_is_refused(tmp_path: Path, listing: dict[str, Any]) -> None:
    write(tmp_path / "ablation.json", listing)
    with pytest.raises(DataError, match=r"ablation\.json"):
        render_ablation(tmp_path)


def write_game(cell: Path, seed: int, rows: Sequence[Mapping[str, Any]], stage: str = "align") -> None:
    path = cell / f"seed-{seed}" / stage
    write(path / "manifest.json", {"name": stage, "kind": "rlvr" if "-" in stage else stage, "status": "complete"})
    write_lines(path / "metrics.jsonl", [{"step": step, **row} for step, row in enumerate(rows, start=1)])


def test_curves_of_the_game_are_means_over_seeds_for_each_mode(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "whole", "kl"))
    full = write_cell(tmp_path, "full", seeds=(0, 1))
    whole = write_cell(tmp_path, "whole", discriminator={"type": "whole-response"})
    kl = write_cell(tmp_path, "kl", align=RECIPE["align"] | {"kl": {"coefficient": 0.01}})
    write_game(full, 0, [{"gap/perception": 1.0, "accuracy/perception": 0.9}, {"gap/perception": 0.5}])
    write_game(full, 1, [{"gap/perception": 2.0, "accuracy/perception": 0.7}, {"gap/perception": None}])
    write_game(whole, 0, [{"gap/response": 0.25, "accuracy/response": 0.75}])
    write_game(kl, 0, [{"gap/perception": 1.0}])
    found = [game_lines(cell, run) for cell, run in measured_cells(read_listing(tmp_path)) if run is not None]
    assert found[0]["gap/perception"].points == ((1, 1.5), (2, None))
    assert found[0]["gap/perception"].label == "full (moe)"
    assert found[0]["accuracy/perception"].points == ((1, pytest.approx(0.8)),)
    assert {metric: line.points for metric, line in found[1].items()} == {
        "gap/response": ((1, 0.25),),
        "accuracy/response": ((1, 0.75),),
    }
    assert found[2] == {}, "a cell that changes something else has the reference's discriminator"
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "Score gap, whole response" in page
    assert "Score gap, perception" in page
    assert "Score gap, reasoning" not in page


def test_rollouts_of_both_arms_share_an_axis_that_begins_after_sft(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "no-alignment", "dense"))
    full = write_cell(tmp_path, "full", seeds=(0, 1))
    control = write_cell(tmp_path, "no-alignment", **WITHOUT)
    dense = write_cell(tmp_path, "dense", discriminator={"type": "dense"})
    for seed, length in ((0, 90.0), (1, 110.0)):
        write_game(full, seed, [{"rollout/length": length}, {"rollout/length": length + 20}])
        write_game(full, seed, [{"rollout/length": 80.0, "reward/accuracy": 0.5 + seed / 2}], "prism-grpo")
    write_game(control, 0, [{"rollout/length": 60.0, "reward/accuracy": 0.25}], "sft-grpo")
    write_game(dense, 0, [{"rollout/length": 60.0}], "prism-grpo")
    found = [course_lines(cell, run) for cell, run in measured_cells(read_listing(tmp_path)) if run is not None]
    assert [{key: line.points for key, line in lines.items()} for lines in found] == [
        {("grpo", "rollout/length"): ((1, 100), (2, 120), (3, 80)), ("grpo", "reward/accuracy"): ((3, 0.75),)},
        {("grpo", "rollout/length"): ((1, 60),), ("grpo", "reward/accuracy"): ((1, 0.25),)},
        {},
    ]
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert '<section id="course">' in page and "Response length, tokens" in page
    assert "steps after SFT<" in page and "kept groups" not in page


def test_courses_without_sft_begin_after_the_base(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "no-alignment"))
    full, control = write_cell(tmp_path, "full", sft=None), write_cell(tmp_path, "no-alignment", sft=None, **WITHOUT)
    write_game(full, 0, [{"rollout/length": 90.0}])
    write_game(full, 0, [{"rollout/length": 90.0}], "prism-grpo")
    write_game(control, 0, [{"rollout/length": 90.0}], "base-grpo")
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "in steps after the base:" in page and "steps after the base<" in page and "after SFT" not in page
    control = write_cell(tmp_path, "no-alignment", **WITHOUT)
    write_game(control, 0, [{"rollout/length": 90.0}], "sft-grpo")
    assert "steps after SFT, or the base without one<" in render_ablation(tmp_path).read_text(encoding="utf-8")


def test_charts_of_dynamic_sampling_say_that_they_show_kept_groups_alone(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full",))
    rlvr = RECIPE["rlvr"] | {"algorithms": [{"type": "dapo", "overlong_buffer": 64}, {"type": "grpo"}]}
    full = write_cell(tmp_path, "full", rlvr=rlvr)
    for stage in ("prism-dapo", "prism-grpo"):
        write_game(full, 0, [{"rollout/length": 90.0}])
        write_game(full, 0, [{"rollout/length": 90.0, "reward/accuracy": 0.5}], stage)
    for page in (render_ablation(tmp_path), render_report(full)):
        assert "only the groups that it keeps are counted" in page.read_text(encoding="utf-8")
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    dapo, grpo = page[page.index("<h3>DAPO") : page.index("<h3>GRPO")], page[page.index("<h3>GRPO") :]
    assert "Right answers of the rollouts, of kept groups<" in dapo and "kept groups" not in grpo


def test_the_band_of_accuracy_is_that_of_the_reference(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "dense"))
    control = {"control": {"low": 0.5, "high": 0.9}}
    full = write_cell(tmp_path, "full", align=RECIPE["align"] | control)
    dense = write_cell(tmp_path, "dense", discriminator={"type": "dense"})
    for cell in (full, dense):
        write_game(cell, 0, [{"accuracy/perception": 0.9}, {"accuracy/perception": 0.7}])
    page = render_ablation(tmp_path).read_text(encoding="utf-8")
    assert "the band is 50% to 90%" in page
    [(bottom, level)] = [
        (float(top) + float(height), float(level))
        for top, height, level in re.findall(
            r'y="([\d.]+)" [^>]*height="([\d.]+)" class="band"/><line [^>]*y1="([\d.]+)"', page
        )
    ]
    assert bottom == pytest.approx(level, abs=0.02), "its lower edge is chance"
    write_cell(tmp_path, "full")
    assert "the band is 65% to 85%" in render_ablation(tmp_path).read_text(encoding="utf-8")


def test_each_cell_shows_its_own_drift(tmp_path: Path) -> None:
    root = two_seeds(tmp_path)
    steps = {"mean": 1.5, "low": None, "high": None, "count": 6, "plug_in": 1.5, "floor": 0.1}
    for seed in (0, 1):
        path = root / "cells" / "full" / f"seed-{seed}" / "prism-grpo" / "evaluation" / "summary.json"
        drift = {"reference": "test", "greedy": {"reasoning/steps": steps}, "sampled": {}}
        write(path, json.loads(path.read_text(encoding="utf-8")) | {"drift": drift})
    page = render_ablation(root).read_text(encoding="utf-8")
    section = page[page.index('<section id="distributions">') : page.index('<section id="cells">')]
    ours, theirs = section.split("Cell no-alignment")
    assert "<td>1.50<small>1.50 · 1.50</small></td>" in ours
    assert "Drift from the teacher, greedy" in ours and "PRISM → GRPO<small>n = 12</small>" in ours
    assert "Drift" not in theirs, "its evaluations hold none"


def test_accuracy_against_alpha(tmp_path: Path) -> None:
    write_listing(tmp_path, ("full", "alpha-1", "alpha-0", "kl"))
    right = {"full": [1, 1, 0, 0], "alpha-1": [1, 0, 0, 0], "alpha-0": [1, 1, 1, 0], "kl": [1, 1, 1, 1]}
    align = {
        "alpha-1": {"advantage": {"alpha": 1.0}},
        "alpha-0": {"advantage": {"alpha": 0.0}},
        "kl": {"kl": {"coefficient": 0.01}},
    }
    for name, answers in right.items():
        cell = write_cell(tmp_path, name, align=RECIPE["align"] | align.get(name, {}))
        evaluate(cell, "align", {"color": answers})
    listing = read_listing(tmp_path)
    cells = [cell for cell, _ in measured_cells(listing)]
    section = str(alpha_section(listing, cells))
    [curve] = re.findall(r'<polyline points="([^"]+)"', section)
    points = [tuple(map(float, pair.split(","))) for pair in curve.split()]
    bars = [
        tuple(map(float, found))
        for found in re.findall(r'<line x1="([\d.]+)" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)" class="curve', section)
    ]
    # α = 0, ½, 1 with .75, .5, .25: equal steps on both axes. Each bar reaches .1 to both sides of its point.
    assert points[1] == pytest.approx([(points[0][i] + points[2][i]) / 2 for i in (0, 1)], abs=0.02)
    assert points[0][0] < points[2][0] and points[0][1] < points[2][1]
    per_unit = (points[2][1] - points[0][1]) / 0.5
    assert [(x, (low + high) / 2) for x, low, high in bars] == [pytest.approx(point, abs=0.02) for point in points]
    assert [abs(high - low) for _, low, high in bars] == pytest.approx([0.2 * per_unit] * 3, abs=0.05)
    assert alpha_section(listing, [cell for cell in cells if not cell.name.startswith("alpha")]) is None


def test_accuracy_against_alpha_is_over_the_seeds_that_all_have(tmp_path: Path) -> None:
    """The reference has a seed more, on whose questions it does worse."""
    write_listing(tmp_path, ("full", "alpha-1"))
    full = write_cell(tmp_path, "full", seeds=(0, 1))
    other = write_cell(tmp_path, "alpha-1", seeds=(1,), align=RECIPE["align"] | {"advantage": {"alpha": 1.0}})
    evaluate(full, "align", {"color": [0, 0, 0, 0]}, seed=0)
    evaluate(full, "align", {"color": [1, 1, 0, 0]}, seed=1)
    evaluate(other, "align", {"color": [1, 0, 0, 0]}, seed=1)
    listing = read_listing(tmp_path)
    section = str(alpha_section(listing, [cell for cell, _ in measured_cells(listing)]))
    assert "Before RLVR, seed 1<" in section and "seeds 0" not in section
    bars = re.findall(r'<line x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)" class="curve', section)
    heights = [(float(low) + float(high)) / 2 for low, high in bars]
    length = float(bars[0][0]) - float(bars[0][1])
    # From .5 to .25 with limits of .1 to both sides.
    assert heights[1] - heights[0] == pytest.approx(0.25 / 0.2 * length, abs=0.05)


class Page(HTMLParser):
    """Tags with their attributes, while nesting is checked; what is closed at once is not counted as open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page_text(tmp_path: Path, hostile: str) -> str:
    """Two seeds, games, two values of α; one setting holds markup and an address."""
    root = two_seeds(tmp_path)
    write_listing(root, ("full", "no-alignment", "alpha-0", "hostile"))
    for name, settings in (
        ("full", {}),
        ("alpha-0", {"align": RECIPE["align"] | {"advantage": {"alpha": 0.0}}}),
        ("hostile", {"discriminator": {"dense": hostile}}),
    ):
        cell = write_cell(root, name, seeds=(0, 1), **settings)
        for seed in (0, 1):
            evaluate(cell, "align", {"color": [seed, 1, 0], "chart": [1, 0]}, seed=seed)
            write_game(cell, seed, [{"gap/perception": 1.0}, {"gap/perception": 0.5}])
            write(cell / f"seed-{seed}" / "data" / "teacher_distribution.json", {"num_steps": {"3": 4, "4": 4}})
    return render_ablation(root).read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_its_links_stay_inside(page_text: str) -> None:
    page = Page(page_text)
    assert page.stack == []
    assert page_text.startswith("<!doctype html>")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"results", "game", "distributions", "alpha", "cells"} <= set(ids)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) == 5
    assert all(link is not None and link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_asks_nothing_of_the_outside_and_runs_nothing(page_text: str, hostile: str) -> None:
    page = Page(page_text)
    assert str(Path(hostile)) in page.text
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "img"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert not any(re.search(r"https?:|//", value or "") for value in attributes.values())


def test_the_page_shows_one_mode_at_a_time(page_text: str) -> None:
    page = Page(page_text)
    switch = [attributes["id"] for tag, attributes in page.tags if tag == "input"]
    assert switch == ["mode-greedy", "mode-sampled"]
    for mode in ("greedy", "sampled"):
        assert f'<div class="only-{mode}">' in page_text


def test_every_colour_of_the_page_is_in_the_stylesheet(page_text: str) -> None:
    style = page_text[page_text.index("<style>") : page_text.index("</style>")]
    used = {c for _, a in Page(page_text).tags for c in (a.get("class") or "").split() if c.startswith("c-")}
    assert {"c-cell-1", "c-cell-2", "c-cell-3", "c-align"} <= used
    assert all(re.search(rf"^\.{re.escape(name)} {{ --c: var\((--[\w-]+)\); }}$", style, re.MULTILINE) for name in used)


def test_the_main_comparison_stands_in_words(page_text: str) -> None:
    text = Page(page_text).text
    pair = "GRPO: PRISM → GRPO, 40 + 60 steps (full) against SFT → GRPO, 100 steps (no-alignment): +31.2"
    assert pair in text
    assert "no-alignment: warmup=none align=none rlvr.num_steps=100" in text
    assert "(+37.5 · +25.0) points of greedy accuracy over all sub-benchmarks (12 pairs, 2 seeds). Two seeds" in text
