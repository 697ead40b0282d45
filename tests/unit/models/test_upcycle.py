"""Upcycling and widening against golden logits of the dense model and against dense models built here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration

from prism.errors import ConfigError, ModelError
from prism.models import upcycle, widen
from prism.models.policy import load_policy

GOLDEN = Path(__file__).parents[2] / "golden"
Build = Callable[..., Any]


@pytest.fixture(scope="module")
def case() -> dict:
    return json.loads((GOLDEN / "upcycle_case.json").read_text())


@pytest.fixture(scope="module")
def inputs(case: dict) -> dict[str, torch.Tensor]:
    pixels = np.load(GOLDEN / "upcycle_pixels.npz")
    return {
        "input_ids": torch.tensor(case["input_ids"]),
        "mm_token_type_ids": torch.tensor(case["mm_token_type_ids"]),
        "image_grid_thw": torch.tensor(case["image_grid_thw"]),
        "pixel_values": torch.tensor(pixels["pixel_values"]),
    }


@torch.no_grad()
def logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def choose_prompt(dense: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The golden prompt with the image token of models built here."""
    ids = inputs["input_ids"].clone()
    ids[inputs["mm_token_type_ids"] == 1] = dense.config.image_token_id
    return inputs | {"input_ids": ids}


def test_golden_logits_shapes_and_sums(case: dict, inputs: dict[str, torch.Tensor]) -> None:
    sparse = upcycle(load_policy(GOLDEN / "upcycle_dense_qwen3_vl"), noise_std=0.0)
    expected = torch.tensor(case["expected_last3_logits_float64"], dtype=torch.float32)
    torch.testing.assert_close(logits(sparse, inputs)[0, -3:], expected, atol=1e-5, rtol=0)
    state = sparse.state_dict()
    shapes = case["upcycled_shapes_transformers_5_23"]
    assert {name: list(state[name].shape) for name in shapes} == shapes
    for layer, sums in case["upcycled_expert_tensor_sums"].items():
        for name in ("gate_up", "down"):
            weight = state[f"model.language_model.layers.{layer}.mlp.experts.{name}_proj"].double()
            assert weight.sum().item() == pytest.approx(sums[f"{name}_sum"], abs=1e-6)
            assert weight.square().sum().item() == pytest.approx(sums[f"{name}_sum_sq"], abs=1e-6)


@pytest.mark.parametrize(("num_experts", "top_k"), [(1, 1), (2, 1), (3, 3), (4, 2), (6, 5)])
@pytest.mark.parametrize("tied", [True, False])
def test_copies_compute_the_dense_function(
    build_dense: Build, inputs: dict[str, torch.Tensor], num_experts: int, top_k: int, tied: bool
) -> None:
    dense = build_dense(seed=num_experts, tied=tied)
    sparse = upcycle(dense, num_experts=num_experts, top_k=top_k, noise_std=0.0, seed=5)
    prompt = choose_prompt(dense, inputs)
    torch.testing.assert_close(logits(sparse, prompt), logits(dense, prompt), atol=1e-5, rtol=0)
    assert (sparse.lm_head.weight is sparse.model.language_model.embed_tokens.weight) is tied


def test_noise_has_the_given_size_and_tells_experts_apart(build_dense: Build) -> None:
    exact, noisy = (upcycle(build_dense(), noise_std=std).state_dict() for std in (0.0, 0.01))
    differences = [noisy[name] - exact[name] for name in exact if ".experts." in name]
    values = torch.cat([difference.flatten() for difference in differences])
    assert values.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(values.mean().item()) < 2e-4
    for difference in differences:
        assert not torch.equal(difference[0], difference[1])
    unchanged = [name for name in exact if ".experts." not in name]
    assert all(torch.equal(noisy[name], exact[name]) for name in unchanged)


def test_router_is_small_random_and_differs_by_layer(build_dense: Build) -> None:
    state = upcycle(build_dense(hidden_size=256, num_attention_heads=4), num_experts=64).state_dict()
    routers = [weight for name, weight in state.items() if name.endswith(".mlp.gate.weight")]
    assert [tuple(router.shape) for router in routers] == [(64, 256)] * 2
    assert all(router.std().item() == pytest.approx(0.02, rel=0.05) for router in routers)
    assert not torch.equal(*routers)


def test_seed_decides_the_weights(build_dense: Build) -> None:
    dense = build_dense()
    torch.manual_seed(1)
    first = upcycle(dense, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = upcycle(dense, seed=3).state_dict(), upcycle(dense, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {name for name in first if ".mlp.experts." in name or name.endswith(".mlp.gate.weight")}


def test_dense_model_is_left_alone(build_dense: Build) -> None:
    dense = build_dense()
    before = {name: weight.clone() for name, weight in dense.state_dict().items()}
    sparse = upcycle(dense, noise_std=0.0)
    with torch.no_grad():
        for parameter in sparse.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in dense.state_dict().items())


def test_dtype_is_kept(build_dense: Build) -> None:
    sparse = upcycle(build_dense().to(torch.bfloat16))
    assert {parameter.dtype for parameter in sparse.parameters()} == {torch.bfloat16}


def test_every_weight_of_the_text_model_learns(build_dense: Build) -> None:
    sparse = upcycle(build_dense(), num_experts=4, top_k=4)
    sparse(input_ids=torch.arange(10, 30)[None]).logits.square().mean().backward()
    for name, parameter in sparse.named_parameters():
        if "visual" not in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_saved_and_reloaded(build_dense: Build, inputs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    # inter = hidden: the shape at which the older and the current expert layout look alike
    sparse = upcycle(build_dense(intermediate_size=32), num_experts=3)
    sparse.save_pretrained(tmp_path)
    loaded = Qwen3VLMoeForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in sparse.state_dict().items())
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert text["norm_topk_prob"] is True and text["num_experts_per_tok"] == 2


@pytest.mark.parametrize("options", [{"top_k": 5}, {"top_k": 0}, {"num_experts": 0}, {"noise_std": -1.0}])
def test_impossible_options_are_refused(build_dense: Build, options: dict) -> None:
    with pytest.raises(ConfigError):
        upcycle(build_dense(), **options)


def test_a_sparse_model_is_not_upcycled_again(build_dense: Build) -> None:
    with pytest.raises(ModelError, match="Qwen3VLMoeForConditionalGeneration"):
        upcycle(upcycle(build_dense()))


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_wider_mlps_compute_the_dense_function(
    build_dense: Build, inputs: dict[str, torch.Tensor], factor: int, tied: bool
) -> None:
    dense = build_dense(seed=factor, tied=tied)
    wide = widen(dense, factor=factor, noise_std=0.0)
    prompt = choose_prompt(dense, inputs)
    torch.testing.assert_close(logits(wide, prompt), logits(dense, prompt), atol=1e-5, rtol=0)
    assert wide.config.get_text_config().intermediate_size == factor * 48
    assert (wide.lm_head.weight is wide.model.language_model.embed_tokens.weight) is tied


def test_golden_logits_of_the_wider_model(case: dict, inputs: dict[str, torch.Tensor]) -> None:
    wide = widen(load_policy(GOLDEN / "upcycle_dense_qwen3_vl"), noise_std=0.0)
    expected = torch.tensor(case["expected_last3_logits_float64"], dtype=torch.float32)
    torch.testing.assert_close(logits(wide, inputs)[0, -3:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (6, 3)])
def test_wider_mlps_cost_as_much_as_the_active_experts(build_dense: Build, num_experts: int, top_k: int) -> None:
    """Multiply-adds of seven tokens, counted from the matrix products that are carried out."""
    dense = build_dense()
    sparse = upcycle(dense, num_experts=num_experts, top_k=top_k)
    sparse.set_experts_implementation("eager")
    wide = widen(dense, factor=top_k)
    tokens = torch.randn(1, 7, 32)
    layers = (model.model.language_model.layers[0] for model in (sparse, wide))
    costs = []
    for layer in layers:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer.mlp(tokens)
        costs.append(counter.get_total_flops() // 2)
    by_hand = 7 * top_k * 3 * 32 * 48
    assert costs == [by_hand + 7 * num_experts * 32, by_hand]  # the sparse one's router comes on top


def test_noise_on_wider_mlps_is_to_the_weights_of_each_copy(build_dense: Build) -> None:
    """Written as the average of two whole MLPs, each copy has noise of the given size on all its weights."""
    exact, noisy = (widen(build_dense(), noise_std=std).state_dict() for std in (0.0, 0.01))
    changed = {name for name in exact if not torch.equal(exact[name], noisy[name])}
    assert changed == {name for name in exact if "language_model" in name and ".mlp." in name}
    for name in changed:
        is_down = "down_proj" in name
        copies = (2 * (noisy[name] - exact[name]) if is_down else noisy[name] - exact[name]).chunk(2, int(is_down))
        assert not torch.equal(*copies)
        for difference in copies:
            assert difference.std().item() == pytest.approx(0.01, rel=0.1)
            assert abs(difference.mean().item()) < 1e-3


def test_wider_mlps_leave_the_dense_model_alone_and_follow_the_seed(build_dense: Build) -> None:
    dense = build_dense().to(torch.bfloat16)
    before = {name: weight.clone() for name, weight in dense.state_dict().items()}
    wide, again, other = (widen(dense, seed=seed) for seed in (3, 3, 4))
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.bfloat16}
    first, second, third = (model.state_dict() for model in (wide, again, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.add_(1.0)
    assert dense.config.get_text_config().intermediate_size == 48
    assert all(torch.equal(weight, before[name]) for name, weight in dense.state_dict().items())


def test_copies_of_wider_mlps_learn_apart(build_dense: Build) -> None:
    wide = widen(build_dense())
    wide(input_ids=torch.arange(10, 30)[None]).logits.square().mean().backward()
    gate = wide.model.language_model.layers[0].mlp.gate_proj.weight.grad
    assert gate is not None and not torch.allclose(*gate.chunk(2), rtol=1e-3)


def test_wider_model_saved_and_reloaded(build_dense: Build, inputs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wide = widen(build_dense())
    wide.save_pretrained(tmp_path)
    loaded = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path)
    prompt = choose_prompt(wide, inputs)
    assert torch.equal(logits(loaded, prompt), logits(wide, prompt))


@pytest.mark.parametrize("options", [{"factor": 0}, {"noise_std": -1.0}])
def test_impossible_widths_are_refused(build_dense: Build, options: dict) -> None:
    with pytest.raises(ConfigError):
        widen(build_dense(), **options)


def test_a_sparse_model_is_not_widened(build_dense: Build) -> None:
    with pytest.raises(ModelError, match="Qwen3VLMoeForConditionalGeneration"):
        widen(upcycle(build_dense()))
