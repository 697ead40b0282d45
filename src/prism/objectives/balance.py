"""Load balancing of a sparse mixture of experts (Switch Transformer, as in transformers' Qwen3-VL-MoE)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.objectives.checks import require_floating, require_like

GateLogits = Float[Tensor, "layer token expert"] | Sequence[Float[Tensor, "token expert"]]


def load_balancing_loss(
    gate_logits: GateLogits, *, top_k: int, mask: Bool[Tensor, "*token"] | None = None
) -> Float[Tensor, ""]:
    """E · Σ_e f_e · P_e over E experts: f the share of tokens an expert is chosen for, P its mean probability.

    Means run over layers and the tokens where `mask` (one entry per token, of any shape) is true.
    Σ f is `top_k`, so a perfectly balanced router has the value `top_k`. The gradient flows through P
    alone. A product of two means does not add up over micro-batches: each gets its own loss.
    """
    logits, counted = _stacked(gate_logits, top_k, mask)
    load = _load(logits, counted, top_k)
    probabilities = logits.softmax(-1) * counted[:, None].to(logits.dtype)
    mean_probability = probabilities.sum((0, 1)) / _num_slots(logits, counted)
    return (logits.shape[-1] * (load * mean_probability).sum()).to(logits.dtype)


@torch.no_grad()
def expert_load(
    gate_logits: GateLogits, *, top_k: int, mask: Bool[Tensor, "*token"] | None = None
) -> Float[Tensor, "expert"]:
    """For each expert the share of tokens (over all layers) that choose it; the shares add up to `top_k`."""
    logits, counted = _stacked(gate_logits, top_k, mask)
    return _load(logits, counted, top_k)


def _load(logits: Tensor, counted: Tensor, top_k: int) -> Tensor:
    chosen = torch.zeros_like(logits).scatter(-1, logits.topk(top_k, dim=-1).indices, 1.0)
    return (chosen * counted[:, None].to(logits.dtype)).sum((0, 1)) / _num_slots(logits, counted)


def _num_slots(logits: Tensor, counted: Tensor) -> Tensor:
    return (counted.sum() * logits.shape[0]).clamp(min=1)


def _stacked(gate_logits: GateLogits, top_k: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits as (layers, tokens, experts), 0 where `mask` is false, and `mask` as (tokens,)."""
    layers = list(gate_logits)
    if not layers:
        raise ValueError("gate_logits: the model gave no router logits (ask it for output_router_logits)")
    for position, layer in enumerate(layers):
        require_floating(f"gate_logits[{position}]", layer, ndim=2)
        require_like(f"gate_logits[{position}]", layer, "gate_logits[0]", layers[0])
    num_tokens, num_experts = layers[0].shape
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k must lie in 1..{num_experts}, the number of experts in gate_logits, not {top_k}")
    logits = torch.stack(layers)
    if mask is None:
        return logits, torch.ones(num_tokens, dtype=torch.bool, device=logits.device)
    if mask.dtype != torch.bool or mask.numel() != num_tokens:
        raise ValueError(
            f"mask must be boolean with one entry for each of the {num_tokens} tokens of gate_logits, "
            f"not {mask.dtype} of shape {tuple(mask.shape)}"
        )
    counted = mask.reshape(-1)
    return torch.where(counted[:, None], logits, torch.zeros_like(logits)), counted
