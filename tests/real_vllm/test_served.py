"""A real vLLM behind `prism serve`: weights over HTTP, log-probabilities of the training forward."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism.config import ServedRollout
from prism.errors import RolloutError
from prism.models import PromptEncoder, checkpoint_weights
from prism.records import Prompt
from prism.rollout.sampling import Sampling
from prism.rollout.served_engine import ServedEngine
from prism.stages.mismatch import check_sampler
from prism.stages.workspace import SHIPPED_BASE
from real_vllm.test_engine import disturb, largest, measure

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
SAMPLING = Sampling(1.0, 24)


@pytest.fixture(scope="module")
def engine() -> Iterator[ServedEngine]:
    command = [sys.executable, "-m", "prism", "serve", str(SHIPPED_BASE), "--port", "0", "max_length=300"]
    command += ["rollout.dtype=float32", f"rollout.kv_cache_bytes={2**28}", "rollout.eager=true"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(line.split()[-1] for line in process.stdout if line.startswith("serving rollouts at"))
        yield ServedEngine(ServedRollout(base_urls=(address,), tolerance=1e-3), max_length=300)
    finally:
        process.terminate()
        process.wait()


def test_a_server_follows_a_policy_that_changes(
    engine: ServedEngine, policy: Any, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    for step, part in enumerate(["", "language_model.layers", "visual"]):
        if part:
            disturb(policy, part, 0.02, seed=step)
        engine.update_weights(checkpoint_weights(policy))
        groups = engine.generate(prompts, num_samples=3, sampling=SAMPLING, seed=step)
        mismatch = measure(policy, encoder, groups)
        check_sampler(mismatch, ServedRollout(base_urls=("http://x",), tolerance=1e-3), f"step {step}")
        assert largest(mismatch) < 1e-3
    repeated = engine.generate(prompts, num_samples=3, sampling=SAMPLING, seed=2)
    assert repeated == groups


def test_a_wrong_name_is_refused(engine: ServedEngine, policy: Any, prompts: list[Prompt]) -> None:
    weights = dict(checkpoint_weights(policy))
    name = next(iter(weights))
    with pytest.raises(RolloutError, match=f"the checkpoint has no weight not.{name}"):
        engine.update_weights({f"not.{name}": weights[name]}.items())
    with pytest.raises(RolloutError, match="are not those that this run gave it"):
        engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)
