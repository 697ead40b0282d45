"""Two processes with a vLLM engine each, against one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from prism.config import load_recipe
from prism.stages.pipeline import run_recipe

pytestmark = pytest.mark.vllm

DEMO = Path(__file__).parents[2] / "recipes" / "tiny" / "demo.toml"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "prism")
SMALL = [
    *("data.public=160", "data.alignment=80", "data.rl=40", "data.test_per_benchmark=2", "threads=1"),
    *("sft=none", "warmup=none", "audit=none", "align=none", "evaluation=none", "rlvr.baselines=none"),
    *("rlvr.num_steps=2", "rlvr.prompts_per_step=4", "rlvr.num_mini_batches=2", "rlvr.max_response_tokens=64"),
    'rlvr.algorithms=[{type="grpo"}, {type="dapo", oversampling=1, max_refills=1, overlong_buffer=16}]',
    *("rollout.type=vllm", "rollout.dtype=float32", "rollout.eager=true", "rollout.kv_cache_bytes=134217728"),
    "rollout.tolerance=0.001",
]
STAGES = ("base-grpo", "base-dapo")
"""The second opens engines anew in the same processes."""


def rows(seed: Path, stage: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (seed / stage / name).read_text().splitlines()]


def test_two_processes_sample_and_learn_what_one_does(tmp_path: Path) -> None:
    alone = run_recipe(load_recipe(DEMO, [*SMALL, f"output={tmp_path / 'alone'}"])) / "seed-0"
    command = [*TORCHRUN, "run", str(DEMO), *SMALL, f"output={tmp_path / 'together'}"]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 0, ended.stderr
    together = tmp_path / "together" / "seed-0"
    for stage in STAGES:
        texts = [[row["response"] for row in rows(seed, stage, "samples.jsonl")] for seed in (alone, together)]
        assert texts[0] == texts[1] and all(texts[0])
        for one, two in zip(*(rows(seed, stage, "metrics.jsonl") for seed in (alone, together)), strict=True):
            assert two["sampler/mismatch_max"] < 1e-3 and two["sampler/mismatch_count"] > 100
            assert two["rollout/length"] == one["rollout/length"] and two["reward/total"] == one["reward/total"]
            assert two["loss/policy"] == pytest.approx(one["loss/policy"], abs=1e-5)
        weights = [load_file(seed / stage / "model" / "model.safetensors") for seed in (alone, together)]
        for name, tensor in weights[0].items():
            assert (weights[1][name] - tensor).abs().max() < 1e-4, name
