"""Whole stages over a random policy and data of the world: what they write, and that they repeat exactly."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prism.config import plan_stages
from prism.errors import DataError
from prism.models import Discriminator, load_policy
from prism.stages import align, base, datasets, rlvr, warmup
from prism.stages.workspace import Workspace

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
    "rollout/entropy",
    "rollout/num_steps",
    "rollout/num_items",
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
}
RLVR_METRICS = {
    "reward/total",
    "reward/accuracy",
    "reward/format",
    "reward/unverifiable",
    "rollout/count",
    "rollout/length",
    "rollout/entropy",
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


def test_warm_up_without_a_valid_rollout_says_so(make_workspace: MakeWorkspace) -> None:
    settings = {"num_steps": 1, "batch_size": 2, "num_heldout": 1, **WITH_TEACHER}
    with pytest.raises(DataError, match="0 of the prompts drew a valid rollout"):
        run_stages(make_workspace(warmup=settings), warmup=warmup.run)
