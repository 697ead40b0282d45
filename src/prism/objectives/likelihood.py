"""What follows from token probabilities alone: imitation loss, distance to a reference, entropy."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.objectives.aggregation import aggregate
from prism.objectives.checks import require_choice, require_floating, require_like

KlKind = Literal["k1", "k2", "k3"]

MAX_KL_LOG_RATIO = 20.0
MAX_K3 = 10.0


def completion_nll(
    logprobs: Float[Tensor, "completion token"],
    mask: Bool[Tensor, "completion token"],
    denominator: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Negative log-likelihood per target token, in nats: the SFT loss.

    `denominator` is the number of target tokens in the whole batch (see `aggregate`), without which
    short completions would weigh more in some micro-batches than in others.
    """
    require_floating("logprobs", logprobs, ndim=2)
    return -aggregate(logprobs, mask, "token-mean", denominator)


def kl_estimate(
    logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"], *, kind: KlKind
) -> Float[Tensor, "*shape"]:
    """Per-token estimate of KL(policy ‖ reference) at a token sampled from the policy.

    With d = `ref_logprobs` − `logprobs`: k1 = −d (unbiased, of either sign), k2 = d²/2 (its gradient
    is unbiased), k3 = exp(d) − d − 1 (unbiased and never negative), where k3 clamps d to ±20 and its
    result to at most 10. The method uses none of them in its losses: they measure drift.
    """
    require_floating("logprobs", logprobs)
    require_like("ref_logprobs", ref_logprobs, "logprobs", logprobs)
    require_choice("kind", kind, ("k1", "k2", "k3"))
    if kind == "k1":
        return logprobs - ref_logprobs
    if kind == "k2":
        return (logprobs - ref_logprobs).square() / 2
    difference = (ref_logprobs - logprobs).clamp(-MAX_KL_LOG_RATIO, MAX_KL_LOG_RATIO)
    # expm1 keeps the digits that exp(d) − 1 loses near d = 0, where k3 is as small as d².
    return (difference.expm1() - difference).clamp(max=MAX_K3)


def entropy_from_logits(logits: Float[Tensor, "*shape vocabulary"]) -> Float[Tensor, "*shape"]:
    """Entropy in nats of each softmax distribution; a banned token (logit −inf) contributes 0."""
    require_floating("logits", logits)
    logprobs = logits.log_softmax(-1)
    probabilities = logprobs.exp()
    is_banned = logits == -torch.inf
    return -(probabilities * logprobs.masked_fill(is_banned, 0)).sum(-1)
