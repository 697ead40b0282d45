"""FLOPs against torch's own counter on a real model; the rest against numbers worked by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from prism.config import Hardware, Precision, load_hardware
from prism.models.adapters import add_adapters
from prism.planning.packs import Pack, Tree, pack_lengths
from prism.planning.shapes import read_shape
from prism.planning.work import (
    BYTES,
    Model,
    Work,
    forward,
    forward_backward,
    logits_forward,
    optimizer_step,
    seconds,
    trained_parameters,
    vision_forward,
)

from .conftest import PATCHES, TOKENS, Small

Make = Callable[..., Small]


def counted(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("image", [False, True])
def test_matrix_products_are_those_that_torch_counts(make_small: Make, experts: bool, image: bool) -> None:
    """torch does not count attention on a CPU, nor experts unless each is a product of its own."""
    small = make_small(experts=experts, image=image)
    small.model.set_experts_implementation("eager")
    model = Model(read_shape(small.model.config), "float32", has_logits=False)
    with torch.no_grad():
        assert forward(model, small.pack).matmul == counted(small.run)
    assert forward_backward(model, small.pack).matmul == counted(lambda: small.run().sum().backward())


def test_logits_are_products_with_the_whole_vocabulary(make_small: Make) -> None:
    small = make_small()
    hidden = torch.randn(7, 64)
    expected = counted(lambda: small.model.lm_head(hidden))
    assert logits_forward(read_shape(small.model.config), 7, with_entropy=False).matmul == expected


class Traffic(TorchDispatchMode):
    """Operations, and the bytes that they read and write unless they are products of matrices or make a view."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.operations += 1
        if not func.is_view and not func.name().startswith(STILL):
            tensors = (value for value in tree_leaves((args, kwargs, output)) if isinstance(value, Tensor))
            self.bytes += sum(min(value.nbytes, value.untyped_storage().nbytes()) for value in tensors)
        return output


STILL = tuple(f"aten::{name}" for name in ("mm", "addmm", "bmm", "_grouped_mm", "_scaled", "_unsafe_view", "empty"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("image", [False, True])
def test_what_is_moved_and_started_is_near_what_runs(
    make_small: Make, precision: Precision, experts: bool, image: bool
) -> None:
    """Of a model so small that numbers left out of account, as of positions, are up to a fifth."""
    small = make_small(experts=experts, image=image)
    small.model.to(getattr(torch, precision))
    model = Model(read_shape(small.model.config), precision, has_logits=False)
    small.run().sum().backward()  # so that gradients are there, and added to
    with Traffic() as ahead:
        total = small.run().sum()
    with Traffic() as back:
        total.backward()
    first, both = forward(model, small.pack), forward_backward(model, small.pack)
    print(
        precision,
        experts,
        image,
        first.moved / ahead.bytes,
        (both.moved - first.moved) / back.bytes,
        first.operations / ahead.operations,
    )
    # Gradients are in float32 where a run has bfloat16 layers, and here in the model's precision.
    gradients = (12 - 3 * BYTES[precision]) * model.shape.total
    assert first.moved == pytest.approx(ahead.bytes, rel=0.2)
    assert both.moved - first.moved - gradients == pytest.approx(back.bytes, rel=0.2)
    assert first.operations == pytest.approx(ahead.operations, rel=0.1)


def test_attention_by_hand(make_small: Make) -> None:
    shape = read_shape(make_small().model.config)
    by_branch = Model(shape, "float32", has_logits=False)
    by_block = replace(by_branch, attends_by_branch=False)
    [pack] = pack_lengths([Tree(3, (2, 4))], 9)
    # A triangle of 3; of 2 queries 3 keys before them and a triangle; of 4 the same. Scores and their sums:
    # 2 · 2 · pairs · 4 heads of 32, in 3 layers.
    assert forward(by_block, pack).attention == 4 * (6 + 2 * 3 + 3 + 4 * 3 + 10) * 128 * 3
    # Masks hide one pair of the first branch's and six of the second's, which are computed all the same.
    assert forward(by_branch, pack).attention == 4 * (6 + 2 * 5 + 4 * 7) * 128 * 3
    # A lone branch counts to its prompt, in one call without a mask.
    [single] = pack_lengths([Tree(3, (6,))], 9)
    assert forward(by_branch, single).attention == forward(by_block, single).attention == 4 * 45 * 128 * 3
    # Two images do not see each other: 4 · (16² + 48²) · 48 in 3 blocks.
    assert vision_forward(shape, (16, 48), "float32").attention == 4 * (16**2 + 48**2) * 48 * 3
    assert vision_forward(shape, (), "float32") == Work()


def test_checkpointing_adds_one_forward_pass(make_small: Make) -> None:
    small = make_small()
    model = Model(read_shape(small.model.config), "float32", has_logits=False)
    frugal = forward_backward(replace(model, is_checkpointing=True), small.pack)
    assert frugal.flops == pytest.approx(forward_backward(model, small.pack).flops + forward(model, small.pack).flops)


@pytest.mark.parametrize("experts", [False, True])
def test_adapters_are_those_that_peft_makes(make_small: Make, experts: bool) -> None:
    small = make_small(experts=experts)
    model = Model(read_shape(small.model.config), "float32", has_logits=False, rank=4)
    add_adapters(small.model, rank=4, alpha=8, seed=0)
    trained = sum(parameter.numel() for parameter in small.model.parameters() if parameter.requires_grad)
    assert trained_parameters(model) == trained


def test_adapters_products_are_those_that_torch_counts(make_small: Make) -> None:
    small = make_small(image=False)
    model = Model(read_shape(small.model.config), "float32", has_logits=False, rank=4)
    add_adapters(small.model, rank=4, alpha=8, seed=0)
    # The first layer's input has no gradient, which is left out of account.
    found = counted(lambda: small.run().sum().backward())
    assert forward_backward(model, small.pack).matmul == pytest.approx(found, rel=0.06)


def test_sharded_weights_are_gathered_twice_and_their_gradients_added_up(make_small: Make) -> None:
    small = make_small()
    shape = read_shape(small.model.config)
    sharded = Model(shape, "bfloat16", has_logits=False, shards=4)
    assert forward(sharded, small.pack).exchanged == 2 * shape.total
    assert forward_backward(sharded, small.pack).exchanged == (2 * 2 + 4) * shape.total
    assert optimizer_step(sharded).moved == 92 * shape.total / 4
    assert forward(replace(sharded, shards=None), small.pack).exchanged == 0


def test_copies_add_up_their_shards_gradients_around_a_ring(make_small: Make) -> None:
    small = make_small()
    shape = read_shape(small.model.config)
    copies = Model(shape, "bfloat16", has_logits=False, shards=4, copies=3, inside_machine=True)
    work = forward_backward(copies, small.pack)
    # Inside a machine what one copy of the weights exchanges in any case, between machines a quarter, to and fro.
    assert work.exchanged_inside == (2 * 2 + 4) * shape.total
    assert work.exchanged == 2 * 4 * shape.total / 4
    assert forward(copies, small.pack).exchanged == 0
    # Whole weights on every rank are not gathered.
    whole = forward_backward(replace(copies, shards=1), small.pack)
    assert (whole.exchanged_inside, whole.exchanged) == (0, 2 * 4 * shape.total)


def machine(**changes: object) -> Hardware:
    speeds = {"tflops": {"float32": 1.0, "bfloat16": 4.0}, "memory_gb_s": 100.0, "link_gb_s": 10.0}
    shares = {"matmul_share": 0.5, "attention_share": 0.25, "memory_share": 1.0, "link_share": 0.5}
    return Hardware.model_validate(
        {"name": "test", "memory_gib": 1.0, "operation_us": 10.0, **speeds, **shares, **changes}
    )


def test_seconds_by_hand() -> None:
    work = Work(matmul=1e12, attention=5e11, moved=1e11, operations=1000)
    # 1 / 0.5 + 0.5 / 0.25 + 100 / 100, and in bfloat16 the first two four times as fast.
    assert seconds(work, machine(), "float32") == pytest.approx(5)
    assert seconds(work, machine(), "bfloat16") == pytest.approx(2)
    # Operations are started meanwhile, or before: 1000 · 10 µs.
    assert seconds(work, machine(is_asynchronous=False), "float32") == pytest.approx(5.01)
    assert seconds(Work(operations=1e6), machine(), "float32") == pytest.approx(10)
    # 100 GB at half of 10 GB/s take longer than the computing that they go along with.
    assert seconds(work + Work(exchanged=1e11), machine(), "float32") == pytest.approx(20)
    # Of two machines 10 GB at half of 1 GB/s, and 50 GB at half of 10 GB/s inside them.
    two = machine(ranks=16, node_link_gb_s=1.0)
    assert seconds(work + Work(exchanged=1e10, exchanged_inside=5e10), two, "float32") == pytest.approx(20 + 10)


def test_between_machines_the_slower_link_counts() -> None:
    assert load_hardware("8xh100").rank_link_gb_s == 450
    assert load_hardware("2x8xh100").rank_link_gb_s == 50


def test_work_adds_up() -> None:
    assert Work(1, 2, 3, 4, 5) + Work(1, 1, 1, 1, 1) * 2 == Work(3, 4, 5, 6, 7)
    assert Pack(TOKENS, 1, 1, (PATCHES, PATCHES)).patches == 2 * PATCHES
