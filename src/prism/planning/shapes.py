"""The shape of a model and its exact parameter counts, from a configuration alone: no weights are read."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, Qwen3VLConfig


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the formulas read of a Qwen3-VL. `num_experts` is 0 and `top_k` 1 where there are none.

    The other counts are of parameters: of the embedding, of an output layer that is not tied to it, of one layer's
    attention, MLP (one expert of it), router and norms, of one block of the vision tower, of its mergers, of the
    projection of its patches, and of the rest: position embedding and final norm. Matrices are what each token (each
    patch, each merged token) is multiplied by.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    num_experts: int
    top_k: int
    depth: int
    vision_hidden: int
    vision_intermediate: int
    vision_heads: int
    merge: int
    embedding: int
    output: int
    attention: int
    mlp: int
    router: int
    norms: int
    block: int
    block_matrices: int
    mergers: int
    merger_matrices: int
    num_mergers: int
    patches: int
    rest: int

    @property
    def layer(self) -> int:
        """Parameters of one language layer, all experts included."""
        return self.attention + self.norms + self.router + max(1, self.num_experts) * self.mlp

    @property
    def active_matrices(self) -> int:
        """Parameters of one language layer that each token is multiplied by."""
        return self.attention + self.router + self.top_k * self.mlp

    @property
    def total(self) -> int:
        return self.in_layers + self.outside_layers

    @property
    def in_layers(self) -> int:
        return self.layers * self.layer + self.depth * self.block

    @property
    def outside_layers(self) -> int:
        """What FSDP keeps together at the top."""
        return self.embedding + self.output + self.mergers + self.patches + self.rest

    @property
    def patch_matrix(self) -> int:
        """Of the projection of patches, without its bias."""
        return self.patches - self.vision_hidden

    @property
    def largest_layer(self) -> int:
        return max(self.layer, self.block)


def read_shape(config: PreTrainedConfig) -> ModelShape:
    """The shape of the Qwen3-VL of `config`, dense or with experts, built without memory and counted."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    text, vision = config.get_text_config(), config.vision_config
    language, visual = model.model.language_model, model.model.visual
    layer, block = language.layers[0], visual.blocks[0]
    attention = _matrices(layer.self_attn)
    num_experts = getattr(text, "num_experts", 0)
    router = layer.mlp.gate.weight.numel() if num_experts else 0
    mergers = [visual.merger, *visual.deepstack_merger_list]
    counted = (language.embed_tokens, *language.layers, *visual.blocks, *mergers, visual.patch_embed)
    is_tied = model.lm_head.weight is language.embed_tokens.weight
    output = 0 if is_tied else count(model.lm_head)
    return ModelShape(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        intermediate=text.moe_intermediate_size if num_experts else text.intermediate_size,
        vocab=text.vocab_size,
        num_experts=num_experts,
        top_k=text.num_experts_per_tok if num_experts else 1,
        depth=vision.depth,
        vision_hidden=vision.hidden_size,
        vision_intermediate=vision.intermediate_size,
        vision_heads=vision.num_heads,
        merge=vision.spatial_merge_size,
        embedding=count(language.embed_tokens),
        output=output,
        attention=attention,
        mlp=(count(layer.mlp) - router) // max(1, num_experts),
        router=router,
        norms=count(layer) - attention - count(layer.mlp),
        block=count(block),
        block_matrices=_matrices(block),
        mergers=sum(map(count, mergers)),
        merger_matrices=sum(map(_matrices, mergers)),
        num_mergers=len(mergers),
        patches=count(visual.patch_embed),
        rest=count(model) - sum(map(count, counted)) - output,
    )


def count(module: nn.Module) -> int:
    """Parameters of `module`, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _matrices(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)


def with_experts(dense: ModelShape, *, num_experts: int, top_k: int) -> ModelShape:
    """The body of the discriminator that `prism.models.upcycle` makes of `dense`."""
    if dense.num_experts:
        return body(dense)
    router = num_experts * dense.hidden
    return replace(body(dense), num_experts=num_experts, top_k=top_k, router=router)


def widened(dense: ModelShape, *, factor: int) -> ModelShape:
    """The body of the discriminator that `prism.models.widen` makes of `dense`."""
    return replace(body(dense), intermediate=factor * dense.intermediate, mlp=factor * dense.mlp)


def body(shape: ModelShape) -> ModelShape:
    """Without an output layer of its own."""
    return replace(shape, output=0)


def published_shape(name: str) -> ModelShape | None:
    """The shape of the Qwen3-VL of 2B, 4B or 8B that `name`, a path or a Hub name, speaks of; None of others.

    As in the config.json that Qwen publishes: counted, they have the sizes on the model cards (2,127,532,032,
    4,437,815,808 and 8,767,123,696 parameters).
    """
    sizes = [size for size in _TEXT if f"qwen3-vl-{size}-" in f"{name.lower()}-"]
    return _published_shape(sizes[0]) if len(sizes) == 1 else None


@cache
def _published_shape(size: str) -> ModelShape:
    return read_shape(published_config(size))


def published_config(size: str) -> Qwen3VLConfig:
    """Of `2b`, `4b` or `8b`; without what has no say in sizes."""
    text, vision = _TEXT[size], _VISION[size]
    return Qwen3VLConfig(
        text_config={"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, **text},
        vision_config={
            "num_heads": 16,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 2304,
            "out_hidden_size": text["hidden_size"],
            **vision,
        },
        tie_word_embeddings=text["tie_word_embeddings"],
    )


def _text(hidden: int, intermediate: int, layers: int, heads: int, is_tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": is_tied,
    }


_TEXT = {
    "2b": _text(2048, 6144, 28, 16, True),
    "4b": _text(2560, 9728, 36, 32, True),
    "8b": _text(4096, 12288, 36, 32, False),
}
_SMALL_VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_VISION: dict[str, dict[str, Any]] = {
    "2b": _SMALL_VISION,
    "4b": _SMALL_VISION,
    "8b": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]},
}
PUBLISHED_PIXELS = (65536, 16777216)
"""The smallest and largest image, in pixels, of the processors of these models."""
