"""Attention over packed prompt trees, at the cost of what tokens see of each other.

A mask over the whole sequence would leave the work to the square of its length, most of it for pairs that the mask then
forbids. Here every branch is one call on its prompt's and its own keys, which is exact and grows with the branches; or,
on GPUs, where a call costs more than what it computes, all is one call of flex attention that leaves out whole blocks.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from prism.packing.pack import PROMPT, PackedTrees, Runs

BY_BRANCH, BY_BLOCK = "prompt_trees", "prompt_trees_flex"
"""What the two are called among the attention functions of `transformers`."""

BLOCK = 128
"""Tokens of a block of flex attention, queries or keys."""


def tree_block_mask(tree_ids: Int[Tensor, "length"], branch_ids: Int[Tensor, "length"]) -> BlockMask:
    """What tokens see of each other, by blocks of 128 × 128.

    As `create_block_mask` would find out by looking at every pair of tokens, which takes gigabytes for tens of
    thousands of them; here it follows from where prompts and branches begin and end.
    """

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_own = (branch_ids[key] == PROMPT) | (branch_ids[query] == branch_ids[key])
        return (query >= key) & (tree_ids[query] == tree_ids[key]) & is_own

    length, num_visible = tree_ids.numel(), _visible_per_block(tree_ids, branch_ids)
    is_whole = num_visible == BLOCK * BLOCK
    return BlockMask.from_kv_blocks(
        *_listed((num_visible > 0) & ~is_whole),
        *_listed(is_whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=is_visible,
        seq_lengths=(length, length),
    )


def _visible_per_block(
    tree_ids: Int[Tensor, "length"], branch_ids: Int[Tensor, "length"]
) -> Float[Tensor, "blocks blocks"]:
    """How many pairs of a query in the row's block and a key in the column's are visible."""
    ids = torch.stack([tree_ids, branch_ids])
    segments, segment_of, _ = torch.unique_consecutive(ids, dim=1, return_inverse=True, return_counts=True)
    length, (trees, branches) = tree_ids.numel(), segments
    one = torch.ones((), dtype=torch.float64, device=ids.device)
    inside = one.new_zeros(-(-length // BLOCK), segments.shape[1])  # tokens of a block that are in a segment
    inside.index_put_((torch.arange(length, device=ids.device) // BLOCK, segment_of), one, accumulate=True)
    is_prompt_of = (trees[:, None] == trees) & (branches[:, None] != PROMPT) & (branches == PROMPT)
    # A branch's tokens see all of its prompt; any token sees those of its own prompt or branch up to itself.
    prompts = inside @ is_prompt_of.double() @ inside.T
    earlier_blocks = (inside @ inside.T).tril(-1)
    own_block = (inside * (inside + 1) / 2).sum(1)
    return prompts + earlier_blocks + own_block.diag()


def _listed(is_in: Bool[Tensor, "blocks blocks"]) -> tuple[Int[Tensor, "1 1 blocks"], Int[Tensor, "1 1 blocks blocks"]]:
    """For each row how many columns are in, and all columns, those before the others, as `BlockMask` has them."""
    columns = is_in.int().argsort(dim=-1, descending=True, stable=True)
    return is_in.sum(-1, dtype=torch.int32)[None, None], columns.int()[None, None]


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

    Without `runs` or a block mask, as where sampling reads its prompts, this is the attention named sdpa.
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
