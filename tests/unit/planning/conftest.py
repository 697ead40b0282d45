"""A small random Qwen3-VL, dense and with experts, and one packed sequence for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from prism.models import upcycle
from prism.packing import tree_attention_mask
from prism.planning.packs import Pack

IMAGE_TOKEN = 5
TOKENS, PATCHES = 100, 64


@dataclass(frozen=True)
class Small:
    """`run` is a forward pass over `pack`, hidden states only."""

    model: Any
    pack: Pack
    run: Callable[[], Tensor]


@pytest.fixture
def make_small() -> Callable[..., Small]:
    def make(*, experts: bool = False, image: bool = True) -> Small:
        config = Qwen3VLConfig(
            text_config={
                "vocab_size": 1000,
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
            return Small(model, _pack(image=image), _forward(model, image=image))

    return make


def _pack(*, image: bool) -> Pack:
    return Pack(TOKENS, TOKENS - 20, TOKENS * (TOKENS + 1) // 2, (PATCHES,) if image else ())


def _forward(model: Any, *, image: bool) -> Callable[[], Tensor]:
    ids = torch.randint(10, 900, (1, TOKENS))
    pictures = {}
    if image:
        ids[0, : PATCHES // 4] = IMAGE_TOKEN
        pictures = {"pixel_values": torch.randn(PATCHES, 1536), "image_grid_thw": torch.tensor([[1, 8, 8]])}
    one_tree = torch.zeros(TOKENS, dtype=torch.long)

    def run() -> Tensor:
        return model.model(
            input_ids=ids,
            position_ids=torch.arange(TOKENS).expand(3, 1, TOKENS),
            attention_mask=tree_attention_mask(one_tree, one_tree),
            use_cache=False,
            **pictures,
        ).last_hidden_state

    return run
