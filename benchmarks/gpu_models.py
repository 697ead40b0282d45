"""What `gpu_update.py` measures: models of random weights, held as the stages hold theirs on one GPU."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Qwen3VLConfig

from prism.config import Precision
from prism.models import Discriminator, PromptEncoder, upcycle
from prism.models.patches import project_patches
from prism.models.sharding import shard
from prism.models.tiny import tiny_config
from prism.packing.attention import use_flex_attention
from prism.planning.shapes import published_config

SIZES = {"4b": ("4b", "2b"), "2b": ("2b", "2b"), "tiny": ("tiny", "tiny")}
"""What policy and discriminator are made of."""

TINY_VOCABULARY = 8192
"""As in the real models a token's logits are then far larger than its hidden state, which has 128 numbers."""


@dataclass(frozen=True, slots=True)
class Settings:
    size: str = "4b"
    layers: int | None = None
    device: str = "cuda"
    runs: int = 5
    is_checkpointing: bool = False
    group_size: int = 16
    branch_tokens: int = 400
    image_tokens: int = 256

    @property
    def precision(self) -> Precision:
        return "bfloat16" if self.device == "cuda" else "float32"

    def describe(self) -> str:
        layers = "all layers" if self.layers is None else f"{self.layers} language layers"
        attention = "flex attention" if self.device == "cuda" else "sdpa"
        kept = "activation checkpointing" if self.is_checkpointing else "activations kept"
        return (
            f"{self.size}, {layers}, {self.precision}, {attention}, {kept}; {self.group_size} completions of "
            f"{self.branch_tokens} tokens, {self.image_tokens} image tokens; medians of {self.runs} runs"
        )


def make_config(encoder: PromptEncoder, name: str, layers: int | None) -> Qwen3VLConfig:
    """The published shape of `name`, or the tiny model's, for prompts of `encoder`."""
    tiny: Any = tiny_config(encoder.tokenizer)
    tiny.text_config.vocab_size = TINY_VOCABULARY
    config: Any = tiny if name == "tiny" else published_config(name)
    for token in ("image", "video", "vision_start", "vision_end"):
        setattr(config, f"{token}_token_id", getattr(tiny, f"{token}_token_id"))
    if layers is not None:
        config.text_config.num_hidden_layers = layers
    return config


def make_dense(config: Qwen3VLConfig, settings: Settings) -> Any:
    """Random weights, drawn where they will be and in the layers' precision."""
    with torch.device(settings.device):
        dense = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, settings.precision), attn_implementation="sdpa"
        )
    dense.tie_weights()
    project_patches(dense)
    return dense.train()


def make_discriminator(config: Qwen3VLConfig, settings: Settings) -> Discriminator:
    """Experts are equal here: noise between them would change no time, and takes long to draw."""
    body = upcycle(make_dense(config, settings), num_experts=4, top_k=2, noise_std=0).model
    discriminator = Discriminator(body, mode="moe").train()
    torch.nn.init.normal_(discriminator.head.weight, std=0.1)
    return discriminator


def to_train(model: Any, settings: Settings) -> Any:
    """As `Workspace.to_train` has it, in bfloat16 with float32 weights behind it."""
    body = model.model if isinstance(model, Discriminator) else model
    if settings.device == "cuda":
        use_flex_attention(body)
    if settings.is_checkpointing:
        body.gradient_checkpointing_enable({"use_reentrant": False})
    return model if settings.precision == "float32" else shard(model.float(), settings.precision)


def to_use(model: Any, settings: Settings) -> Any:
    """As `Workspace.to_use` has it: rounded for good."""
    if settings.device == "cuda":
        use_flex_attention(model.model if isinstance(model, Discriminator) else model)
    return model.eval()
