"""The clipped policy-gradient loss. GRPO, DAPO and GSPO are settings of it, not separate losses:

| | level | clip_low, clip_high | dual_clip | aggregation |
| --- | --- | --- | --- | --- |
| GRPO | token | 0.2, 0.2 | None | seq-mean-token-mean |
| DAPO | token | 0.2, 0.28 | 10 | token-mean |
| GSPO | sequence | 3e-4, 4e-4 | None | seq-mean-token-mean |

While the policy is still the one that sampled, every ratio is 1 and nothing is clipped: the gradient
is the plain policy gradient, and settings differ in `aggregation` alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prism.objectives.aggregation import Aggregation, aggregate
from prism.objectives.checks import require_boolean, require_choice, require_floating, require_like

RatioLevel = Literal["token", "sequence"]

MAX_TOKEN_LOG_RATIO = 20.0
MAX_SEQUENCE_LOG_RATIO = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLoss:
    """The loss and, detached, means over the `num_tokens` tokens of this call.

    `clip_fraction`: share of tokens whose clipped loss exceeds the unclipped one. `clip_fraction_dual`:
    share capped by the dual clip. `approx_kl`: mean of old minus new log-probability. To combine
    calls, weigh these by `num_tokens`; `loss` adds up when every call had the same `denominator`.
    """

    loss: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]
    clip_fraction_dual: Float[Tensor, ""]
    approx_kl: Float[Tensor, ""]
    num_tokens: Int[Tensor, ""]


def policy_loss(
    logprobs: Float[Tensor, "rollout token"],
    old_logprobs: Float[Tensor, "rollout token"],
    advantages: Float[Tensor, "rollout"] | Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    *,
    level: RatioLevel = "token",
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    aggregation: Aggregation = "token-mean",
    denominator: float | Tensor | None = None,
    weights: Float[Tensor, "rollout token"] | None = None,
) -> PolicyLoss:
    """max(−A·ρ, −A·clip(ρ, 1 − `clip_low`, 1 + `clip_high`)), averaged as `aggregate` does.

    ρ is the ratio of the token's probability to that under the sampling policy (`level="token"`), or
    the geometric mean of a sequence's token ratios (`"sequence"`, GSPO), whose gradient flows through
    each token's own log-probability. Log ratios are clamped: ±20 for tokens, at most 10 for sequences.
    With `dual_clip` c > 1 the loss of a token with A < 0 is at most −A·c. `weights` multiply the tokens'
    losses after clipping (`importance_weights`).

    Only `logprobs` receives a gradient. Masked places may hold anything. With an empty mask the loss
    is 0 and has a zero gradient, so that every rank can call `backward`. `denominator` is the count
    over the whole batch, as in `aggregate`.
    """
    _check_inputs(logprobs, old_logprobs, advantages, mask)
    _check_settings(level, clip_low, clip_high, dual_clip)
    log_ratio, drift = _log_ratio(logprobs, old_logprobs.detach(), mask, level)
    advantages = advantages.detach()
    advantages = advantages[:, None].expand_as(mask) if advantages.ndim == 1 else advantages

    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = torch.maximum(unclipped, clipped)
    is_clipped, is_capped = clipped > unclipped, torch.zeros_like(mask)
    if dual_clip is not None:
        cap = -advantages * dual_clip
        is_capped = (losses > cap) & (advantages < 0)
        losses = torch.where(advantages < 0, torch.minimum(losses, cap), losses)
    if weights is not None:
        require_like("weights", weights, "logprobs", logprobs)
        losses = losses * weights.detach()
    return PolicyLoss(
        loss=aggregate(losses, mask, aggregation, denominator),
        clip_fraction=aggregate(is_clipped.to(ratio.dtype), mask),
        clip_fraction_dual=aggregate(is_capped.to(ratio.dtype), mask),
        approx_kl=aggregate(-drift, mask),
        num_tokens=mask.sum(),
    )


def _log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: RatioLevel) -> tuple[Tensor, Tensor]:
    """The clamped log ratio of each token, and the detached token log ratio that the KL metric averages."""
    difference = torch.where(mask, logprobs - old_logprobs, torch.zeros_like(logprobs))
    if level == "token":
        log_ratio = difference.clamp(-MAX_TOKEN_LOG_RATIO, MAX_TOKEN_LOG_RATIO)
        return log_ratio, log_ratio.detach()
    drift = difference.detach()
    sequence_mean = drift.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    # The value is the sequence's mean; the gradient with respect to each token's log-probability is
    # the ratio itself, which under seq-mean-token-mean equals the gradient through the mean.
    return (difference - drift + sequence_mean).clamp(max=MAX_SEQUENCE_LOG_RATIO), drift


def _check_inputs(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> None:
    require_floating("logprobs", logprobs, ndim=2)
    require_like("old_logprobs", old_logprobs, "logprobs", logprobs)
    require_boolean("mask", mask, "logprobs", logprobs)
    if advantages.ndim == 1:
        require_like("advantages", advantages, "a column of logprobs", logprobs.new_empty(logprobs.shape[0]))
    else:
        require_like("advantages", advantages, "logprobs", logprobs)


def _check_settings(level: str, clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    require_choice("level", level, ("token", "sequence"))
    if not 0 <= clip_low <= 1:
        raise ValueError(f"clip_low must lie in [0, 1], not {clip_low}")
    if clip_high < 0:
        raise ValueError(f"clip_high must not be negative, as {clip_high} is")
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip must be greater than 1 (or None for no dual clip), not {dual_clip}")
