import math
from pathlib import Path

import pytest

from prism.config import describe_plan, load_recipe, matched_steps, plan_stages, select_stages
from prism.errors import ConfigError

DEMO = Path(__file__).with_name("example.toml")


def plan(*overrides: str) -> dict[str, tuple[str, tuple[str, ...], int | None]]:
    return {
        stage.name: (stage.start, stage.inputs, stage.num_steps) for stage in plan_stages(load_recipe(DEMO, overrides))
    }


def test_the_whole_method() -> None:
    assert plan() == {
        "base": ("shipped tiny base", (), 0),
        "sft": ("base", ("base",), 250),
        "warmup": ("base", ("base", "sft"), 16),
        "align": ("sft", ("sft", "warmup"), 40),
        "sft-grpo": ("sft", ("sft",), 79),
        "prism-grpo": ("align", ("align",), 30),
        "prism-dapo": ("align", ("align",), 30),
        "prism-gspo": ("align", ("align",), 30),
    }


def test_an_audit_comes_before_the_game_and_reads_what_the_game_starts_from() -> None:
    stages = plan("audit.num_prompts=32")
    assert list(stages)[2:5] == ["warmup", "audit", "align"]
    assert stages["audit"] == ("sft", ("sft", "warmup"), 0)
    assert {name: stage for name, stage in stages.items() if name != "audit"} == plan()
    assert plan("audit.num_prompts=32", "warmup=none")["audit"] == ("sft", ("sft",), 0)
    assert plan("audit.num_prompts=32", "sft=none")["audit"] == ("base", ("base", "warmup"), 0)


def test_the_baseline_gets_the_rollouts_of_warmup_alignment_and_rlvr() -> None:
    """The warm-up draws two rollouts of each of 32 + 3 · 16 prompts, alignment 7 times 4 · 8; a step of RLVR has 64."""
    settings = ("warmup.num_steps=3", "align.num_steps=7", "align.prompts_per_step=4", "rlvr.num_steps=11")
    recipe = load_recipe(DEMO, settings)
    stages = {stage.name: stage for stage in plan_stages(recipe)}
    assert stages["sft-grpo"].num_steps == matched_steps(recipe) == 11 + math.ceil((2 * 80 + 224) / 64)
    assert matched_steps(load_recipe(DEMO, [*settings, "warmup=none"])) == 11 + math.ceil(224 / 64)
    # Of two epochs the second has no pairs of its own, and an odd one is drawn.
    assert matched_steps(load_recipe(DEMO, [*settings, "warmup.num_epochs=2"])) == 11 + math.ceil((2 * 56 + 224) / 64)
    odd = load_recipe(DEMO, ["warmup.num_steps=3", "warmup.batch_size=5", "warmup.num_epochs=2"])
    assert odd.warmup is not None and odd.warmup.num_prompts == 32 + 8
    # The world has no more prompts than it is told to make.
    assert matched_steps(load_recipe(DEMO, [*settings, "data.alignment=64"])) == 11 + math.ceil((2 * 64 + 224) / 64)
    assert [name for name, stage in stages.items() if stage.is_baseline] == ["sft-grpo"]


def test_baselines_are_chosen_by_name_in_the_order_of_the_algorithms() -> None:
    names = list(plan('rlvr.baselines=["gspo", "grpo"]'))
    assert names[4:6] == ["sft-grpo", "sft-gspo"]
    assert "sft-grpo" not in plan("rlvr.baselines=[]")
    assert "sft-grpo" in plan("rlvr.baselines=none")


def test_without_sft_everything_starts_from_the_base() -> None:
    stages = plan("sft=none")
    assert stages["align"][:2] == ("base", ("base", "warmup"))
    assert stages["warmup"][1] == ("base",)
    assert stages["base-grpo"][0] == "base"


SECOND_SFT = "second_sft={num_epochs=1,max_response_tokens=240,token_budget=640}"


def test_all_behind_a_second_sft_start_from_it() -> None:
    stages = plan(SECOND_SFT)
    assert list(stages)[:3] == ["base", "sft", "second-sft"]
    assert stages["second-sft"] == ("sft", ("sft",), 25)  # 400 demonstrations of alignment in batches of 16
    assert stages["warmup"] == ("base", ("base", "second-sft"), 16)
    assert stages["align"] == ("second-sft", ("second-sft", "warmup"), 40)
    assert stages["second-sft-grpo"] == ("second-sft", ("second-sft",), 79)
    assert plan(SECOND_SFT, "audit.num_prompts=32")["audit"][1] == ("second-sft", "warmup")
    alone = plan(SECOND_SFT, "sft=none", "align=none", "warmup=none", "rlvr.baselines=none")
    assert list(alone)[1:3] == ["second-sft", "second-sft-grpo"] and alone["second-sft"][0] == "base"


def test_a_second_sft_needs_what_alignment_needs() -> None:
    with pytest.raises(ConfigError, match=r"data\.alignment: the recipe's second_sft, warmup or align stage reads it"):
        load_recipe(DEMO, [SECOND_SFT, "data.type=files", 'data.sft=["a"]', "align=none", "warmup=none"])
    with pytest.raises(ConfigError, match=r"second_sft\.batch_size = 16: must not exceed data\.alignment \(9\)"):
        load_recipe(DEMO, [SECOND_SFT, "data.alignment=9", "align=none", "warmup=none", "rlvr.baselines=none"])


def test_without_warmup_the_discriminator_comes_straight_from_its_source() -> None:
    assert plan("warmup=none")["align"][1] == ("sft", "base")
    assert plan("warmup=none", "discriminator.checkpoint=judge")["align"][1] == ("sft",)
    assert plan("warmup=none", "discriminator.dense=models/2b")["align"][1] == ("sft",)


def test_a_dense_model_of_ones_own_for_the_discriminator() -> None:
    assert plan("discriminator.dense=models/2b")["warmup"] == ("models/2b", ("sft",), 16)
    assert plan("discriminator.checkpoint=judge")["warmup"] == ("judge", ("sft",), 16)


@pytest.mark.parametrize("mode", ["moe", "dedicated", "dense", "text-only", "whole-response"])
def test_every_mode_is_made_from_the_base(mode: str) -> None:
    assert plan(f"discriminator.type={mode}") == plan()


def test_without_alignment_every_algorithm_starts_from_sft_and_none_is_a_baseline() -> None:
    recipe = load_recipe(DEMO, ["align=none", "warmup=none", "rlvr.baselines=none"])
    stages = plan_stages(recipe)[2:]
    assert [(stage.name, stage.start, stage.num_steps) for stage in stages] == [
        ("sft-grpo", "sft", 30),
        ("sft-dapo", "sft", 30),
        ("sft-gspo", "sft", 30),
    ]
    assert not any(stage.is_baseline for stage in stages)


def test_epochs_become_steps_where_the_data_are_counted() -> None:
    # 3000 public and 300 curated demonstrations in batches of 16, one and a half times: 4950 / 16 = 309.4
    assert plan("sft.num_steps=none", "sft.num_epochs=1.5")["sft"][2] == 310
    files = ["data.type=files", 'data.sft=["a.json"]', "data.alignment=b", "data.rl=c", "data.test=d"]
    assert plan(*files, "sft.num_steps=none", "sft.num_epochs=1.5")["sft"][2] is None


def test_inputs_always_come_earlier() -> None:
    for overrides in ([], ["sft=none"], [SECOND_SFT], ["warmup=none"], ["align=none", "rlvr.baselines=none"]):
        done: set[str] = set()
        for stage in plan_stages(load_recipe(DEMO, overrides)):
            assert set(stage.inputs) <= done
            assert stage.start in done or stage.name == "base"
            done.add(stage.name)


def test_every_policy_is_evaluated_and_no_discriminator() -> None:
    assert [stage.name for stage in plan_stages(load_recipe(DEMO)) if not stage.is_evaluated] == ["warmup"]
    assert not any(stage.is_evaluated for stage in plan_stages(load_recipe(DEMO, ["evaluation=none"])))


def test_stages_are_selected_by_name_or_kind() -> None:
    recipe = load_recipe(DEMO)
    assert [stage.name for stage in select_stages(recipe, "prism-dapo")] == ["prism-dapo"]
    assert len(select_stages(recipe, "rlvr")) == 4
    with pytest.raises(ConfigError, match="no stage 'dapo'; it has: base, sft, warmup, align, sft-grpo"):
        select_stages(recipe, "dapo")


def test_the_printed_plan_names_what_each_stage_starts_from() -> None:
    lines = describe_plan(load_recipe(DEMO, ["seeds=[0, 4]"]))
    assert lines[0] == "plan for runs/tiny-demo, once for each of the seeds 0, 4:"
    assert lines[5] == "  sft-grpo    79 steps from sft (matched budget, no alignment; evaluated)"
    assert lines[6] == "  prism-grpo  30 steps from align (evaluated)"
