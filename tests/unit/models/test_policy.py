"""Saved policies load elsewhere with the same weights; damaged or foreign ones are refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from prism.errors import ModelError
from prism.models.checkpoint import read_weight_shapes
from prism.models.policy import checkpoint_weights, load_policy, save_policy, take_weights
from prism.models.processor import PromptEncoder
from prism.models.upcycle import upcycle
from prism.records import Prompt

Build = Callable[..., Any]


@pytest.mark.parametrize("tied", [True, False])
def test_saved_policy_loads_with_identical_weights(
    build_dense: Build, encoder: PromptEncoder, tmp_path: Path, tied: bool
) -> None:
    model = build_dense(tied=tied)
    save_policy(model, encoder, tmp_path)
    result: Any = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    loaded, report = result
    assert not any(report.values())
    expected = model.state_dict()
    for candidate in (loaded, load_policy(tmp_path)):
        state = candidate.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], weight) for name, weight in expected.items())
        shared = candidate.lm_head.weight is candidate.model.language_model.embed_tokens.weight
        assert shared is tied


def test_gathered_state_dict_takes_the_place_of_the_models(
    build_dense: Build, encoder: PromptEncoder, tmp_path: Path
) -> None:
    """As after gathering shards: tied tensors come as two copies."""
    model, other = build_dense(), build_dense(seed=1)
    save_policy(model, encoder, tmp_path, state_dict={k: v.clone() for k, v in other.state_dict().items()})
    loaded = load_policy(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in other.state_dict().items())


def test_policy_directory_is_complete(build_dense: Build, encoder: PromptEncoder, tmp_path: Path) -> None:
    save_policy(build_dense(), encoder, tmp_path)
    prompt = Prompt("p", "What?")
    reloaded = PromptEncoder.from_pretrained(tmp_path)
    assert torch.equal(reloaded.encode(prompt).token_ids, encoder.encode(prompt).token_ids)
    assert not list(tmp_path.glob("*.bin"))


def test_dtype_and_attention(build_dense: Build, encoder: PromptEncoder, tmp_path: Path) -> None:
    save_policy(build_dense(), encoder, tmp_path)
    model = load_policy(tmp_path, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "sdpa"
    assert not model.training


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="'llama' is not Qwen3-VL"):
        load_policy(tmp_path)


def test_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_policy(tmp_path)


@pytest.fixture
def saved(build_dense: Build, encoder: PromptEncoder, tmp_path: Path) -> Path:
    save_policy(build_dense(), encoder, tmp_path)
    return tmp_path


def test_missing_weight_is_named(saved: Path) -> None:
    state = load_file(saved / "model.safetensors")
    name = next(name for name in state if name.endswith("layers.1.mlp.up_proj.weight"))
    del state[name]
    save_file(state, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 missing weights: .*layers\.1\.mlp\.up_proj"):
        load_policy(saved)


def test_foreign_weight_is_named(saved: Path) -> None:
    state = load_file(saved / "model.safetensors") | {"v_head.1.weight": torch.ones(1, 32)}
    save_file(state, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 unexpected weights: v_head"):
        load_policy(saved)


def test_weight_of_another_size_is_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 40
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=str(saved)):
        load_policy(saved)


def test_cut_file_and_pickles_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot load weights"):
        load_policy(saved)
    weights.rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load weights"):
        load_policy(saved)


@pytest.mark.parametrize("tied", [True, False])
def test_checkpoint_weights_are_what_the_files_hold(
    build_dense: Build, encoder: PromptEncoder, tmp_path: Path, tied: bool
) -> None:
    model = build_dense(tied=tied)
    save_policy(model, encoder, tmp_path)
    written, given = load_file(tmp_path / "model.safetensors"), dict(checkpoint_weights(model))
    assert ("lm_head.weight" in given) is not tied
    assert given.keys() == written.keys()
    assert all(torch.equal(given[name], weight) and not given[name].requires_grad for name, weight in written.items())
    assert read_weight_shapes(tmp_path) == {name: tuple(weight.shape) for name, weight in given.items()}


def test_experts_are_given_as_qwen_publishes_them(build_dense: Build, encoder: PromptEncoder, tmp_path: Path) -> None:
    """(expert, in, out), which transformers turns round when it reads them: the same model comes back."""
    model = upcycle(build_dense(), num_experts=3, noise_std=0.1)
    config = model.config.get_text_config()
    save_policy(model, encoder, tmp_path)
    given = dict(checkpoint_weights(model))
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, tmp_path / "model.safetensors")
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    assert given[name].shape == (3, config.hidden_size, 2 * config.moe_intermediate_size)
    loaded = load_policy(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_copy_takes_the_weights_of_another_model(build_dense: Build, is_sparse: bool) -> None:
    one, other = build_dense(seed=1), build_dense(seed=2)
    if is_sparse:
        one, other = upcycle(one, noise_std=0.1), upcycle(other, noise_std=0.1)
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    take_weights(other, checkpoint_weights(one))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    weights = dict(checkpoint_weights(one))
    missing = weights.popitem()[0]
    with pytest.raises(ModelError, match=f"1 weights were not given, {re.escape(missing)} the first"):
        take_weights(other, weights.items())


def test_shapes_are_read_from_shards_without_a_tied_copy(
    build_dense: Build, encoder: PromptEncoder, tmp_path: Path
) -> None:
    model = build_dense(tied=True)
    save_policy(model, encoder, tmp_path)
    expected = read_weight_shapes(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"].clone()
    (tmp_path / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, own in shards.items():
        save_file({name: weights[name] for name in own}, tmp_path / file)
    index = {"weight_map": {name: file for file, own in shards.items() for name in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weight_shapes(tmp_path) == expected
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ModelError, match="no readable safetensors files"):
        read_weight_shapes(tmp_path)
