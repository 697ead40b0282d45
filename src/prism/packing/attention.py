"""Attention over prompt trees that skips what no branch may look at: flex attention with a block mask.

With a dense mask (sdpa) every pair of tokens of a packed sequence is computed, visible or not, and the mask is as
large as the square of its length. A block mask leaves whole blocks out: other trees, and other branches.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from prism.packing.pack import PROMPT

TREE_ATTENTION = "prompt_tree"
"""The name under which transformers finds `attend`."""


def use_flex_attention(body: PreTrainedModel) -> None:
    """Lets the language layers of `body` read packed trees with flex attention; the vision tower keeps its own."""
    AttentionInterface.register(TREE_ATTENTION, attend)
    body.set_attn_implementation({"text_config": TREE_ATTENTION})


def uses_flex_attention(body: nn.Module) -> bool:
    config: Any = body.config
    return config.get_text_config()._attn_implementation == TREE_ATTENTION


def tree_block_mask(tree_ids: Int[Tensor, "length"], branch_ids: Int[Tensor, "length"]) -> BlockMask:
    """What `tree_attention_mask` says, by blocks of 128 × 128."""

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_own = (branch_ids[key] == PROMPT) | (branch_ids[query] == branch_ids[key])
        return (query >= key) & (tree_ids[query] == tree_ids[key]) & is_own

    length = tree_ids.numel()
    return create_block_mask(is_visible, None, None, length, length, device=tree_ids.device)


def attend(
    module: nn.Module,
    query: Float[Tensor, "1 heads length size"],
    key: Float[Tensor, "1 groups length size"],
    value: Float[Tensor, "1 groups length size"],
    attention_mask: BlockMask | Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function as transformers calls them. Any mask but a block mask, as in sampling, is left to sdpa."""
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    output = _flex_attention(query.device.type)(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


@cache
def _flex_attention(device_type: str) -> Any:
    """Compiled where there is a kernel to gain; for any length, since no two packed sequences are alike in theirs."""
    return flex_attention if device_type == "cpu" else torch.compile(flex_attention, dynamic=True)
