"""A mixture of experts as policy, apart from the dense engines: vLLM makes its process groups for one kind of model."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from prism.config import VllmRollout
from prism.errors import RolloutError
from prism.models import PromptEncoder, checkpoint_weights, load_policy, save_policy, upcycle
from prism.records import Prompt
from prism.rollout.vllm_engine import VllmEngine
from prism.stages.mismatch import check_sampler
from real_vllm.test_engine import SAMPLING, measure

pytestmark = pytest.mark.vllm


def test_experts_that_do_not_arrive_are_noticed(
    encoder: PromptEncoder, policy: Any, settings: VllmRollout, prompts: list[Prompt], tmp_path: Path
) -> None:
    """vLLM 0.32 reads a mixture of experts from its files on a CPU, but cannot replace the experts there."""
    directory = tmp_path / "moe"
    save_policy(upcycle(policy, num_experts=3, noise_std=0.01), encoder, directory)
    sparse = load_policy(directory)
    save_file(
        {name: tensor.contiguous() for name, tensor in checkpoint_weights(sparse)},
        directory / "model.safetensors",
        {"format": "pt"},
    )
    assert load_file(directory / "model.safetensors").keys() == dict(checkpoint_weights(sparse)).keys()
    engine = VllmEngine(directory, encoder, settings, max_length=300)
    check_sampler(
        measure(sparse, encoder, engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=8)),
        settings,
        "from the files",
    )
    engine.update_weights(checkpoint_weights(sparse))
    groups = engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=8)
    with pytest.raises(RolloutError, match="samples from another policy"):
        check_sampler(measure(sparse, encoder, groups), settings, "step 1")
