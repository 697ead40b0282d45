"""Counts against models that exist, and against the sizes that are published."""

from typing import Any

import pytest

from prism.models import load_policy, upcycle, widen
from prism.planning.shapes import body, count, published_shape, read_shape, widened, with_experts
from prism.stages.workspace import SHIPPED_BASE


@pytest.fixture(scope="module")
def dense() -> Any:
    return load_policy(SHIPPED_BASE)


@pytest.mark.parametrize(
    ("name", "total"), [("2B", 2_127_532_032), ("4B", 4_437_815_808), ("8B", 8_767_123_696)]
)  # as the model cards say
def test_published_sizes(name: str, total: int) -> None:
    shape = published_shape(f"models/Qwen3-VL-{name}-Instruct")
    assert shape is not None
    assert shape.total == total


@pytest.mark.parametrize("name", ["models/mine", "Qwen/Qwen2.5-VL-7B", "Qwen3-VL-32B-Instruct", "Qwen3-VL-30B-A3B"])
def test_other_models_have_no_published_shape(name: str) -> None:
    assert published_shape(name) is None


def test_every_parameter_of_a_real_model_is_counted_once(dense: Any) -> None:
    shape = read_shape(dense.config)
    assert shape.total == count(dense)
    assert shape.layer == count(dense.model.language_model.layers[0])
    assert shape.block == count(dense.model.visual.blocks[0])
    assert shape.in_layers == sum(map(count, (*dense.model.language_model.layers, *dense.model.visual.blocks)))


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (3, 1)])
def test_an_upcycled_discriminator(dense: Any, num_experts: int, top_k: int) -> None:
    sparse = upcycle(dense, num_experts=num_experts, top_k=top_k)
    shape = with_experts(read_shape(dense.config), num_experts=num_experts, top_k=top_k)
    assert shape.total == count(sparse.model)
    assert shape == body(read_shape(sparse.config))
    # Of all experts' matrices a token meets those of top_k.
    assert shape.layer - shape.norms - shape.active_matrices == (num_experts - top_k) * shape.mlp


def test_a_widened_discriminator(dense: Any) -> None:
    assert widened(read_shape(dense.config), factor=3).total == count(widen(dense, factor=3).model)


def test_an_output_layer_of_its_own_is_the_policys_alone() -> None:
    policy = published_shape("Qwen3-VL-8B-Instruct")
    assert policy is not None
    assert policy.total - body(policy).total == 151936 * 4096
