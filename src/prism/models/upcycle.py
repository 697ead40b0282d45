"""Sparse upcycling: a dense Qwen3-VL becomes a mixture of experts that starts as the same function.

Every expert is a copy of its layer's MLP (Komatsuzaki et al., 2023). The router normalises the
weights of the chosen experts to sum to one, so copies without noise give the dense model's output
whatever the router says.
"""

import copy

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from prism.errors import ConfigError, ModelError

ROUTER_STD = 0.02


def upcycle(
    dense: PreTrainedModel, *, num_experts: int = 4, top_k: int = 2, noise_std: float = 0.01, seed: int = 0
) -> Qwen3VLMoeForConditionalGeneration:
    """A Qwen3-VL-MoE of `num_experts` experts per layer, `top_k` of them used per token.

    Gaussian noise of standard deviation `noise_std`, the same for all weights, tells the experts
    apart; the router starts as Gaussian noise of `ROUTER_STD`. Vision tower, attention, norms and
    embeddings are copied, dtype and device kept, `dense` left alone. Equal seeds give equal weights.
    """
    if not isinstance(dense, Qwen3VLForConditionalGeneration):
        raise ModelError(f"cannot upcycle {type(dense).__name__}: it takes a dense Qwen3VLForConditionalGeneration")
    if not 1 <= top_k <= num_experts:
        raise ConfigError(f"top_k={top_k} must lie between 1 and num_experts={num_experts}")
    if noise_std < 0:
        raise ConfigError(f"noise_std={noise_std} must not be negative")
    with torch.device("meta"):
        sparse = Qwen3VLMoeForConditionalGeneration(_sparse_config(dense, num_experts, top_k))
    sparse.load_state_dict(_sparse_state(dense, num_experts, noise_std, seed), assign=True)
    _copy_buffers(dense, sparse)
    sparse.tie_weights()
    sparse.train(dense.training)
    return sparse


def _sparse_config(dense: Qwen3VLForConditionalGeneration, num_experts: int, top_k: int) -> Qwen3VLMoeConfig:
    whole = dense.config.to_dict()
    text = {name: value for name, value in whole.pop("text_config").items() if name != "model_type"}
    vision = {name: value for name, value in whole.pop("vision_config").items() if name != "model_type"}
    for name in ("model_type", "architectures", "transformers_version"):
        whole.pop(name, None)
    text |= {
        "num_experts": num_experts,
        "num_experts_per_tok": top_k,
        "moe_intermediate_size": dense.config.get_text_config().intermediate_size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        # transformers 5 always normalises; other programs read this and default to false.
        "norm_topk_prob": True,
    }
    config = Qwen3VLMoeConfig(text_config=text, vision_config=vision, **whole)
    config._attn_implementation = dense.config._attn_implementation
    return config


def _sparse_state(
    dense: Qwen3VLForConditionalGeneration, num_experts: int, noise_std: float, seed: int
) -> dict[str, Tensor]:
    """The dense weights, with every text MLP replaced by router and stacked experts.

    Router and noise draw from generators of their own: the router is the same at any noise level.
    """
    router_random = torch.Generator().manual_seed(seed)
    noise_random = torch.Generator().manual_seed(seed + 1)
    state = {name: weight.detach().clone() for name, weight in dense.state_dict().items()}
    for index in range(dense.config.get_text_config().num_hidden_layers):
        prefix = f"model.language_model.layers.{index}.mlp"
        gate, up, down = (state.pop(f"{prefix}.{name}_proj.weight") for name in ("gate", "up", "down"))
        router = torch.randn(num_experts, gate.shape[1], generator=router_random) * ROUTER_STD
        state[f"{prefix}.gate.weight"] = router.to(gate)
        gate_up = torch.cat([gate, up])
        state[f"{prefix}.experts.gate_up_proj"] = _noisy_copies(gate_up, num_experts, noise_std, noise_random)
        state[f"{prefix}.experts.down_proj"] = _noisy_copies(down, num_experts, noise_std, noise_random)
    return state


def _noisy_copies(weight: Tensor, count: int, noise_std: float, random: torch.Generator) -> Tensor:
    copies = weight.repeat(count, 1, 1)
    if noise_std > 0:
        copies += (torch.randn(copies.shape, generator=random) * noise_std).to(copies)
    return copies


def _copy_buffers(dense: Qwen3VLForConditionalGeneration, sparse: PreTrainedModel) -> None:
    """Rotary frequencies are not in the state dict, and the new model's have no memory behind them."""
    source = dict(dense.named_buffers())
    for name, _ in list(sparse.named_buffers()):
        module, _, leaf = name.rpartition(".")
        setattr(sparse.get_submodule(module), leaf, source[name].clone())


def widen(
    dense: PreTrainedModel, *, factor: int = 2, noise_std: float = 0.01, seed: int = 0
) -> Qwen3VLForConditionalGeneration:
    """A dense Qwen3-VL whose text MLPs are `factor` times as wide, the same function but for the noise.

    It computes as much per token as a mixture of experts with `factor` active ones, so that a comparison
    of the two is about routing, not size. Each MLP is repeated along its inner dimension and the output
    weights are divided by `factor`; noise as in `upcycle`. `dense` is left alone.
    """
    if not isinstance(dense, Qwen3VLForConditionalGeneration):
        raise ModelError(f"cannot widen {type(dense).__name__}: it takes a dense Qwen3VLForConditionalGeneration")
    if factor < 1 or noise_std < 0:
        raise ConfigError(f"factor={factor} must be at least 1 and noise_std={noise_std} not negative")
    config = copy.deepcopy(dense.config)
    text = config.get_text_config()
    text.intermediate_size *= factor
    random = torch.Generator().manual_seed(seed)
    state = {name: weight.detach().clone() for name, weight in dense.state_dict().items()}
    for index in range(text.num_hidden_layers):
        prefix = f"model.language_model.layers.{index}.mlp"
        for name, dimension, scale in (("gate", 0, 1.0), ("up", 0, 1.0), ("down", 1, 1 / factor)):
            copies = torch.cat([state[f"{prefix}.{name}_proj.weight"] * scale] * factor, dim=dimension)
            noise = torch.randn(copies.shape, generator=random) * noise_std * scale
            state[f"{prefix}.{name}_proj.weight"] = copies + noise.to(copies)
    with torch.device("meta"):
        wide = Qwen3VLForConditionalGeneration(config)
    wide.load_state_dict(state, assign=True)
    _copy_buffers(dense, wide)
    wide.tie_weights()
    wide.train(dense.training)
    return wide
