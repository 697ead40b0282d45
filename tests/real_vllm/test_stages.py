"""A whole small run whose every stage samples with vLLM."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prism.config import load_recipe
from prism.errors import RolloutError
from prism.rollout.vllm_engine import VllmEngine
from prism.stages import rlvr
from prism.stages.pipeline import run_recipe
from prism.stages.rlvr import RewardedGroup

pytestmark = pytest.mark.vllm

DEMO = Path(__file__).parents[2] / "recipes" / "tiny" / "demo.toml"
SMALL = [
    *("data.public=160", "data.alignment=80", "data.rl=40", "data.test_per_benchmark=2"),
    *("sft.num_steps=60", "warmup.num_steps=2", "warmup.num_heldout=8"),
    *("audit.num_prompts=8", "audit.samples_per_prompt=2", "audit.stop_on_flags=false"),
    *("align.num_steps=3", "align.prompts_per_step=4"),
    *("rlvr.num_steps=3", "rlvr.prompts_per_step=4", "rlvr.num_mini_batches=2"),
    *("evaluation.num_samples=1", "threads=1"),
    *("rollout.type=vllm", "rollout.dtype=float32", "rollout.eager=true", "rollout.kv_cache_bytes=268435456"),
    *("rollout.tolerance=0.001", "rollout.importance.cap=2.0"),
]


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_every_stage_of_a_run(tmp_path: Path) -> None:
    recipe = load_recipe(DEMO, [*SMALL, f"output={tmp_path / 'run'}", "rlvr.baselines=[]"])
    seed = run_recipe(recipe) / "seed-0"
    for stage in ("align", "prism-grpo"):
        metrics = rows(seed / stage)
        assert len(metrics) == 3
        for row in metrics:
            assert row["sampler/mismatch_mean"] < 1e-4 and row["sampler/mismatch_max"] < 1e-3
            assert row["sampler/mismatch_count"] > 100 and row["sampler/mismatch_share"] == 0
            assert math.isclose(row["policy/importance"], 1.0, abs_tol=1e-4)
        assert metrics[-1]["policy/grad_norm"] > 0
    assert len((seed / "prism-grpo" / "evaluation" / "items.jsonl").read_text().splitlines()) > 10
    assert json.loads((seed / "audit" / "audit.json").read_text())
    print("\nlargest difference:", max(row["sampler/mismatch_max"] for row in rows(seed / "prism-grpo")))


def test_a_run_stops_where_the_copy_is_not_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second step on every weight is a little too large."""
    calls = []
    update = VllmEngine.update_weights

    def inexactly(engine: VllmEngine, weights: Any) -> None:
        calls.append(engine)
        update(engine, ((name, tensor * (1.0 if len(calls) == 1 else 1.05)) for name, tensor in weights))

    monkeypatch.setattr(VllmEngine, "update_weights", inexactly)
    stages = ["warmup=none", "audit=none", "align=none", "evaluation=none", "sft=none", "rlvr.baselines=none"]
    recipe = load_recipe(DEMO, [*SMALL, f"output={tmp_path / 'run'}", *stages])
    with pytest.raises(RolloutError, match="step 2: the engine samples from another policy"):
        run_recipe(recipe)


def lengths(groups: Sequence[RewardedGroup], *_: Any) -> torch.Tensor:
    return torch.tensor([float(len(rollout.token_ids)) for given in groups for rollout in given.group.rollouts])


def test_a_run_that_was_cut_off_ends_in_the_same_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy goes on from its checkpoint, so vLLM must not sample from the weights it started with.

    The base earns nothing yet; here it is rewarded for what is long.
    """
    monkeypatch.setattr(rlvr, "total_rewards", lengths)
    stages = ["warmup=none", "audit=none", "align=none", "evaluation=none", "sft=none", "rlvr.baselines=none"]
    settings = [*SMALL, *stages, "rlvr.num_steps=5", "rlvr.checkpoint_every=1", "rlvr.learning_rate=0.001"]
    whole = run_recipe(load_recipe(DEMO, [*settings, f"output={tmp_path / 'whole'}"]))
    recipe, generate, calls = load_recipe(DEMO, [*settings, f"output={tmp_path / 'cut'}"]), VllmEngine.generate, []

    def fail(engine: VllmEngine, *arguments: Any, **options: Any) -> Any:
        calls.append(engine)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return generate(engine, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VllmEngine, "generate", fail)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe)
    run_recipe(recipe)
    [stage] = [path.name for path in (whole / "seed-0").iterdir() if path.name.endswith("grpo")]
    assert rows(tmp_path / "cut" / "seed-0" / stage) == rows(whole / "seed-0" / stage)
    assert all(row["policy/grad_norm"] > 0 for row in rows(whole / "seed-0" / stage)[:3])
