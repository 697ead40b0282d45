"""Prompt trees packed into sequences without padding, and the forward pass over them."""

from prism.packing.forward import TargetLogprobs, branch_logprobs, branch_scores, packed_hidden, to_rows, token_views
from prism.packing.pack import PackedTrees, pack_trees
from prism.packing.tree import Branch, EncodedPrompt, Pixels, PromptTree

__all__ = [
    "Branch",
    "EncodedPrompt",
    "PackedTrees",
    "Pixels",
    "PromptTree",
    "TargetLogprobs",
    "branch_logprobs",
    "branch_scores",
    "pack_trees",
    "packed_hidden",
    "to_rows",
    "token_views",
]
