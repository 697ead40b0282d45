"""One forward pass over packed prompt trees: hidden states, log-probabilities, scores."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prism.packing.attention import tree_block_mask, uses_flex_attention
from prism.packing.pack import PROMPT, PackedTrees, tree_attention_mask

LOGIT_CHUNK = 4096
"""Targets whose logits exist at one time: bounds memory at chunk × vocabulary."""

SHARDED_CALL = "call_with_weights"
"""The method of a model with sharded weights that calls a function while they are gathered, as `forward` would."""


@dataclass(frozen=True, slots=True, eq=False)
class TargetLogprobs:
    """Per target of a packed sequence, in its order; `entropies` in nats, without a gradient, where asked for."""

    logprobs: Float[Tensor, "targets"]
    entropies: Float[Tensor, "targets"] | None


def packed_hidden(model: nn.Module, packed: PackedTrees, **kwargs: Any) -> tuple[Float[Tensor, "length hidden"], Any]:
    """Last hidden states of `model`, any Hugging Face Qwen3-VL body, and its whole output object."""
    make_mask = tree_block_mask if uses_flex_attention(model) else tree_attention_mask
    output = model(
        input_ids=packed.input_ids[None],
        position_ids=packed.position_ids[:, None],
        attention_mask=make_mask(packed.tree_ids, packed.branch_ids),
        pixel_values=packed.pixel_values,
        image_grid_thw=packed.image_grid_thw,
        use_cache=False,
        **kwargs,
    )
    return output.last_hidden_state[0], output


def _with_weights(model: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(model, *arguments)`. What is returned has to be tensors in tuples: the backward pass starts there."""
    sharded_call = getattr(model, SHARDED_CALL, None)
    return function(model, *arguments) if sharded_call is None else sharded_call(function, *arguments)


def branch_logprobs(
    policy: Any,
    packed: PackedTrees,
    *,
    temperature: float = 1.0,
    banned_ids: Int[Tensor, "banned"] | None = None,
    with_entropy: bool = False,
) -> TargetLogprobs:
    """Log-probabilities of all targets under `policy` (a Qwen3-VL with `.model` and `.lm_head`).

    `temperature` divides the logits and `banned_ids` have no probability, as in sampling, so that they
    are the probabilities of the policy that samples: were banned tokens left in, an update could move
    probability to them that no rollout ever shows. Logits exist for one chunk of targets at a time and
    are recomputed in the backward pass. Computed where the policy is, the results are on the CPU, where
    losses and everything else about them are: they are small.
    """
    packed = packed.to(_device(policy))
    return TargetLogprobs(*_with_weights(policy, _branch_logprobs, packed, temperature, banned_ids, with_entropy))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _branch_logprobs(
    policy: Any, packed: PackedTrees, temperature: float, banned_ids: Tensor | None, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    hidden, _ = packed_hidden(policy.model, packed)
    hidden = hidden[packed.target_positions]
    logprobs, entropies = [], []
    for start in range(0, hidden.shape[0], LOGIT_CHUNK):
        piece = slice(start, start + LOGIT_CHUNK)
        arguments = (policy.lm_head, hidden[piece], packed.target_ids[piece], temperature, banned_ids, with_entropy)
        if hidden.shape[0] > LOGIT_CHUNK and torch.is_grad_enabled():
            logprob, entropy = checkpoint(_target_logprobs, *arguments, use_reentrant=False)
        else:
            logprob, entropy = _target_logprobs(*arguments)
        logprobs.append(logprob)
        entropies.append(entropy)
    return torch.cat(logprobs).cpu(), torch.cat(entropies).cpu() if with_entropy else None


def _target_logprobs(
    lm_head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    target_ids: Tensor,
    temperature: float,
    banned_ids: Tensor | None,
    with_entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    logits = at_least_float32(lm_head(hidden))
    if banned_ids is not None:
        logits = logits.index_fill(-1, banned_ids.to(logits.device), -torch.inf)
    logprobs = (logits / temperature).log_softmax(-1)
    entropy = _entropy(logprobs.detach()) if with_entropy else None
    return logprobs.gather(-1, target_ids[:, None]).squeeze(-1), entropy


def _entropy(logprobs: Tensor) -> Tensor:
    """Zero times −inf, what a banned token would add, counts as 0."""
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(-1)


def branch_scores(
    discriminator: Any, packed: PackedTrees, *, views: Int[Tensor, "rows"] | None = None, with_router: bool = False
) -> tuple[Float[Tensor, "branches"], tuple[Float[Tensor, "length experts"], ...] | None]:
    """One score per branch, read at its last token (`discriminator` has `.model`, `.score` and `.read_as`),
    and on request the router logits of every layer; all on the CPU, in float32 at least.

    `views` tells what part of a response each branch is, for all rows that `packed` counts.
    """
    packed = packed.to(_device(discriminator))
    return _with_weights(discriminator, _branch_scores, packed, views, with_router)


def _branch_scores(
    discriminator: Any, packed: PackedTrees, views: Tensor | None, with_router: bool
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    row_views = None if views is None else views.to(packed.rows.device)[packed.rows]
    discriminator.read_as(None if row_views is None else token_views(packed, row_views))
    arguments = {"output_router_logits": True} if with_router else {}
    hidden, output = packed_hidden(discriminator.model, packed, **arguments)
    scores = discriminator.score(hidden[packed.end_positions], row_views)
    router_logits = tuple(at_least_float32(logits).cpu() for logits in output.router_logits) if with_router else None
    return scores.cpu(), router_logits


def at_least_float32(values: Tensor) -> Tensor:
    """Sixteen bits hold three digits: too few for a score or a logarithm."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def token_views(packed: PackedTrees, row_views: Int[Tensor, "branches"]) -> Int[Tensor, "length"]:
    """The view of the branch each token belongs to, −1 for tokens of prompts."""
    positions = torch.arange(len(packed), device=packed.end_positions.device)
    branch = torch.searchsorted(packed.end_positions, positions).clamp(max=row_views.numel() - 1)
    return torch.where(packed.branch_ids == PROMPT, PROMPT, row_views[branch])


def to_rows(
    values: Float[Tensor, "targets"], packed: PackedTrees, *, num_columns: int
) -> tuple[Float[Tensor, "branches columns"], Bool[Tensor, "branches columns"]]:
    """Per-target values as a matrix with one row per branch of `packed` (in the order of
    `packed.rows`), and the mask of its filled places. Differentiable."""
    local_rows = torch.searchsorted(packed.rows, packed.target_rows)
    matrix = values.new_zeros(packed.rows.numel(), num_columns)
    mask = torch.zeros_like(matrix, dtype=torch.bool)
    matrix = matrix.index_put((local_rows, packed.target_columns), values)
    mask[local_rows, packed.target_columns] = True
    return matrix, mask
