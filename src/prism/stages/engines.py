"""The engine that a stage samples with, as the recipe says."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from prism.config import RolloutConfig, ServedRollout, VllmRollout
from prism.models import PromptEncoder
from prism.models.sharding import is_sharded
from prism.packing import branch_logprobs
from prism.records import Prompt, RolloutGroup
from prism.rollout.engine import PolicyEngine
from prism.rollout.sampling import Sampling
from prism.rollout.served_engine import ServedEngine
from prism.rollout.transformers_engine import TransformersEngine
from prism.rollout.vllm_engine import VllmEngine
from prism.stages.mismatch import Mismatch, check_sampler, join, sampler_logprobs
from prism.stages.policy_update import pack_groups
from prism.stages.workspace import Workspace

MIN_COMPARED = 200
"""Tokens that a check outside the update looks at: a brief answer may agree by chance."""


@contextmanager
def open_engine(
    workspace: Workspace,
    policy: Any,
    encoder: PromptEncoder,
    *,
    max_response_tokens: int,
    batch_size: int | None = None,
    is_checked: bool = False,
) -> Iterator[PolicyEngine]:
    """An engine for `policy`, closed at the end; call `update_weights` before the first rollout.

    vLLM, and the copy that stands in for a sharded policy, start from the base, which has the architecture of every
    later policy. `batch_size` replaces the recipe's for the transformers engine. `is_checked` is for stages that do
    not compare the rollouts with the policy in their update: the first `MIN_COMPARED` tokens after `update_weights`
    are then looked at here.
    """
    settings = workspace.recipe.rollout
    length = workspace.recipe.max_prompt_tokens + max_response_tokens
    if isinstance(settings, VllmRollout):
        engine: PolicyEngine = VllmEngine(workspace.model_directory("base"), encoder, settings, max_length=length)
    elif isinstance(settings, ServedRollout):
        engine = ServedEngine(settings, max_length=length, max_pixels=workspace.recipe.max_pixels)
    else:
        model = workspace.load_policy("base")[0] if is_sharded(policy) else policy
        size = batch_size or settings.batch_size
        engine = TransformersEngine(model, encoder, batch_size=size, is_copy=model is not policy)
    try:
        yield _Checked(engine, policy, encoder, settings, length) if is_checked else engine
    finally:
        engine.close()


class _Checked:
    """`engine`, whose first groups of rollouts after an update are compared with what the policy says of them, until
    `MIN_COMPARED` tokens have been."""

    def __init__(
        self, engine: PolicyEngine, policy: Any, encoder: PromptEncoder, settings: RolloutConfig, token_budget: int
    ) -> None:
        self._engine, self._policy, self._encoder = engine, policy, encoder
        self._settings, self._token_budget = settings, token_budget
        self._compared: list[Mismatch] = []

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        groups = self._engine.generate(prompts, num_samples=num_samples, sampling=sampling, seed=seed)
        for group in groups:
            if sum(part.differences.numel() for part in self._compared) >= MIN_COMPARED:
                break
            mismatch = self._mismatch(group, sampling)
            if mismatch is None:
                break
            self._compared.append(mismatch)
            check_sampler(join(self._compared), self._settings, f"prompt {group.prompt.id!r}")
        return groups

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._engine.update_weights(weights)
        self._compared = []

    def sleep(self) -> None:
        self._engine.sleep()

    def close(self) -> None:
        self._engine.close()

    @torch.no_grad()
    def _mismatch(self, group: RolloutGroup, sampling: Sampling) -> Mismatch | None:
        packs = pack_groups(self._encoder, [group], self._token_budget)
        reported = sampler_logprobs([group], packs)
        if reported is None:
            return None
        banned = torch.tensor(self._encoder.banned_token_ids, dtype=torch.long)
        # Greedy decoding leaves the logits as they are.
        temperature = sampling.temperature or 1.0
        trained = [
            branch_logprobs(self._policy, packed, temperature=temperature, banned_ids=banned).logprobs
            for packed in packs
        ]
        found = torch.cat(trained)
        return Mismatch((found - torch.cat(reported).to(found)).abs())
