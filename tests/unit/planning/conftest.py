"""A small random Qwen3-VL, dense and with experts, and one packed sequence for it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from prism.models import upcycle
from prism.packing import Branch, EncodedPrompt, PackedTrees, Pixels, PromptTree, pack_trees, packed_hidden
from prism.planning.packs import Pack, Tree, pack_lengths

IMAGE_TOKEN = 5
TOKENS, PATCHES = 100, 64
BRANCHING, SINGLE = (20, (18, 30)), (12, (20,))
"""Prompt and branches of the two trees, together `TOKENS`; the first has an image of `PATCHES`."""


@dataclass(frozen=True)
class Small:
    """`run` is a forward pass over `pack`, hidden states only."""

    model: Any
    pack: Pack
    run: Callable[[], Tensor]


@pytest.fixture
def make_small() -> Callable[..., Small]:
    def make(*, experts: bool = False, image: bool = True, vocab: int = 1000) -> Small:
        config = Qwen3VLConfig(
            text_config={
                "vocab_size": vocab,
                "hidden_size": 64,
                "intermediate_size": 160,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [6, 5, 5],
                    "mrope_interleaved": True,
                },
                "tie_word_embeddings": True,
            },
            vision_config={
                "depth": 3,
                "hidden_size": 48,
                "intermediate_size": 112,
                "num_heads": 4,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
            image_token_id=IMAGE_TOKEN,
            tie_word_embeddings=True,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: Any = Qwen3VLForConditionalGeneration(config)
            model = (upcycle(model, noise_std=0.1) if experts else model).train()
            packed = _packed(image=image)
            return Small(model, _pack(image=image), lambda: packed_hidden(model.model, packed)[0])

    return make


def _pack(*, image: bool) -> Pack:
    [pack] = pack_lengths([Tree(*BRANCHING, (PATCHES,) if image else ()), Tree(*SINGLE)], TOKENS)
    return pack


def _packed(*, image: bool) -> PackedTrees:
    first, second = _tree(*BRANCHING), _tree(*SINGLE)
    if image:
        first.prompt.token_ids[: PATCHES // 4] = IMAGE_TOKEN
        values = torch.randn(PATCHES, 1536)
        prompt = replace(first.prompt, pixels=Pixels(lambda: values), image_grid_thw=torch.tensor([[1, 8, 8]]))
        first = replace(first, prompt=prompt)
    [packed] = pack_trees([first, second], token_budget=TOKENS)
    return packed


def _tree(prompt: int, branches: tuple[int, ...]) -> PromptTree:
    ids, places = torch.randint(10, 900, (prompt,)), torch.arange(prompt).expand(3, -1)
    others = tuple(Branch.of(torch.randint(10, 900, (length,)).tolist()) for length in branches)
    return PromptTree(EncodedPrompt(ids, places, prompt), others)
