"""Ablations: which seeds and cells are put together, and what they lack is said."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ablation_runs import (
    GRPO,
    RECIPE,
    WITHOUT,
    evaluate,
    measured,
    two_seeds,
    write,
    write_cell,
    write_game,
    write_lines,
    write_listing,
)
from prism.config import load_recipe
from prism.errors import DataError
from prism.report import print_ablation_table, render_ablation
from prism.report.ablation import changed_settings, read_listing
from prism.report.ablation_checkpoints import BEFORE_RLVR, COLUMNS, OVERALL


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
