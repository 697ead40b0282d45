"""A small tokenizer with Qwen's pre-tokenizer, control tokens and chat template, and random models to match."""

import math
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from prism.models.processor import PromptEncoder
from prism.records import ImageSource

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
CONTROL += ["<|image_pad|>", "<|video_pad|>"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
SPLIT += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
CORPUS = [
    "user\nWhat is the total of the two numbers?\n\nassistant\nsystem\nYou are a helpful assistant.",
    "<caption>A red circle and a blue square.</caption><think>1. Count: 2 + 3 = 5.</think><answer>5</answer>",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """As in Qwen, `<think>` is an added token but not special, and `<|fim_pad|>` a control token not marked so."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[token for token in CONTROL if token not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    plain: Any = [
        AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>", "<|fim_pad|>")
    ]
    tokenizer.add_tokens(plain)
    return tokenizer


@pytest.fixture
def image_processor() -> Qwen2VLImageProcessorPil:
    """Cells of 8 pixels (patch 4, merge 2); 1 to 16 of them per image."""
    half = [0.5, 0.5, 0.5]
    return Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024, image_mean=half, image_std=half
    )


@pytest.fixture(scope="session")
def config(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Qwen3VLConfig]:
    """Makes configurations; keyword arguments replace entries of the text part."""

    def make(*, tied: bool = True, **text: int) -> Qwen3VLConfig:
        tokens = {name: f"<|{name}|>" for name in ("vision_start", "vision_end")}
        tokens |= {name: f"<|{name}_pad|>" for name in ("image", "video")}
        ids: dict[str, Any] = {
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()
        }
        text_config = {
            "vocab_size": math.ceil(len(tokenizer) / 32) * 32,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "tie_word_embeddings": tied,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        } | text
        return Qwen3VLConfig(
            text_config=text_config,
            vision_config={
                "depth": 2,
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_heads": 2,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": text_config["hidden_size"],
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
                "initializer_range": 0.2,
            },
            tie_word_embeddings=tied,
            **ids,
        )

    return make


@pytest.fixture(scope="session")
def build_dense(config: Callable[..., Qwen3VLConfig]) -> Callable[..., Qwen3VLForConditionalGeneration]:
    def build(*, seed: int = 0, **options: int) -> Qwen3VLForConditionalGeneration:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Qwen3VLForConditionalGeneration(config(**options)).eval()

    return build


@pytest.fixture
def encoder(
    tokenizer: PreTrainedTokenizerFast,
    image_processor: Qwen2VLImageProcessorPil,
    config: Callable[..., Qwen3VLConfig],
) -> PromptEncoder:
    return PromptEncoder(tokenizer, image_processor, vocab_size=config().get_text_config().vocab_size)


@pytest.fixture(scope="session")
def picture() -> Callable[..., ImageSource]:
    """Makes noise images as PNG bytes."""

    def make(width: int, height: int, seed: int = 0) -> ImageSource:
        noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
        buffer = BytesIO()
        Image.fromarray(noise.byte().numpy()).save(buffer, "PNG")
        return ImageSource(data=buffer.getvalue())

    return make
