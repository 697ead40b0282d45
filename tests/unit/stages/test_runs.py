"""Whole stages over a random policy and data of the world: what they write, and that they repeat exactly."""

import copy
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from prism.config import plan_stages
from prism.data import readers
from prism.errors import DataError
from prism.evals.drift import MEASURES
from prism.models import Discriminator, Mode, load_policy
from prism.records import Example, Prompt, Response, RolloutGroup
from prism.rewards import parse_response
from prism.stages import align, base, datasets, engines, rlvr, sft, warmup
from prism.stages.imitation import mean_nll, pack_examples
from prism.stages.workspace import Workspace
from still_engine import StillEngine

MakeWorkspace = Callable[..., Workspace]
SIZES = {"prompts_per_step": 2, "group_size": 2, "max_response_tokens": 6, "token_budget": 2100, "num_steps": 2}
# Demonstrations longer than what the policy may write are left out, so these have room for the teacher's.
WITH_TEACHER = {"max_response_tokens": 170, "token_budget": 2300}
ALIGN = SIZES | WITH_TEACHER | {"policy_learning_rate": 1e-3, "discriminator_learning_rate": 1e-3, "weight_decay": 0.0}
ALIGN_METRICS = {
    "gap/perception",
    "gap/reasoning",
    "accuracy/perception",
    "accuracy/reasoning",
    "accuracy/count",
    "rollout/valid_fraction",
    "rollout/valid_count",
    "rollout/count",
    "rollout/length",
    "rollout/longest",
    "rollout/entropy",
    "rollout/num_steps",
    "rollout/num_items",
    "teacher/length",
    "teacher/num_steps",
    "teacher/num_items",
    "reward/accuracy",
    "reward/caption_exact",
    "loss/policy",
    "loss/discriminator",
    "loss/perception",
    "loss/reasoning",
    "loss/score_regularisation",
    "policy/clip_fraction",
    "policy/grad_norm",
    "discriminator/grad_norm",
    "discriminator/weight_change",
    "rollout/repetition",
    "rollout/distinct_2",
    *(f"drift/{measure}" for measure in MEASURES),
}
RLVR_METRICS = {
    "reward/total",
    "reward/accuracy",
    "reward/format",
    "reward/unverifiable",
    "rollout/count",
    "rollout/length",
    "rollout/longest",
    "rollout/entropy",
    "rollout/repetition",
    "rollout/distinct_2",
    "loss/policy",
    "policy/clip_fraction",
    "policy/clip_fraction_dual",
    "policy/grad_norm",
}


def run_stages(workspace: Workspace, **runners: Any) -> dict[str, list[dict[str, Any]]]:
    """Runs the data, the base and every stage with a runner; the metrics of each."""
    datasets.prepare(workspace)
    metrics = {}
    for stage in plan_stages(workspace.recipe):
        runner = {"base": base.run, **runners}.get(stage.kind)
        if runner is not None:
            runner(workspace, stage)
            file = workspace.stage_directory(stage.name) / "metrics.jsonl"
            metrics[stage.name] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return metrics


def weights(workspace: Workspace, stage: str) -> dict[str, torch.Tensor]:
    return load_policy(workspace.model_directory(stage)).state_dict()


def test_a_complete_stage_reads_no_data(make_workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = make_workspace(
        sft={"num_epochs": 0.5, "batch_size": 2, "max_response_tokens": 320, "token_budget": 2400},
        rlvr=SIZES | {"num_steps": 1, "algorithms": ({"type": "grpo"},)},
    )
    runners = {"sft": sft.run, "rlvr": rlvr.run}
    metrics = run_stages(workspace, **runners)
    assert [row["step"] for row in metrics["sft"]] == [1, 2, 3]  # of ten demonstrations
    monkeypatch.setattr(readers, "open_rows", lambda path: pytest.fail(f"reads {path}"))
    assert run_stages(workspace, **runners) == metrics


def test_a_second_sft_goes_on_upon_what_alignment_has(make_workspace: MakeWorkspace) -> None:
    """In one step over all five demonstrations its loss is that of SFT's policy on the teacher's responses there."""
    settings = {"num_epochs": 1, "batch_size": 5, "learning_rate": 1e-3, "max_response_tokens": 320}
    workspace = make_workspace(sft=settings | {"token_budget": 2400}, second_sft=settings | {"token_budget": 2400})
    metrics = run_stages(workspace, sft=sft.run, second_sft=sft.run)
    assert [row["step"] for row in metrics["sft"]] == [1, 2] and len(metrics["second-sft"]) == 1
    policy, encoder = workspace.load_policy("sft")
    found = datasets.read_alignment(workspace, 320)
    packs = [pack_examples(encoder, [Example(one.prompt, one.response.text)], 2400) for one in found]
    sizes = [sum(pack.target_ids.numel() for pack in each) for each in packs]
    total = sum(size * mean_nll(policy, each) for size, each in zip(sizes, packs, strict=True))
    assert len(found) == 5 and metrics["second-sft"][0]["loss/nll"] == pytest.approx(total / sum(sizes), rel=1e-5)
    start, end = weights(workspace, "sft"), weights(workspace, "second-sft")
    assert any(not torch.equal(start[name], end[name]) for name in start)


@pytest.mark.parametrize("settings", [{}, {"advantage": {"type": "mixed"}, "kl": {"coefficient": 0.1}}])
def test_alignment_of_a_policy_that_knows_no_format(make_workspace: MakeWorkspace, settings: dict[str, Any]) -> None:
    """Nothing is valid, so nothing is compared; all rollouts fare alike, and yet the run is whole."""
    workspace = make_workspace(align=ALIGN | settings)
    metrics = run_stages(workspace, align=align.run)
    assert [row["step"] for row in metrics["align"]] == [1, 2]
    for row in metrics["align"]:
        assert set(row) >= ALIGN_METRICS
        assert row["rollout/count"] == 4 and row["rollout/valid_count"] == 0 and row["accuracy/count"] == 0
        assert row["gap/perception"] is None and row["accuracy/reasoning"] is None
        assert row["teacher/num_items"] in (8, 8.5, 9)
    samples = (workspace.stage_directory("align") / "samples.jsonl").read_text().splitlines()
    sample = json.loads(samples[0])
    assert sample["scores"] is None and sample["is_valid"] is False
    assert (workspace.recipe.run_directory / sample["image"]).read_bytes().startswith(b"\x89PNG")
    discriminator = Discriminator.from_pretrained(workspace.stage_directory("align") / "discriminator")
    assert discriminator.head.weight.shape == (1, 32)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"type": "grpo"},
        {"type": "gspo"},
        {"type": "dapo", "overlong_buffer": 2, "oversampling": 2, "max_refills": 1},
    ],
)
def test_rlvr_writes_its_metrics_and_a_model_and_is_not_run_twice(
    make_workspace: MakeWorkspace, algorithm: dict[str, Any]
) -> None:
    workspace = make_workspace(rlvr=SIZES | {"algorithms": (algorithm,), "learning_rate": 1e-3, "num_mini_batches": 2})
    name = f"base-{algorithm['type']}"
    metrics = run_stages(workspace, rlvr=rlvr.run)[name]
    assert [row["step"] for row in metrics] == [1, 2]
    for row in metrics:
        assert set(row) >= RLVR_METRICS
        assert row["reward/format"] == 0 and row["rollout/count"] == 4
        assert algorithm["type"] != "dapo" or row["dapo/generated_prompts"] == 8
    before = workspace.input_hash(name)
    file = workspace.stage_directory(name) / "metrics.jsonl"
    written = file.stat().st_mtime_ns
    assert run_stages(workspace, rlvr=rlvr.run)[name] == metrics
    assert file.stat().st_mtime_ns == written and workspace.input_hash(name) == before


def test_a_penalty_for_length_alone_moves_the_policy_and_the_seed_repeats_it(
    make_workspace: MakeWorkspace, tmp_path: Any
) -> None:
    """Answers are all wrong, but some of the 96 end before the limit, which costs them less."""
    algorithm = {"type": "dapo", "overlong_buffer": 40, "oversampling": 1, "max_refills": 0}
    sizes = SIZES | {"max_response_tokens": 40, "group_size": 24, "weight_decay": 0.0}
    settings = {"rlvr": sizes | {"algorithms": (algorithm,), "learning_rate": 1e-2}}
    runs = [make_workspace(output=tmp_path / name, **settings) for name in ("one", "two")]
    metrics = [run_stages(workspace, rlvr=rlvr.run)["base-dapo"] for workspace in runs]
    assert metrics[0] == metrics[1]
    start, end, repeated = weights(runs[0], "base"), weights(runs[0], "base-dapo"), weights(runs[1], "base-dapo")
    assert all(torch.equal(end[name], repeated[name]) for name in end)
    assert any(not torch.equal(start[name], end[name]) for name in start)
    assert any(row["policy/grad_norm"] > 0 and row["reward/total"] > -1 for row in metrics[0])


def test_ratios_of_every_mini_batch_refer_to_the_policy_that_sampled(
    make_workspace: MakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first mini-batch meets that very policy and needs no log-probabilities of it; the second one a policy that
    has moved on since."""
    settings = SIZES | {"algorithms": ({"type": "grpo"},), "learning_rate": 1e-2, "num_steps": 1, "num_mini_batches": 2}
    workspace = make_workspace(rlvr=settings)
    monkeypatch.setattr(rlvr, "total_rewards", lambda *_: torch.tensor([0.0, 1.0, 0.0, 1.0]))
    accumulate, sampling_policies, drifts = rlvr.accumulate_policy_gradient, [], []

    def observed(policy: Any, packs: Any, advantages: Any, objective: Any, *, old_logprobs: Any, **options: Any) -> Any:
        if old_logprobs is None:
            sampling_policies.append(copy.deepcopy(policy))
        else:
            for old, packed in zip(old_logprobs, packs, strict=True):
                sampled, current = (
                    objective.logprobs(found, packed).logprobs for found in (*sampling_policies, policy)
                )
                torch.testing.assert_close(old, sampled, atol=1e-6, rtol=0)
                drifts.append((current - sampled).abs().max().item())
        return accumulate(policy, packs, advantages, objective, old_logprobs=old_logprobs, **options)

    monkeypatch.setattr(rlvr, "accumulate_policy_gradient", observed)
    run_stages(workspace, rlvr=rlvr.run)
    assert len(sampling_policies) == 1 and drifts and max(drifts) > 1e-3


def test_warm_up_without_a_valid_rollout_says_so(make_workspace: MakeWorkspace) -> None:
    settings = {"num_steps": 1, "batch_size": 2, "num_heldout": 1, **WITH_TEACHER}
    with pytest.raises(DataError, match="0 of the prompts drew a valid rollout"):
        run_stages(make_workspace(warmup=settings), warmup=warmup.run)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, make_rollout: Callable[..., Any]) -> Callable[..., None]:
    """Lets the policy of both stages write what a function of the teacher's response returns."""

    def use(workspace: Workspace, write: Callable[[Response], str]) -> None:
        class Engine(StillEngine):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                self.teacher = {item.prompt.id: item.response for item in datasets.read_alignment(workspace, 170)}

            def generate(self, prompts: Sequence[Prompt], *, num_samples: int, **options: Any) -> list[RolloutGroup]:
                texts = [write(self.teacher[prompt.id]) for prompt in prompts]
                return [
                    RolloutGroup(prompt, tuple(make_rollout(text, sample=sample) for sample in range(num_samples)))
                    for prompt, text in zip(prompts, texts, strict=True)
                ]

        monkeypatch.setattr(engines, "TransformersEngine", Engine)

    return use


def test_a_warm_up_that_was_cut_off_samples_nothing_again(
    make_workspace: MakeWorkspace, script: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed in its first step, before any checkpoint, or in its second, it ends as one that was not."""
    settings = {"num_steps": 2, "batch_size": 2, "num_heldout": 1, "checkpoint_every": 1, "learning_rate": 1e-3}
    ends = []
    for killed_in in (0, 1, 2):
        workspace = make_workspace(warmup=settings | WITH_TEACHER, output=tmp_path / f"killed-in-{killed_in}")
        script(workspace, lambda teacher: teacher.text.replace("<think>", "<think>so "))
        if killed_in:
            with monkeypatch.context() as patch:
                patch.setattr(warmup, "update_discriminator", killed(warmup.update_discriminator, killed_in))
                with pytest.raises(KeyboardInterrupt):
                    run_stages(workspace, warmup=warmup.run)
            script(workspace, lambda teacher: pytest.fail("sampled again"))
        run_stages(workspace, warmup=warmup.run)
        ends.append(Discriminator.from_pretrained(workspace.model_directory("warmup")).state_dict())
    for end in ends[1:]:
        assert all(torch.equal(ends[0][name], weight) for name, weight in end.items())


def killed(update: Callable[..., Any], step: int) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        if options["step"] == step:
            raise KeyboardInterrupt
        return update(*arguments, **options)

    return run


def one_step(mode: str, checkpoint: Path) -> dict[str, Any]:
    """Tables of a warm-up and an alignment of one step each, over all of the five demonstrations."""
    return {
        "discriminator": {"type": mode, "checkpoint": checkpoint},
        "warmup": {"num_steps": 1, "batch_size": 2, "num_heldout": 3, "learning_rate": 1e-3, **WITH_TEACHER},
        "align": ALIGN | {"num_steps": 1, "prompts_per_step": 5, "balance_coefficient": 0.5},
    }


every_mode = pytest.mark.parametrize("mode", get_args(Mode))


@every_mode
def test_both_stages_play_the_game_in_every_mode(
    make_workspace: MakeWorkspace,
    make_discriminator: Callable[..., Discriminator],
    read_alone: Callable[..., Any],
    script: Callable[..., None],
    tmp_path: Path,
    mode: Mode,
) -> None:
    """What alignment measures before its update is what the warmed-up discriminator on the disk says of all pairs,
    read one by one."""
    careless = "<caption>a picture</caption><think>1. so 3</think><answer>3</answer>"
    make_discriminator(mode).save_pretrained(tmp_path / "judge")
    workspace = make_workspace(**one_step(mode, tmp_path / "judge"))
    script(workspace, lambda teacher: careless)
    metrics = run_stages(workspace, warmup=warmup.run, align=align.run)
    [warm], [row] = metrics["warmup"], metrics["align"]
    directories = (tmp_path / "judge", workspace.model_directory("warmup"))
    directories += (workspace.stage_directory("align") / "discriminator",)
    trained = [Discriminator.from_pretrained(directory) for directory in directories]
    assert [discriminator.mode for discriminator in trained] == [mode] * 3
    views = trained[0].views
    assert warm["heldout/count"] == 3 and row["accuracy/count"] == 10
    for view in views:
        with torch.no_grad():
            gaps = [
                float(
                    read_alone(trained[1], item.prompt, item.response, view).score
                    - read_alone(trained[1], item.prompt, parse_response(careless), view).score
                )
                for item in datasets.read_alignment(workspace, 170)
            ]
        assert row[f"gap/{view}"] == pytest.approx(sum(gaps) / 5, abs=1e-5)
        assert row[f"accuracy/{view}"] == pytest.approx(sum(gap > 0 for gap in gaps) / 5)
        assert warm[f"heldout/{view}_gap"] is not None and row[f"loss/{view}"] > 0
    for metric in (warm, row):
        assert {name.split("/")[1] for name in metric if name.startswith("gap/")} <= set(views)
        assert (metric["loss/balance"] is None) == (mode == "dense")
    for before, after in itertools.pairwise(trained):
        others = after.state_dict()
        same = [name for name, weight in before.state_dict().items() if torch.equal(weight, others[name])]
        assert all("model.visual" in name for name in same) and (bool(same) == (mode == "text-only"))
    sample = json.loads((workspace.stage_directory("align") / "samples.jsonl").read_text().splitlines()[0])
    assert set(sample["scores"]) == set(views)


@every_mode
def test_a_policy_that_writes_like_the_teacher_cannot_be_told_from_it(
    make_workspace: MakeWorkspace,
    make_discriminator: Callable[..., Discriminator],
    script: Callable[..., None],
    tmp_path: Path,
    mode: Mode,
) -> None:
    """Both stages build their input alike for teacher and rollout: blanks between the parts leave no trace."""
    make_discriminator(mode).save_pretrained(tmp_path / "judge")
    workspace = make_workspace(**one_step(mode, tmp_path / "judge"))
    script(workspace, lambda teacher: teacher.text.replace("><", "> \n <"))
    metrics = run_stages(workspace, warmup=warmup.run, align=align.run)
    [warm], [row] = metrics["warmup"], metrics["align"]
    assert row["accuracy/count"] == 10 and warm["heldout/count"] == 3
    for view in make_discriminator(mode).views:
        assert warm[f"heldout/{view}_gap"] == pytest.approx(0, abs=1e-5)
        assert row[f"gap/{view}"] == pytest.approx(0, abs=1e-5)
        assert warm[f"loss/{view}"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("stage", ["warmup", "align"])
@pytest.mark.parametrize("mode", ["moe", "dedicated", "dense", "whole-response"])
def test_both_stages_keep_the_routing_of_every_layer(
    make_workspace: MakeWorkspace,
    make_discriminator: Callable[..., Discriminator],
    script: Callable[..., None],
    tmp_path: Path,
    mode: Mode,
    stage: str,
) -> None:
    made = make_discriminator(mode)
    made.save_pretrained(tmp_path / "judge")
    workspace = make_workspace(**one_step(mode, tmp_path / "judge"))
    script(workspace, lambda teacher: teacher.text)
    [row] = run_stages(workspace, warmup=warmup.run, align=align.run)[stage]
    file = workspace.stage_directory(stage) / "router.jsonl"
    if mode == "dense":
        assert not file.exists() and not any(name.startswith("router/") for name in row)
        return
    [routing] = map(json.loads, file.read_text().splitlines())
    assert routing["step"] == 1 and set(routing["load"]) == set(made.views)
    for view, load in routing["load"].items():
        assert [(len(layer), sum(layer)) for layer in load] == [(6, pytest.approx(1))] * 2
        assert row[f"router/entropy_{view}"] == pytest.approx(sum(routing["entropy"][view]) / 2)
    if mode == "dedicated":
        perception, reasoning = routing["load"]["perception"], routing["load"]["reasoning"]
        assert all(layer[3:] == [0] * 3 for layer in perception) and all(layer[:3] == [0] * 3 for layer in reasoning)
        assert row["router/divergence"] == pytest.approx(1)
    elif mode == "moe":
        assert 0 < row["router/divergence"] < 0.5
    else:
        assert "router/divergence" not in row
