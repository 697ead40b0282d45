"""Whole plans: what follows from the recipe by arithmetic, and the shipped recipes."""

from pathlib import Path

import pytest

from prism.cli import main
from prism.config import Dapo, Hardware, load_hardware, load_recipe
from prism.errors import ConfigError
from prism.planning.estimate import Estimate, StageEstimate
from prism.planning.lengths import find_lengths
from prism.planning.plan import estimate
from prism.planning.remedies import find_remedies
from prism.planning.stages import dapo_rounds

ROOT = Path(__file__).parents[3]
PRETRAINING = "base"
RECIPES = [
    path
    for folder in ("tiny", "paper")
    for path in sorted((ROOT / "recipes" / folder).glob("*.toml"))
    if path.stem != PRETRAINING
]
DEMO, PAPER = ROOT / "recipes/tiny/demo.toml", ROOT / "recipes/paper/qwen3-vl-4b.toml"
GIB = 2**30


def plan(*overrides: str, hardware: str = "8xh100", recipe: Path = PAPER) -> Estimate:
    return estimate(load_recipe(recipe, overrides), load_hardware(hardware))


def stage(found: Estimate, name: str) -> StageEstimate:
    return next(one for one in found.stages if one.name == name)


def phase_memory(found: Estimate, name: str, phase: str) -> dict[str, float]:
    return dict(next(one for one in stage(found, name).phases if one.name == phase).memory)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_recipe_is_planned_and_dry_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(path), "--dry-run"]) == 0
    assert main(["plan", str(path), "--hardware", "8xh100", "--price", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Planned, not measured" in printed
    assert "fits" in printed.lower()


def test_pretraining_alone_is_nothing_to_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(ROOT / f"recipes/tiny/{PRETRAINING}.toml"), "--hardware", "h100"]) == 2
    assert "has no stage that can be planned" in capsys.readouterr().err


def test_paper_recipes_have_the_papers_numbers() -> None:
    recipe = load_recipe(PAPER)
    assert recipe.sft and recipe.warmup and recipe.align and recipe.rlvr
    assert (recipe.sft.learning_rate, recipe.warmup.learning_rate, recipe.rlvr.learning_rate) == (1e-5, 1e-5, 1e-6)
    assert (recipe.align.num_steps, recipe.align.prompts_per_step, recipe.align.group_size) == (500, 4, 16)
    assert (recipe.rlvr.num_steps, recipe.rlvr.prompts_per_step, recipe.rlvr.group_size) == (1500, 32, 16)
    # Once over 5.9K prompts, but for the held-out ones.
    assert recipe.warmup.num_steps == (5900 - recipe.warmup.num_heldout) // recipe.warmup.batch_size
    larger = load_recipe(PAPER.with_name("qwen3-vl-8b.toml"))
    assert larger.model_copy(update={"name": recipe.name, "base": recipe.base}) == recipe


def test_states_of_both_players_by_hand() -> None:
    """A policy of 4.44 and a discriminator of 5.30 billion parameters: 28 layers of 2B with three MLPs more and a
    router. 4 bytes for each weight, 8 for the optimizer, over eight ranks; bfloat16 changes nothing of that."""
    players = 4_437_815_808 + 2_127_532_032 + 28 * (3 * 3 * 2048 * 6144 + 4 * 2048)
    for precision in ("float32", "bfloat16"):
        found = phase_memory(plan(f"precision={precision}"), "align", "scoring")
        assert found["weights"] == pytest.approx(4 * players / 8)
        assert found["optimizer states"] == pytest.approx(8 * players / 8)


def test_alignment_has_the_peak_and_gradients_of_one_player_at_a_time() -> None:
    found = plan("rollout.type=transformers")
    policy, discriminator = (phase_memory(found, "align", f"{who} update") for who in ("policy", "discriminator"))
    assert policy["gradients"] == pytest.approx(4 * 4_437_815_808 / 8)
    assert discriminator["gradients"] > policy["gradients"]
    # The copy that samples is whole, in two bytes, and stays.
    assert policy["rollouts"] == discriminator["rollouts"] == 2 * 4_437_815_808
    assert plan().peak.name == "align"


def test_whole_contests_are_scored_by_the_update() -> None:
    """26,750 tokens each: a pack of 32,768 holds one, and scoring is no pass of its own."""
    split, whole = (stage(plan(*settings), "align") for settings in ((), ("align.token_budget=32768",)))
    names = [[phase.name for phase in found.phases] for found in (split, whole)]
    assert names[1] == [name for name in names[0] if name != "scoring"] and len(names[0]) == len(names[1]) + 1


def test_a_reference_policy_is_spread_over_the_ranks() -> None:
    with_kl, without = plan("align.kl.coefficient=0.01"), plan()
    more = phase_memory(with_kl, "align", "scoring")["weights"] - phase_memory(without, "align", "scoring")["weights"]
    assert more == pytest.approx(4 * 4_437_815_808 / 8)


def test_vllm_takes_its_share_of_the_device_and_gives_it_back_asleep() -> None:
    awake, asleep = plan("rollout.sleep=false"), plan()
    assert phase_memory(asleep, "align", "sampling")["rollouts"] == pytest.approx(0.4 * 79.2 * GIB)
    assert phase_memory(asleep, "align", "policy update")["rollouts"] == 0
    assert phase_memory(awake, "align", "policy update")["rollouts"] == pytest.approx(0.4 * 79.2 * GIB)


def test_an_epoch_has_as_many_steps_as_there_are_demonstrations() -> None:
    assert stage(plan(), "sft").num_steps == 85_438  # 1,367,000 / 16, rounded up
    with pytest.raises(ConfigError, match=r"give plan\.num_demonstrations"):
        plan("plan.num_demonstrations=none")


def test_an_epoch_of_a_second_sft_is_one_of_the_alignment_data() -> None:
    second = "second_sft={num_epochs=1,batch_size=16,max_response_tokens=240,token_budget=640}"
    assert stage(plan(second, recipe=DEMO), "second-sft").num_steps == 44  # 700 / 16, rounded up
    with pytest.raises(ConfigError, match=r"data\.alignment cannot be read: give second_sft\.num_steps"):
        plan("second_sft={num_epochs=1,token_budget=24576}")


def test_money_is_ranks_times_hours_times_price() -> None:
    found = estimate(load_recipe(PAPER), load_hardware("8xh100", price=2.0))
    assert found.cost(3600) == 16
    assert plan().cost(3600) is None


def test_seeds_multiply() -> None:
    assert plan("seeds=[0, 1, 2]").seconds == pytest.approx(3 * plan().seconds)


def test_dapo_draws_more_and_again_where_few_groups_differ() -> None:
    grpo, dapo = (stage(plan(), f"prism-{name}").phases[0] for name in ("grpo", "dapo"))
    assert dapo.tokens == 3 * grpo.tokens
    again = stage(plan("plan.kept_groups=0.2"), "prism-dapo").phases[0]
    assert again.tokens == 2 * dapo.tokens
    algorithm = Dapo(overlong_buffer=1)
    assert [dapo_rounds(algorithm, kept) for kept in (1.0, 1 / 3, 0.32, 0.1, 0.0)] == [1, 1, 2, 4, 11]


def test_more_ranks_need_less_memory_and_time() -> None:
    few, many = plan(hardware="8xh100"), plan(hardware="2x8xh100")
    assert stage(many, "prism-grpo").seconds < stage(few, "prism-grpo").seconds
    assert phase_memory(many, "align", "scoring")["weights"] * 2 == phase_memory(few, "align", "scoring")["weights"]


def test_copies_inside_machines_take_the_memory_of_one_and_spare_the_slow_link() -> None:
    one, copies, spread = plan(), plan("fsdp_size=8", hardware="4x8xh100"), plan(hardware="4x8xh100")
    for part in ("weights", "optimizer states"):
        assert phase_memory(copies, "align", "scoring")[part] == phase_memory(one, "align", "scoring")[part]
        assert phase_memory(copies, "align", "scoring")[part] == 4 * phase_memory(spread, "align", "scoring")[part]
    assert "copies: 4 of the weights, over 8 ranks each (fsdp_size)" in copies.basis
    # 4B parameters in bfloat16 over the slow link: 8.9 GB at 60% of 50 GB/s, for each pass that only scores.
    scoring = [
        next(phase for phase in stage(found, "align").phases if phase.name == "scoring") for found in (copies, spread)
    ]
    assert scoring[0].seconds < scoring[1].seconds


def test_copies_have_to_come_out_even() -> None:
    with pytest.raises(ConfigError, match=r"fsdp_size: 3 does not divide the number of processes, 8: give one of 1, 2"):
        plan("fsdp_size=3")


def test_fewer_copies_are_a_remedy() -> None:
    found = find_remedies(load_recipe(PAPER, ["fsdp_size=1"]), load_hardware("8xh100"))
    assert found[0].change == "fsdp_size=none"
    assert found[0].estimate.peak.peak.bytes == plan().peak.peak.bytes


def test_more_ranks_are_a_remedy_where_copies_would_not_shrink() -> None:
    recipe = load_recipe(PAPER.with_name("qwen3-vl-8b.toml"), ["fsdp_size=4"])
    hardware = load_hardware("4xa100-40gb")
    last = find_remedies(recipe, hardware)[-1]
    assert last.estimate.fits
    settings, _, ranks = last.change.rpartition(" on ")
    assert "fsdp_size=none" in settings and int(ranks.removesuffix(" ranks")) > 4


def test_ranks_without_packs_wait_and_it_is_said() -> None:
    # Of 12 demonstrations of one length four of eight ranks have two, and the others wait for their second.
    found = plan("sft.batch_size=12")
    assert stage(found, "sft").phases[0].waiting == pytest.approx(1 - 12 / (8 * 2))
    assert any(line.startswith("waiting: ") and "sft 25%" in line for line in found.basis)
    assert stage(plan("sft.batch_size=12", hardware="h100"), "sft").phases[0].waiting == 0


def test_short_rows_are_spread_over_all_ranks() -> None:
    """16 demonstrations would fill three packs: each of eight ranks has two of them instead."""
    assert stage(plan(), "sft").phases[0].waiting == 0


def test_flex_attention_and_checkpointing_save_memory_and_adapters_most() -> None:
    def peak(*overrides: str) -> float:
        return plan(*overrides, "rollout.type=transformers").peak.peak.bytes

    by_branch = peak("attention=sdpa", "activation_checkpointing=false")
    flex = peak("activation_checkpointing=false")
    assert by_branch > flex > peak() > peak("lora.rank=16", "precision=bfloat16") * 0.9


def test_remedies_are_planned_by_themselves_and_together() -> None:
    changes = ["attention=sdpa", "precision=float32", "activation_checkpointing=false"]
    recipe, hardware = load_recipe(PAPER, changes), load_hardware("8xa100-40gb")
    assert not estimate(recipe, hardware).fits
    *single, together, adapted = find_remedies(recipe, hardware)
    packs = "sft.token_budget=10240 warmup.token_budget=8192 align.token_budget=8192 rlvr.token_budget=10240"
    expected = ["precision=bfloat16", "attention=flex", "activation_checkpointing=true", packs]
    assert [remedy.change for remedy in single] == expected
    assert together.change == " ".join(expected)
    assert adapted.change == f"{together.change} lora={{rank=16}}"
    assert together.estimate.fits
    # What is written can be typed.
    typed = estimate(load_recipe(PAPER, [*changes, *together.change.split()]), hardware)
    assert typed.peak.peak.bytes == together.estimate.peak.peak.bytes


def test_what_saves_nothing_at_the_peak_is_no_remedy() -> None:
    # On one GPU the states of both players are what does not fit.
    assert [remedy.change for remedy in find_remedies(load_recipe(PAPER), load_hardware("h100"))] == ["lora={rank=16}"]


def test_vllm_is_a_remedy_where_the_training_model_samples_too_much() -> None:
    recipe, hardware = load_recipe(PAPER, ["rollout.type=transformers"]), load_hardware("8xh100")
    planned = estimate(recipe, hardware)
    assert (planned.peak.peak.name, planned.fits) == ("sampling", False)
    first, *_ = find_remedies(recipe, hardware)
    assert first.change == "rollout.type=vllm rollout.sleep=true"
    # The recipe as it is written has these settings, and what is printed can be typed.
    assert first.estimate.peak.peak.bytes == plan().peak.peak.bytes == plan(*first.change.split()).peak.peak.bytes


def test_with_vllm_what_sampling_was_larger_than_is_looked_at_too() -> None:
    """Sampling from whole copies is the peak, so that neither setting lowers it; without it the updates are."""
    changes = ["rollout.type=transformers", "rollout.batch_size=128", "activation_checkpointing=false"]
    recipe, hardware = load_recipe(PAPER, changes), load_hardware("8xh100")
    settings = find_remedies(recipe, hardware)[0].change.split()
    assert settings[:2] == ["rollout.type=vllm", "rollout.sleep=true"]
    assert "activation_checkpointing=true" in settings
    assert plan(*changes, *settings).fits


def test_vllm_is_no_remedy_where_it_would_not_start_or_sampling_fits() -> None:
    def offered(hardware: Hardware, *changes: str) -> bool:
        found = find_remedies(load_recipe(PAPER, ["rollout.type=transformers", *changes]), hardware)
        return any("vllm" in remedy.change for remedy in found)

    few = ["rollout.batch_size=4", "activation_checkpointing=false", "attention=sdpa"]
    assert not plan("rollout.type=transformers", *few).fits
    assert not offered(load_hardware("8xh100"), *few)
    # Of 23.5 GiB its share would leave 8,000 tokens beside a copy of 8.3 GiB, and a sequence may have 10,240.
    assert not offered(load_hardware("8xrtx4090"))
    cpus = load_hardware("8xh100").model_copy(update={"is_asynchronous": False})
    assert not offered(cpus)


def test_the_recipe_in_the_readme_fits_eight_gpus_of_80_gb_and_would_not_by_default(tmp_path: Path) -> None:
    readme = tmp_path / "readme.toml"
    readme.write_text((ROOT / "README.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0])
    plan_table = load_recipe(PAPER).plan
    assert plan_table is not None
    lengths = [f"plan.{name}={value}" for name, value in plan_table.model_dump(mode="json", exclude_none=True).items()]
    assert plan(*lengths, recipe=readme).fits
    defaults = [f"{name}=none" for name in ("precision", "attention", "activation_checkpointing", "rollout")]
    assert not plan(*lengths, *defaults, recipe=readme).fits


def test_the_recipe_for_one_gpu_fits_one() -> None:
    assert plan(hardware="rtx4090", recipe=PAPER.with_name("one-gpu.toml")).fits


def test_where_adapters_do_not_do_it_ranks_may() -> None:
    small = Hardware.model_validate({**load_hardware("rtx4090").model_dump(), "memory_gib": 30.0})
    last = find_remedies(load_recipe(PAPER), small)[-1]
    assert last.estimate.fits
    assert last.estimate.hardware.ranks > 1


def test_a_model_of_unknown_size_is_named() -> None:
    with pytest.raises(ConfigError, match=r"base\.path: models/mine is not here"):
        plan("base.path=models/mine")
    with pytest.raises(ConfigError, match=r"discriminator\.checkpoint: models/judge is not here"):
        plan("discriminator.dense=none", "discriminator.checkpoint=models/judge")


def test_without_a_test_file_evaluation_is_left_out_and_said_to_be() -> None:
    data = ["evaluation.num_samples=2", "data.test=data/test.parquet"]
    assert any("evaluation, plan.num_test being unknown" in line for line in plan(*data).basis)
    counted = plan(*data, "plan.num_test=1000")
    greedy, sampled = stage(counted, "evaluation").phases
    assert sampled.tokens - greedy.tokens == 1000 * 1500
    assert stage(counted, "evaluation").num_steps == 9  # the base, SFT, alignment, six by RLVR


def test_the_tiny_demo_needs_nothing_given() -> None:
    found = plan(recipe=DEMO, hardware="h100")
    assert [one.name for one in found.stages] == ["sft", "warmup", "align", "sft-grpo", "prism-grpo", "evaluation"]
    assert found.fits
    assert find_lengths(load_recipe(DEMO)).counts["test"] > 0


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(PAPER), "--hardware", "8xh1000"]) == 2
    assert capsys.readouterr().err.startswith("prism: --hardware 8xh1000: no such device; did you mean h100?")
