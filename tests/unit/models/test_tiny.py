"""The tiny model and its tokenizer, the shipped one included."""

import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from prism.data.world.datasets import PUBLIC, demonstrations
from prism.data.world.lessons import draw_lesson, tokenizer_texts
from prism.data.world.oracle import Fidelity
from prism.models.processor import PromptEncoder
from prism.models.tiny import (
    SPECIAL_TOKENS,
    build_tiny,
    tiny_config,
    tiny_encoder,
    train_tokenizer,
)
from prism.records import Prompt
from prism.stages.workspace import SHIPPED_BASE

SHIPPED = PromptEncoder.from_pretrained(SHIPPED_BASE)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random_source = random.Random(1)
    lessons = [draw_lesson(random_source) for _ in range(400)]
    examples = [*lessons, *demonstrations("x", PUBLIC, Fidelity(0.1, 0.1, 0.3), 150, 1)]
    return [text for example in examples for text in (example.prompt.question, example.completion)]


@pytest.fixture(scope="module")
def trained(texts: list[str]) -> PreTrainedTokenizerFast:
    return train_tokenizer(texts)


@settings(max_examples=200)
@given(st.text())
def test_any_text_survives_the_shipped_tokenizer(text: str) -> None:
    ids = SHIPPED.completion_ids(text)
    assert SHIPPED.decode(ids) == text
    assert ids[-1] == SHIPPED.end_token_id
    assert not set(ids) & set(SHIPPED.banned_token_ids)


@pytest.mark.parametrize("text", ["", "\x00", "  \n\n\t ", "é 数 🙂‍↔️", "<|im_end|>", "<caption", "1000", "a" * 300])
def test_awkward_texts_survive_a_fresh_tokenizer(trained: PreTrainedTokenizerFast, text: str) -> None:
    encoder = tiny_encoder(trained)
    assert encoder.decode(encoder.completion_ids(text)) == text


def test_every_word_number_and_tag_of_the_world_is_one_token(texts: list[str]) -> None:
    words = {
        word
        for text in texts
        for word in re.findall(r" ?[a-d]\d\b| ?[A-Za-z]+| ?\d{1,2}", re.sub(r"<[^>]*>", "", text))
    }
    assert " Repeat" in words
    words |= {f"<{slash}{tag}>" for tag in ("caption", "think", "answer") for slash in ("", "/")}
    assert len(words) > 100
    assert {word: len(SHIPPED.completion_ids(word)) - 1 for word in words} == dict.fromkeys(words, 1)


def test_what_the_world_writes_is_as_many_tokens_as_it_has_words_and_marks(texts: list[str]) -> None:
    """A cell's name (a1, b2) is a word."""
    for text in texts[::5]:
        plain = text.replace("<image>", "")
        pieces = re.findall(r" ?</?[a-z]+>| ?[a-d]\d\b| ?[A-Za-z]+| ?\d{1,2}| ?[^\sA-Za-z0-9]|\s", plain)
        assert "".join(pieces) == plain
        assert len(SHIPPED.completion_ids(plain)) - 1 == len(pieces)


def test_the_shipped_tokenizer_is_the_one_that_pretraining_makes() -> None:
    assert train_tokenizer(tokenizer_texts()).get_vocab() == SHIPPED.tokenizer.get_vocab()


def test_control_tokens_have_their_own_ids_and_only_the_end_may_be_sampled(trained: PreTrainedTokenizerFast) -> None:
    for encoder in (SHIPPED, tiny_encoder(trained)):
        vocabulary = encoder.tokenizer.get_vocab()
        ids = {vocabulary[token] for token in SPECIAL_TOKENS}
        assert len(ids) == len(SPECIAL_TOKENS)
        assert encoder.end_token_id == vocabulary["<|im_end|>"]
        assert ids - {encoder.end_token_id} <= set(encoder.banned_token_ids)


def test_shipped_tokenizer_reads_a_conversation() -> None:
    encoded = SHIPPED.encode(Prompt("p", "How many red objects are there?"))
    assert SHIPPED.tokenizer.decode(encoded.token_ids.tolist()) == (
        "<|im_start|>user\nHow many red objects are there?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_size_and_family() -> None:
    config = tiny_config(SHIPPED.tokenizer)
    model = build_tiny(config, seed=0)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 1e6 < num_parameters < 1.5e6
    assert model.config.model_type == "qwen3_vl"
    assert model.lm_head.weight.data_ptr() == model.model.language_model.embed_tokens.weight.data_ptr()
    rows = config.get_text_config().vocab_size
    assert rows % 64 == 0 and rows >= len(SHIPPED.tokenizer) > rows - 64
    assert {*SHIPPED.banned_token_ids} >= set(range(len(SHIPPED.tokenizer), rows))


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    config = tiny_config(SHIPPED.tokenizer, hidden_size=32, num_layers=2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_tiny(config, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    again, other = build_tiny(config, seed=1).state_dict(), build_tiny(config, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_weights_have_the_deviation_of_their_fan_in() -> None:
    model = build_tiny(tiny_config(SHIPPED.tokenizer), seed=0)
    layer = model.model.language_model.layers[0].mlp
    for weight, fan_in in (
        (layer.down_proj.weight, 256),
        (layer.up_proj.weight, 128),
        (model.lm_head.weight, 128),
        (model.model.visual.patch_embed.proj.weight, 3 * 2 * 16 * 16),
    ):
        assert float(weight.detach().std()) == pytest.approx(fan_in**-0.5, rel=0.05)


def test_saved_encoder_is_found_again(tmp_path, trained: PreTrainedTokenizerFast) -> None:
    encoder = tiny_encoder(trained)
    encoder.save_pretrained(tmp_path)
    tiny_config(trained).save_pretrained(tmp_path)
    prompt = Prompt("p", "How many <|im_end|> are there?", system="Count.")
    loaded = PromptEncoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(prompt).token_ids, encoder.encode(prompt).token_ids)
    assert loaded.banned_token_ids == encoder.banned_token_ids
