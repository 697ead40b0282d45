"""What is missing is named; nothing is missing where nothing is."""

from collections.abc import Callable
from pathlib import Path

from prism.report.completeness import left_over_parts, missing_parts
from prism.report.rundir import read_run

MakeRun = Callable[..., Path]


def test_a_complete_run_lacks_nothing(full_run: Path) -> None:
    assert missing_parts(read_run(full_run)) == []


def test_missing_stages_are_named_with_their_seeds(make_run: MakeRun, add_stage: MakeRun) -> None:
    run = make_run(seeds=(0, 1), stages=("base", "sft", "warmup", "sft-grpo", "prism-grpo", "prism-dapo"))
    add_stage(run, 0, "align")
    assert missing_parts(read_run(run)) == ["Missing stages: PRISM (align, seed 1), PRISM → GSPO (prism-gspo)"]


def test_a_seed_that_never_began_is_missing(make_run: MakeRun) -> None:
    run = make_run(seeds=(0, 1))
    (run / "seed-1").rename(run / "elsewhere")
    (line,) = missing_parts(read_run(run))
    assert line.startswith(
        "Missing stages: Base (base, seed 1), SFT (sft, seed 1), Discriminator warm-up (warmup, seed 1)"
    )


def test_running_and_unevaluated_stages(make_run: MakeRun, add_stage: MakeRun) -> None:
    run = make_run(seeds=(0,))
    for name in ("summary.json", "items.jsonl"):
        (run / "seed-0" / "sft" / "evaluation" / name).unlink()
    for name in ("summary.json", "items.jsonl"):
        (run / "seed-0" / "prism-gspo" / "evaluation" / name).unlink()
    add_stage(run, 0, "prism-gspo", status="running")
    assert missing_parts(read_run(run)) == ["Not finished: PRISM → GSPO (prism-gspo)", "Not evaluated: SFT (sft)"]


def test_a_stage_the_recipe_does_not_know_is_named_and_no_gap(make_run: MakeRun, add_stage: MakeRun) -> None:
    run = make_run(seeds=(0,))
    add_stage(run, 0, "sft-extra")
    found = read_run(run)
    assert (missing_parts(found), left_over_parts(found)) == ([], ["Not in the recipe: sft-extra"])
