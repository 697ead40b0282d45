"""A tiny Qwen3-VL, about one million parameters, with a tokenizer and chat template of its own.

Architecture, special tokens and patch geometry are those of the real family, only smaller, so every
stage runs the code it runs on Qwen3-VL-4B.
"""

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from prism.models.patches import project_patches
from prism.models.processor import PromptEncoder

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_PIECES = Regex(r" ?</?[a-z]+>| ?\b[a-d][1-4]\b| ?[A-Za-z]+| ?\d{1,2}| ?[^\sA-Za-z0-9]|\s")


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`: every word of the world is one token, any other text still encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def tiny_config(tokenizer: PreTrainedTokenizerBase, *, hidden_size: int = 128, num_layers: int = 6) -> Qwen3VLConfig:
    """About 1.3M parameters at the defaults; patches of 16 pixels merged 2 × 2, as in Qwen3-VL."""
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in SPECIAL_TOKENS}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": _num_embeddings(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "initializer_range": hidden_size**-0.5,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": hidden_size,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.1,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def _num_embeddings(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of 64, as real checkpoints are."""
    return -(-len(tokenizer) // 64) * 64


def build_tiny(config: Qwen3VLConfig, *, seed: int) -> Qwen3VLForConditionalGeneration:
    """Random weights with standard deviation 1/√fan-in: at this width the usual 0.02 learns no perception."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    model.tie_weights()
    project_patches(model)
    return model


def tiny_encoder(tokenizer: PreTrainedTokenizerBase) -> PromptEncoder:
    """The tiny model's chat template and image settings around `tokenizer`."""
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        # Mean and spread of the built-in world's pixels: white paper is near 0, so ink stands out.
        image_mean=[0.94, 0.94, 0.94],
        image_std=[0.25, 0.25, 0.25],
        size={"shortest_edge": 32 * 32, "longest_edge": 512 * 512},
    )
    return PromptEncoder(tokenizer, image_processor, CHAT_TEMPLATE, vocab_size=_num_embeddings(tokenizer))
