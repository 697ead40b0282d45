"""Where the cells of an ablation keep what they share."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prism.config import PlannedStage, Recipe, load_ablation, load_recipe, matched_steps, plan_stages
from prism.errors import DataError, StorageError
from prism.report.ablation import read_listing
from prism.stages import ablation, rlvr
from prism.stages.ablation import describe_ablation, run_ablation, stage_keys
from prism.stages.workspace import Workspace

FULL = Path(__file__).parents[3] / "recipes" / "tiny" / "full.toml"


def keys(*settings: str) -> dict[str, str]:
    return stage_keys(load_recipe(FULL, settings), seed=0)


def test_a_stage_is_shared_until_something_it_depends_on_differs() -> None:
    plain, other = keys(), keys("align.advantage.alpha=0.25")
    assert {name for name in plain if plain[name] != other[name]} == {"align", "prism-grpo", "prism-dapo", "prism-gspo"}


@pytest.mark.parametrize(
    "setting",
    [
        "precision=bfloat16",
        "lora.rank=4",
        "max_prompt_tokens=100",
        "max_pixels=10000",
        'rollout={type="vllm"}',
        "rollout.batch_size=8",
    ],
)
def test_what_is_part_of_a_stages_identity_is_part_of_its_key(setting: str) -> None:
    plain, other = keys(), keys(setting)
    trained = [stage.name for stage in plan_stages(load_recipe(FULL)) if stage.kind in ("sft", "warmup", "align")]
    assert all(plain[name] != other[name] for name in trained)


def test_one_base_serves_whatever_is_trained_on() -> None:
    """Only the questions of its evaluation are among the data that it depends on."""
    plain, other, fewer = keys(), keys("data.public=0"), keys("data.test_per_benchmark=3")
    assert plain["base"] == other["base"] != fewer["base"]
    assert all(plain[name] != other[name] for name in plain if name != "base")


def test_a_baseline_of_as_many_steps_is_one_stage_wherever_it_stands(tmp_path: Path) -> None:
    """As a baseline of a recipe, and as the RLVR of a cell that says how many steps: one place, one identity."""
    plain = load_recipe(FULL, ['rlvr.baselines=["grpo"]'])
    more = load_recipe(
        FULL, ["align=none", "warmup=none", "rlvr.baselines=[]", f"rlvr.num_steps={matched_steps(plain)}"]
    )
    assert stage_keys(plain, seed=0)["sft-grpo"] == stage_keys(more, seed=0)["sft-grpo"]
    identities = []
    for recipe in (plain, more):
        workspace = Workspace(recipe, 0, tmp_path / "run")
        [stage] = [stage for stage in plan_stages(recipe) if stage.name == "sft-grpo"]
        identities.append(opened_config(workspace, stage))
    assert identities[0] == identities[1]


def opened_config(workspace: Workspace, stage: PlannedStage) -> Any:
    """What a stage gives for its configuration, where it opens its run."""
    found = []

    def open_stage(planned: PlannedStage, config: Any, **_: Any) -> Any:
        found.append(config)
        return SimpleNamespace(is_complete=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "open_stage", lambda self, *arguments, **named: open_stage(*arguments, **named))
        rlvr.run(workspace, stage)
    return found[0]


def test_what_changes_speed_alone_shares_all() -> None:
    recipe: Recipe = load_recipe(FULL)
    assert keys("activation_checkpointing=true", "threads=2", "attention=flex") == stage_keys(recipe, seed=0)


@pytest.mark.parametrize(
    ("setting", "is_shared"),
    [
        ("audit.num_prompts=32", False),
        ("audit.every=10", False),
        ("audit={every=10, stop_on_flags=false}", True),
        ("audit.stop_on_flags=false", True),
    ],
)
def test_a_game_that_an_audit_can_stop_is_no_others(setting: str, is_shared: bool) -> None:
    plain, audited = keys(), keys(setting)
    assert (plain["align"] == audited["align"]) is is_shared
    assert plain["warmup"] == audited["warmup"] and plain["sft"] == audited["sft"]


def test_a_game_is_shared_by_those_that_are_stopped_alike() -> None:
    assert keys("audit.every=10")["align"] == keys("audit.every=10")["align"]
    assert keys("audit.every=10")["align"] != keys("audit.every=20")["align"], "another step to stop at"


def test_what_an_earlier_cell_has_is_marked_in_the_plan(tmp_path: Path) -> None:
    chosen = ["full", "no-alignment", "alpha-0.0", "no-sft"]
    lines = describe_ablation(load_ablation(FULL, output=tmp_path, chosen=chosen))
    plans: dict[str, dict[str, str]] = {}
    for line in lines:
        if line.startswith("plan for"):
            plan = plans.setdefault(Path(line.split(",")[0].split()[-1]).name, {})
        else:
            stage, text = line.split(maxsplit=1)
            plan[stage] = text
    shared = {
        name: {stage for stage, text in plan.items() if text == "run once, with full"} for name, plan in plans.items()
    }
    assert shared == {
        "full": set(),
        "no-alignment": {"base", "sft"},
        "alpha-0.0": {"base", "sft", "warmup"},
        "no-sft": {"base"},
    }
    assert plans["no-alignment"]["sft-grpo"].endswith("steps from sft (evaluated)")
    assert plans["no-sft"]["warmup"] == plans["full"]["warmup"], "on rollouts of another policy: not the same stage"


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A file of two cells with two seeds each, and the seeds that were run; seed 3 of `first` fails."""
    file, ran = tmp_path / "cells.toml", []
    file.write_text(
        f'name = "cells"\nrecipe = "{FULL}"\nreference = "first"\nsettings = ["seeds=[3, 4]"]\n'
        '[cells]\nfirst = []\nsecond = ["align.num_steps=3"]\n'
    )

    def run(recipe: Recipe, *, seeds: tuple[int, ...]) -> None:
        ran.append(f"{recipe.name}-{seeds[0]}")
        if ran[-1] == "first-3":
            raise DataError("no valid rollout")

    monkeypatch.setattr(ablation, "run_recipe", run)
    return file, ran


def test_a_seed_that_fails_is_told_and_the_others_run(cells: tuple[Path, list[str]], tmp_path: Path) -> None:
    file, ran = cells
    failures = run_ablation(load_ablation(file, output=tmp_path / "runs"))
    assert failures == ["first, seed 3: no valid rollout"]
    assert ran == ["first-3", "first-4", "second-3", "second-4"]
    assert [path.parent.parent.name for path in tmp_path.glob("runs/cells/*/*/failure.json")] == ["first"]


def test_the_list_of_cells_has_the_recipes_that_were_asked_for(cells: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Of the cells that were not chosen, too: the report tells by them which are left over."""
    loaded = load_ablation(cells[0], ["sft.num_steps=7"], output=tmp_path / "runs", chosen=["first"])
    run_ablation(loaded)
    listing = json.loads((tmp_path / "runs" / "ablation.json").read_text())
    assert listing["cells"] == list(listing["recipes"]) == ["first", "second"]
    assert [recipe["sft"]["num_steps"] for recipe in listing["recipes"].values()] == [7, 7]
    assert read_listing(tmp_path / "runs").asked == loaded.recipes


def test_what_would_end_the_next_cell_too_ends_the_ablation(
    cells: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(recipe: Recipe, *, seeds: tuple[int, ...]) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(ablation, "run_recipe", run)
    with pytest.raises(StorageError):
        run_ablation(load_ablation(cells[0], output=tmp_path / "runs"))


def test_under_torchrun_a_failure_ends_the_run_and_the_next_begins_with_the_others(
    cells: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever process failed: here the second one, of which each has its own environment."""
    file, ran = cells
    loaded = load_ablation(file, output=tmp_path / "runs")
    with monkeypatch.context() as second:
        second.setenv("WORLD_SIZE", "2")
        second.setenv("RANK", "1")
        second.setattr(ablation, "num_processes", lambda: 2)
        second.setattr(ablation, "processes", nullcontext)
        with pytest.raises(DataError):
            run_ablation(loaded)
    assert ran == ["first-3"] and (tmp_path / "runs/cells/first/seed-3/failure.json").is_file()
    ran.clear()
    assert run_ablation(loaded) == ["first, seed 3: no valid rollout"]
    assert ran == ["second-3", "second-4", "first-3", "first-4"]
