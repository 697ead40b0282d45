"""How fast this machine is at what `prism plan` counts, at the sizes of a model's layers."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from prism.config import Hardware, MatmulSpeed
from prism.models import load_policy
from prism.packing import PackedTrees, branch_logprobs
from prism.planning.packs import Pack
from prism.planning.shapes import ModelShape, read_shape
from prism.planning.work import Model, forward, forward_backward, seconds
from prism.stages.workspace import SHIPPED_BASE

ATTENTION_CALLS = 20
"""Timed together, being short."""


def median_seconds(function: Callable[[], object], runs: int = 15) -> float:
    """Of processor time: what else runs on the machine does not count."""
    found = []
    for _ in range(runs):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return statistics.median(found)


def measure_hardware(shape: ModelShape, tokens: int, call: tuple[int, int]) -> Hardware:
    """This machine as `prism plan` wants it: speeds at the size of one pack and one layer, of attention that of `call`,
    a branch's queries and the keys of its prompt and itself; shares of 1."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = [(shape.hidden, queries), (queries, shape.hidden), (shape.hidden, keys), (shape.hidden, keys)]
    sizes += [(shape.hidden, shape.intermediate)] * 2 + [(shape.intermediate, shape.hidden)]
    products = [(torch.randn(tokens, a), torch.randn(b, a), torch.randn(tokens, b)) for a, b in sizes]

    def multiply() -> None:
        for given, weight, gradient in products:
            # Forward, and both products of the backward pass.
            torch.mm(given, weight.T)
            torch.mm(gradient, weight)
            torch.mm(gradient.T, given)

    asking, asked = (torch.randn(1, shape.heads, count, shape.head_dim, requires_grad=True) for count in call)
    mask = torch.ones(call, dtype=torch.bool).tril(call[1] - call[0])

    def attend() -> None:
        for _ in range(ATTENTION_CALLS):
            scaled_dot_product_attention(asking, asked, asked, attn_mask=mask).sum().backward()

    # As many as a pass has, so that they come from memory and not from a cache.
    inner = [torch.randn(tokens, shape.intermediate) for _ in range(64)]
    outer = [torch.empty_like(value) for value in inner]

    def move() -> None:
        # Into memory that is there: a pass takes what the last one gave back, and new pages are several times slower.
        for value, place in zip(inner, outer, strict=True):
            torch.mul(value, value, out=place)

    speed = 6 * tokens * sum(a * b for a, b in sizes) / median_seconds(multiply) / 1e12
    attention = ATTENTION_CALLS * 3.5 * 4 * math.prod(call) * queries / median_seconds(attend) / 1e12
    hardware = Hardware.model_validate(
        {
            "name": "this CPU",
            "memory_gib": 16,
            "tflops": {"float32": speed, "bfloat16": speed},
            "memory_gb_s": 8 * 64 * inner[0].numel() / median_seconds(move) / 1e9,
            "link_gb_s": 1.0,
            "attention_share": min(1.0, attention / speed),
            "operation_us": 0.0,
            "is_asynchronous": False,
            **dict.fromkeys(("matmul_share", "memory_share", "usable_share"), 1.0),
        }
    )
    return hardware.model_copy(update={"operation_us": measure_operation(hardware) * 1e6})


def measure_operation(hardware: Hardware) -> float:
    """Seconds that starting an operation takes on average, its share of the model's Python included.

    Passes over so few tokens that hardly anything is computed, with a gradient and without: their time, less what
    computing takes by `hardware`, over the operations that the plan counts for them.
    """
    policy, shape = load_shipped()
    packed, pack, model = blank_pack(4), Pack(4, 4, 10), Model(shape, "float32", has_logits=True)

    def train() -> None:
        branch_logprobs(policy, packed, with_entropy=True).logprobs.sum().backward()

    @torch.no_grad()
    def score() -> None:
        branch_logprobs(policy, packed)

    spent = median_seconds(train) + median_seconds(score)
    work = forward_backward(model, pack, with_entropy=True) + forward(model, pack)
    return (spent - seconds(work, hardware, "float32")) / work.operations


@cache
def load_shipped() -> tuple[PreTrainedModel, ModelShape]:
    policy = load_policy(SHIPPED_BASE)
    return policy, read_shape(policy.config)


def median_hardware(found: Sequence[Hardware]) -> Hardware:
    """Each speed the median of those found."""

    def middle(read: Callable[[Hardware], float]) -> float:
        return statistics.median(map(read, found))

    speed = middle(lambda one: one.tflops.float32)
    return found[0].model_copy(
        update={
            "tflops": MatmulSpeed(float32=speed, bfloat16=speed),
            "attention_share": middle(lambda one: one.attention_share),
            "memory_gb_s": middle(lambda one: one.memory_gb_s),
            "operation_us": middle(lambda one: one.operation_us),
        }
    )


@contextmanager
def measured_around(shape: ModelShape, tokens: int, call: tuple[int, int]) -> Iterator[list[Hardware]]:
    """Measured three times before the block and three times after it, medians shown: the machine is not the same from
    one minute to the next."""
    found = [measure_hardware(shape, tokens, call) for _ in range(3)]
    yield found
    found += [measure_hardware(shape, tokens, call) for _ in range(3)]
    print(describe_hardware(median_hardware(found)), flush=True)


def describe_hardware(hardware: Hardware) -> str:
    return (
        f"{hardware.tflops.float32 * 1000:.0f} GFLOP/s in the layers' products, {hardware.attention_share:.0%} of it "
        f"in attention, {hardware.memory_gb_s:.0f} GB/s, {hardware.operation_us:.1f} µs an operation"
    )


def blank_pack(tokens: int) -> PackedTrees:
    """One branch without a prompt, every token of it a target."""
    ids = torch.zeros(tokens, dtype=torch.long)
    places = torch.arange(tokens)
    end, row = torch.tensor([tokens - 1]), torch.tensor([0])
    runs = ((tokens,),)
    return PackedTrees(ids, places.expand(3, -1), ids, ids, (), None, places, ids, ids, places, end, row, runs)
