"""What a pass keeps against what autograd saves; what stays against real weights and AdamW."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from prism.models.adapters import add_adapters
from prism.planning import memory
from prism.planning.packs import Pack, Tree, pack_lengths
from prism.planning.shapes import published_shape, read_shape
from prism.planning.work import Model
from prism.runtime.optimizer import make_optimizer

from .conftest import Small

Make = Callable[..., Small]


def saved_bytes(small: Small) -> int:
    """Of all tensors that the graph of a forward pass holds, each once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in small.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = small.run()
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    hidden.sum().backward()
    return size


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("image", [False, True])
def test_activations_are_what_autograd_keeps(make_small: Make, experts: bool, image: bool) -> None:
    small = make_small(experts=experts, image=image)
    model = Model(read_shape(small.model.config), "float32", has_logits=False)
    assert memory.kept_activations(model, small.pack) == pytest.approx(saved_bytes(small), rel=0.015)


@pytest.mark.parametrize("experts", [False, True])
def test_activations_in_bfloat16(make_small: Make, experts: bool) -> None:
    small = make_small(experts=experts, image=False)
    small.model.to(torch.bfloat16)
    model = Model(read_shape(small.model.config), "bfloat16", has_logits=False)
    assert memory.kept_activations(model, small.pack) == pytest.approx(saved_bytes(small), rel=0.02)


@pytest.mark.parametrize("experts", [False, True])
def test_activations_with_adapters(make_small: Make, experts: bool) -> None:
    small = make_small(experts=experts, image=False)
    add_adapters(small.model, rank=4, alpha=8, seed=0)
    model = Model(read_shape(small.model.config), "float32", has_logits=False, rank=4)
    assert memory.kept_activations(model, small.pack) == pytest.approx(saved_bytes(small), rel=0.02)


def test_branches_keep_their_keys_and_masks_by_hand(make_small: Make) -> None:
    by_branch = Model(read_shape(make_small().model.config), "float32", has_logits=False)
    by_block = replace(by_branch, attends_by_branch=False)
    [together], [alone] = (pack_lengths([Tree(3, branches)], 9) for branches in ((2, 4), (6,)))
    more = memory.layer_activations(by_branch, together) - memory.layer_activations(by_branch, alone)
    # Keys and values of 3 + 2 and 3 + 4 tokens, 4 heads of 32 numbers; masks of 2 · 5 and 4 · 7.
    assert more == 4 * (2 * 128 * 12 + 2 * 5 + 4 * 7)
    # Flex attention keeps each key once, of 2 heads, and no second output.
    assert memory.layer_activations(by_block, together) == memory.layer_activations(by_block, alone)
    less = memory.layer_activations(by_branch, alone) - memory.layer_activations(by_block, alone)
    assert less == 9 * 4 * (2 * 64 + 128)


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layer(make_small: Make) -> None:
    small = make_small(image=False)
    model = Model(read_shape(small.model.config), "float32", has_logits=False, is_checkpointing=True)
    layer = memory.layer_activations(model, small.pack)
    small.model.gradient_checkpointing_enable({"use_reentrant": False})
    # Cosines and sines of 100 positions and 32 dimensions wait in what is to be called again, out of autograd's sight.
    expected = saved_bytes(small) + 2 * 100 * 32 * 4
    assert memory.kept_activations(model, small.pack) - layer == pytest.approx(expected, rel=0.02)


def test_what_stays_is_what_a_real_optimizer_holds(make_small: Make) -> None:
    small = make_small()
    model = Model(read_shape(small.model.config), "float32", has_logits=True)
    optimizer = make_optimizer(small.model, learning_rate=1e-3, weight_decay=0.0)
    for parameter in small.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim > 0]
    assert memory.optimizer_states(model) == sum(value.nbytes for value in moments)
    assert memory.weights(model) == sum(parameter.nbytes for parameter in small.model.parameters())
    assert memory.gradients(model) == memory.weights(model)


def test_qwen3_vl_4b_by_hand() -> None:
    shape = published_shape("Qwen3-VL-4B-Instruct")
    assert shape is not None
    whole, eighth = Model(shape, "bfloat16", has_logits=True), Model(shape, "bfloat16", has_logits=True, shards=8)
    assert memory.weights(whole) == 4 * 4_437_815_808
    assert memory.optimizer_states(eighth) == 4_437_815_808  # 8 bytes for each parameter over 8 ranks
    # Keys and values of 36 layers, 8 heads of 128, in two bytes: 147,456 bytes a token.
    assert memory.kv_cache(shape, 64, 1000, 2) == 64 * 1000 * 147_456
    # Five copies of 4,096 × 151,936 float32 numbers, and no more for longer packs.
    assert memory.logits(shape, 4096, with_entropy=True) == 5 * 4 * 4096 * 151_936
    assert memory.logits(shape, 9999, with_entropy=True) == memory.logits(shape, 4096, with_entropy=True)
    # Layers, rounded: the top twice (weights, gradients), two layers and a gradient; that gradient also in float32.
    assert memory.gathered(eighth) == 2 * (2 * shape.outside_layers + 3 * shape.layer) + 4 * shape.layer
    assert memory.gathered(whole) == 0


def test_frozen_weights_are_rounded_and_whole(make_small: Make) -> None:
    shape = read_shape(make_small().model.config)
    model = Model(shape, "bfloat16", has_logits=True, rank=2)
    trained = memory.gradients(model) / 4
    assert trained < 0.1 * shape.total
    assert memory.weights(model) == 2 * shape.total + 4 * trained


def test_logits_and_a_layers_backward_pass_are_not_there_together(make_small: Make) -> None:
    model = Model(read_shape(make_small().model.config), "float32", has_logits=True)
    pack = Pack(100, 80, 1)
    found = memory.training_pass(model, pack, with_entropy=True)
    assert found["logits"] == 5 * 4 * 80 * 1000
    assert found["activations"] == memory.kept_activations(model, pack)
    without = memory.training_pass(replace(model, has_logits=False), pack)
    assert without["activations"] > memory.kept_activations(model, pack)
    assert without["logits"] == 0
