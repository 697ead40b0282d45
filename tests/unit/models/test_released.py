"""Released discriminators: files made here in the shape that transformers 4.57 wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from prism.errors import ModelError
from prism.models import Discriminator, Mode, upcycle

Build = Callable[..., Any]
EXPERTS = "language_model.layers.0.mlp.experts"


@pytest.fixture
def discriminator(build_dense: Build) -> Discriminator:
    return make(build_dense)


def make(build_dense: Build, **options: int) -> Discriminator:
    made = Discriminator(upcycle(build_dense(**options), num_experts=3).model)
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(3))
    return made.eval()


def write_released(
    discriminator: Discriminator, directory: Path, *, prefix: str = "model.", head: str = "v_head.1.weight"
) -> None:
    """Older expert layout, names with a prefix, the head among the weights, an older configuration."""
    directory.mkdir(exist_ok=True)
    state = {}
    for name, weight in discriminator.model.state_dict().items():
        is_expert = ".mlp.experts." in name
        state[prefix + name] = (weight.transpose(1, 2) if is_expert else weight).contiguous()
    state[head] = discriminator.head.weight.detach().clone()
    state[prefix.removesuffix("model.") + "lm_head.weight"] = torch.zeros(2, 2)
    save_file(state, directory / "model.safetensors")
    config = discriminator.model.config.to_dict()
    config |= {"transformers_version": "4.57.0", "architectures": ["Qwen3VLMoeForConditionalGeneration"]}
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope
    text["num_experts"] = text.pop("num_local_experts")
    config["vision_config"]["model_type"] = "qwen3_vl_moe"
    config["vision_config"].pop("rope_parameters", None)
    (directory / "config.json").write_text(json.dumps(config))


def assert_same(loaded: Discriminator, original: Discriminator) -> None:
    state = original.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in state.items())
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        ours = loaded.score(loaded.model(input_ids=ids).last_hidden_state[0])
        theirs = original.score(original.model(input_ids=ids).last_hidden_state[0])
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("prefix", "head"),
    [
        ("model.", "v_head.1.weight"),
        ("", "v_head.1.weight"),
        ("pretrained_model.model.", "score.weight"),
        ("module.model.", "module.v_head.1.weight"),
    ],
)
def test_names_and_layout_are_converted(discriminator: Discriminator, tmp_path: Path, prefix: str, head: str) -> None:
    write_released(discriminator, tmp_path, prefix=prefix, head=head)
    assert_same(Discriminator.from_pretrained(tmp_path), discriminator)


@pytest.mark.parametrize("mode", ["moe", "text-only", "whole-response"])
def test_a_released_discriminator_is_read_in_the_mode_asked_for(
    discriminator: Discriminator, tmp_path: Path, mode: Mode
) -> None:
    """It does not say how it was trained, and has one head."""
    write_released(discriminator, tmp_path)
    loaded = Discriminator.from_pretrained(tmp_path, mode=mode)
    assert loaded.mode == mode
    assert_same(loaded, discriminator)


def test_a_released_discriminator_is_neither_dense_nor_dedicated(build_dense: Build, tmp_path: Path) -> None:
    write_released(Discriminator(upcycle(build_dense(), num_experts=4).model), tmp_path)
    with pytest.raises(ModelError, match="mode 'dense' needs a Qwen3VLModel as its body"):
        Discriminator.from_pretrained(tmp_path, mode="dense")
    with pytest.raises(ModelError, match="does not fit the body in mode 'dedicated'"):
        Discriminator.from_pretrained(tmp_path, mode="dedicated")


@pytest.mark.parametrize("inter", [32, 16])
def test_square_experts_are_told_apart(build_dense: Build, tmp_path: Path, inter: int) -> None:
    """At hidden 32, inter 32 makes `down` square and inter 16 makes `gate_up` square."""
    original = make(build_dense, intermediate_size=inter)
    write_released(original, tmp_path)
    assert_same(Discriminator.from_pretrained(tmp_path), original)


def test_an_expert_computes_what_the_older_version_did(build_dense: Build, tmp_path: Path) -> None:
    """4.57 multiplied from the right: (silu(x·W_gate) * (x·W_up))·W_down with [W_gate | W_up] in one tensor."""
    original = make(build_dense, intermediate_size=32)
    write_released(original, tmp_path)
    older = load_file(tmp_path / "model.safetensors")
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    gate, up = (inputs @ older[f"model.{EXPERTS}.gate_up_proj"][1]).chunk(2, dim=-1)
    expected = (F.silu(gate) * up) @ older[f"model.{EXPERTS}.down_proj"][1]
    experts = Discriminator.from_pretrained(tmp_path).model.get_submodule(EXPERTS)
    ones = torch.ones(5, 1)
    with torch.no_grad():
        actual = experts(inputs, torch.ones(5, 1, dtype=torch.long), ones)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_current_layout_is_left_as_it_is(discriminator: Discriminator, tmp_path: Path) -> None:
    write_released(discriminator, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for name in state:
        if ".mlp.experts." in name:
            state[name] = state[name].transpose(1, 2).contiguous()
    save_file(state, tmp_path / "model.safetensors")
    assert_same(Discriminator.from_pretrained(tmp_path), discriminator)


def test_sharded_files(discriminator: Discriminator, tmp_path: Path) -> None:
    write_released(discriminator, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(state))}
    for file in set(places.values()):
        save_file({name: state[name] for name in state if places[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(Discriminator.from_pretrained(tmp_path), discriminator)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot read"):
        Discriminator.from_pretrained(tmp_path)


def test_dense_body_with_a_released_head(build_dense: Build, tmp_path: Path) -> None:
    original = Discriminator(build_dense().model)
    torch.nn.init.ones_(original.head.weight)
    original.save_pretrained(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    state = {f"model.{name}": weight for name, weight in original.model.state_dict().items()}
    save_file(state | {"v_head.1.weight": original.head.weight.detach()}, tmp_path / "model.safetensors")
    assert_same(Discriminator.from_pretrained(tmp_path), original)


def test_dtype_is_applied(discriminator: Discriminator, tmp_path: Path) -> None:
    write_released(discriminator, tmp_path)
    loaded = Discriminator.from_pretrained(tmp_path, dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(loaded.head.weight, discriminator.head.weight.bfloat16())


def edited(directory: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    state = load_file(directory / "model.safetensors")
    edit(state)
    save_file(state, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop("v_head.1.weight"), "found none"),
        (lambda state: state.update({"score.weight": torch.ones(1, 32)}), "found .*score"),
        (lambda state: state.update({"adapter.weight": torch.ones(1)}), "'adapter.weight' is unknown"),
        (lambda state: state.update({"model.language_model.norm.more": torch.ones(1)}), "1 unexpected weights"),
        (lambda state: state.update({"language_model.norm.weight": torch.ones(1)}), "there twice"),
        (lambda state: state.pop("model.language_model.norm.weight"), "1 missing weights: language_model.norm"),
        (lambda state: state.update({"model.visual.pos_embed.weight": torch.ones(3)}), "do not fit"),
        (lambda state: state.update({f"model.{EXPERTS}.down_proj": torch.ones(3, 7, 32)}), "does not fit"),
        (lambda state: state.update({f"model.{EXPERTS}.down_proj": torch.ones(3, 32, 48)}), "two layouts"),
        (lambda state: state.update({"v_head.1.weight": torch.ones(1, 16)}), "does not fit the body"),
    ],
)
def test_unfitting_tensors_are_refused(
    discriminator: Discriminator, tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    write_released(discriminator, tmp_path)
    with pytest.raises(ModelError, match=message):
        Discriminator.from_pretrained(edited(tmp_path, edit))


def test_directory_without_weights_is_refused(discriminator: Discriminator, tmp_path: Path) -> None:
    write_released(discriminator, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot read safetensors"):
        Discriminator.from_pretrained(tmp_path)
