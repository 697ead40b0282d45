"""The engine of a stage: which, for which weights, and whether anyone looks at what it samples."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from prism.config import ImportanceConfig, TransformersRollout, VllmRollout
from prism.errors import RolloutError
from prism.models import PromptEncoder, checkpoint_weights
from prism.records import Prompt, RolloutGroup
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages import engines
from prism.stages.engines import open_engine
from prism.stages.policy_update import PolicyObjective, pack_groups, rollout_logprobs
from prism.stages.workspace import Workspace

Make = Callable[..., Any]


class Copy:
    """In place of VllmEngine: rollouts of a policy that it copies when told to, with log-probabilities."""

    def __init__(self, directory: Any, encoder: PromptEncoder, settings: VllmRollout, *, max_length: int) -> None:
        self.directory, self.settings, self.max_length = directory, settings, max_length
        self.encoder, self.is_closed = encoder, False
        self.policy: Any = None

    def update_weights(self, weights: Any) -> None:
        given = dict(weights)
        with torch.no_grad():
            for name, parameter in self.policy.named_parameters():
                parameter.copy_(given[name])

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        engine = TransformersEngine(self.policy, self.encoder)
        groups = engine.generate(prompts, num_samples=num_samples, sampling=sampling, seed=seed)
        temperature = sampling.temperature or 1.0
        objective = PolicyObjective("token", 0.2, 0.2, None, "token-mean", temperature, self.encoder.banned_token_ids)
        reported = []
        for group in groups:
            [packed] = pack_groups(self.encoder, [group], 4096)
            [values] = rollout_logprobs(self.policy, [packed], objective)
            own = [
                dataclasses.replace(rollout, logprobs=tuple(values[packed.target_rows == row].tolist()))
                for row, rollout in enumerate(group.rollouts)
            ]
            reported.append(RolloutGroup(group.prompt, tuple(own)))
        return reported

    def sleep(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def workspace(make_workspace: Make, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(engines, "VllmEngine", Copy)
    return make_workspace(rollout={"type": "vllm", "tolerance": 1e-3}, max_prompt_tokens=100)


def test_the_recipe_says_which(make_workspace: Make, workspace: Workspace, encoder: PromptEncoder) -> None:
    with open_engine(make_workspace(), None, encoder, max_response_tokens=20) as engine:
        assert isinstance(engine, TransformersEngine)
    with open_engine(workspace, None, encoder, max_response_tokens=20) as engine:
        assert isinstance(engine, Copy) and not engine.is_closed
        assert engine.directory == workspace.model_directory("base") and engine.max_length == 120
        assert engine.settings == workspace.recipe.rollout
    assert engine.is_closed


def test_it_is_closed_when_the_stage_fails(workspace: Workspace, encoder: PromptEncoder) -> None:
    with pytest.raises(ZeroDivisionError), open_engine(workspace, None, encoder, max_response_tokens=20) as engine:
        raise ZeroDivisionError
    assert isinstance(engine, Copy) and engine.is_closed


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_first_tokens_after_an_update_are_looked_at(
    workspace: Workspace,
    encoder: PromptEncoder,
    make_policy: Make,
    make_prompt: Make,
    monkeypatch: pytest.MonkeyPatch,
    temperature: float,
) -> None:
    policy, prompts = make_policy(0), [make_prompt(index) for index in range(2)]
    options: dict[str, Any] = {"num_samples": 2, "sampling": Sampling(temperature, 12), "seed": 0}
    with open_engine(workspace, policy, encoder, max_response_tokens=20, is_checked=True) as engine:
        copied: Any = engine._engine  # type: ignore[attr-defined]
        copied.policy = make_policy(1)
        with pytest.raises(RolloutError, match="prompt 'p0': the engine samples from another policy"):
            engine.generate(prompts, **options)

        def disturb() -> None:
            with torch.no_grad():
                copied.policy.lm_head.weight *= 1.5

        engine.update_weights(checkpoint_weights(policy))
        engine.generate(prompts[:1], **options)
        disturb()
        with pytest.raises(RolloutError, match="prompt 'p1'"):  # one group that agrees is not enough
            engine.generate(prompts[1:], **options)

        monkeypatch.setattr(engines, "MIN_COMPARED", 3)
        engine.update_weights(checkpoint_weights(policy))
        engine.generate(prompts, **options)
        disturb()
        engine.generate(prompts, **options)  # so many tokens are
        engine.update_weights(checkpoint_weights(policy))
        engine.generate(prompts, **options)


def test_what_a_stage_depends_on(make_workspace: Make) -> None:
    """Not on memory, nor on when to stop, lest raising the tolerance start the stage anew."""
    assert make_workspace(rollout={"batch_size": 3}).sampling_settings == []
    settings = {"type": "vllm", "dtype": "float16", "importance": {"cap": 3.0}}
    kept = VllmRollout(dtype="float16", importance=ImportanceConfig(cap=3.0))
    for more in ({}, {"tolerance": 0.5, "memory_fraction": 0.7, "batch_size": 2, "sleep": True}):
        assert make_workspace(rollout=settings | more).sampling_settings == [kept]
    # Rows with more images are dropped.
    assert make_workspace(rollout=settings | {"max_images": 1}).sampling_settings != [kept]
    assert isinstance(make_workspace().recipe.rollout, TransformersRollout)
