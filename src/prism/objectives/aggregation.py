"""From per-token values to one number, over a batch that may be spread over micro-batches and ranks."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.objectives.checks import require_boolean, require_choice, require_floating

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"]
AGGREGATIONS: tuple[Aggregation, ...] = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum")


def divide_by_count(total: Float[Tensor, ""], count: float | Tensor) -> Float[Tensor, ""]:
    """`total` / max(1, `count`) in the dtype of `total`: an empty batch gives 0, still connected to its inputs."""
    count = count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
    return (total / count).to(total.dtype)


def aggregate(
    values: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    aggregation: Aggregation = "token-mean",
    denominator: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """The mean of `values` where `mask` is true, in one of three senses.

    - `token-mean`: every token counts the same.
    - `seq-mean-token-mean`: the mean over sequences of their token mean.
    - `seq-mean-token-sum`: the mean over sequences of their token sum.

    Sequences without any token are left out. `denominator` is what the sum is divided by: the number
    of tokens (`token-mean`) or of non-empty sequences (the others) in the whole batch, over all
    micro-batches and ranks; results of the parts then add up to the result of the whole. The default
    is the number in this call. A sequence must not be cut across calls under the sequence means.

    Masked places may hold anything, NaN included: neither the value nor the gradient sees them.
    """
    require_floating("values", values, ndim=2)
    require_boolean("mask", mask, "values", values)
    require_choice("aggregation", aggregation, AGGREGATIONS)
    values = torch.where(mask, values, torch.zeros_like(values))
    lengths = mask.sum(-1)
    if aggregation == "token-mean":
        return divide_by_count(values.sum(), mask.sum() if denominator is None else denominator)
    per_sequence = values.sum(-1)
    if aggregation == "seq-mean-token-mean":
        per_sequence = per_sequence / lengths.clamp(min=1)
    return divide_by_count(per_sequence.sum(), (lengths > 0).sum() if denominator is None else denominator)
