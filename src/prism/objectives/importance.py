"""Weights for samples that another implementation of the policy drew."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.objectives.checks import require_boolean, require_choice, require_floating, require_like

ImportanceLevel = Literal["token", "sequence"]


def importance_weights(
    old_logprobs: Float[Tensor, "rollout token"],
    sampler_logprobs: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    *,
    level: ImportanceLevel = "token",
    cap: float,
) -> Float[Tensor, "rollout token"]:
    """min(π_old / π_sampler, `cap`), truncated importance sampling (Yao et al. 2025; Ionides 2008).

    Both are the policy before its update, π_old as the training forward has it and π_sampler as the engine
    that sampled has it. The ratio is that of a token, or the product over all tokens of its sequence
    (`level="sequence"`), the same for each of them. Detached; 1 in masked places, which may hold anything.
    """
    require_floating("old_logprobs", old_logprobs, ndim=2)
    require_like("sampler_logprobs", sampler_logprobs, "old_logprobs", old_logprobs)
    require_boolean("mask", mask, "old_logprobs", old_logprobs)
    require_choice("level", level, ("token", "sequence"))
    if cap < 1:
        raise ValueError(f"cap must be at least 1, not {cap}: less would scale every loss")
    log_ratio = torch.where(mask, (old_logprobs - sampler_logprobs).detach(), torch.zeros_like(old_logprobs))
    if level == "sequence":
        log_ratio = torch.where(mask, log_ratio.sum(-1, keepdim=True), torch.zeros_like(log_ratio))
    return log_ratio.exp().clamp(max=cap)
