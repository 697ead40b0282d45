"""Attention over packed prompt trees, at the cost of what tokens see of each other.

A mask over the whole sequence would leave the work to the square of its length, most of it for pairs that the mask then
forbids. Here every branch is one call on its prompt's and its own keys, which is exact and grows with the branches; or,
on GPUs, where a call costs more than what it computes, all is one call of flex attention that leaves out whole blocks.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from prism.packing.pack import PROMPT, PackedTrees, Runs

BY_BRANCH, BY_BLOCK = "prompt_trees", "prompt_trees_flex"
"""What the two are called among the attention functions of `transformers`."""


def tree_block_mask(tree_ids: Int[Tensor, "length"], branch_ids: Int[Tensor, "length"]) -> BlockMask:
    """What tokens see of each other, by blocks of 128 × 128."""

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_own = (branch_ids[key] == PROMPT) | (branch_ids[query] == branch_ids[key])
        return (query >= key) & (tree_ids[query] == tree_ids[key]) & is_own

    length = tree_ids.numel()
    return create_block_mask(is_visible, None, None, length, length, device=tree_ids.device)


def use_flex_attention(model: Any) -> None:
    """Lets the language layers of a Qwen3-VL read packed trees by flex attention, which needs a GPU to train."""
    model.config.get_text_config()._attn_implementation = BY_BLOCK


def tree_attention(model: Any, packed: PackedTrees) -> dict[str, Any]:
    """The arguments of a forward pass of a Qwen3-VL body that tell its language layers who sees whom.

    The body keeps the attention for good: activation checkpointing runs layers again long after the pass.
    """
    config = model.config.get_text_config()
    if config._attn_implementation == BY_BLOCK:
        return {"attention_mask": tree_block_mask(packed.tree_ids, packed.branch_ids)}
    config._attn_implementation = BY_BRANCH
    return {"runs": packed.runs}


def attend(
    module: nn.Module,
    query: Float[Tensor, "1 heads length width"],
    key: Float[Tensor, "1 key_heads length width"],
    value: Float[Tensor, "1 key_heads length width"],
    attention_mask: BlockMask | Tensor | None,
    *,
    runs: Runs | None = None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 length heads width"], None]:
    """A prompt's token sees what precedes it in its prompt, a branch's also what precedes it in its branch.

    Without `runs` or a block mask, as in decoding, this is the attention named sdpa.
    """
    if isinstance(attention_mask, BlockMask):
        kernel = _flex_attention(query.device.type)
        output = kernel(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True)
        return output.transpose(1, 2).contiguous(), None
    if runs is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    num_groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(num_groups, dim=1) for tensor in (key, value))
    lengths = [length for tree in runs for length in tree]
    # One split has one gradient; every slice would have one of the whole sequence's size.
    pieces = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    settings: dict[str, Any] = {"scale": scaling, "dropout_p": dropout}
    seen = []
    for tree in runs:
        prompt, prompt_key, prompt_value = next(pieces)
        seen.append(scaled_dot_product_attention(prompt, prompt_key, prompt_value, is_causal=True, **settings))
        for length in tree[1:]:
            branch, branch_key, branch_value = next(pieces)
            keys, values = torch.cat([prompt_key, branch_key], 2), torch.cat([prompt_value, branch_value], 2)
            mask = query.new_ones(length, tree[0] + length, dtype=torch.bool).tril(tree[0])
            seen.append(scaled_dot_product_attention(branch, keys, values, attn_mask=mask, **settings))
    return torch.cat(seen, dim=2).transpose(1, 2), None


@cache
def _flex_attention(device_type: str) -> Any:
    """Compiled where there is a kernel to gain; for any length, since no two packed sequences are alike in theirs."""
    return flex_attention if device_type == "cpu" else torch.compile(flex_attention, dynamic=True)


for _name in (BY_BRANCH, BY_BLOCK):
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, sdpa_mask)
