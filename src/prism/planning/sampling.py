"""What drawing rollouts takes: reading the prompts, then one token of every sequence at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from prism.config import Hardware, Precision, RolloutConfig, ServedRollout, VllmRollout
from prism.planning import memory
from prism.planning.lengths import Lengths, Row
from prism.planning.packs import expected_longest
from prism.planning.shapes import ModelShape
from prism.planning.work import (
    BYTES,
    FLOAT,
    LAYER_OPERATIONS,
    TOP_OPERATIONS,
    Model,
    Work,
    exchange,
    language_forward,
    layer_bytes,
    seconds,
    vision_forward,
)
from prism.rollout.decoding import ROOM

_KEPT_AFTER_END = 8 / 7
"""Rows of a batch over rows still growing: finished ones leave it once they are a quarter of it (`TransformersEngine`),
so that an eighth of it are finished on average."""
_SERVED = VllmRollout(memory_fraction=0.9)
"""What a rollout server is taken to run, on a device like those that train."""
_SAMPLING_BYTES = 90.0
"""Moved per logit by drawing in float64: conversion, ban, check, temperature, softmax, cumulative sum."""
_SCORE_BYTES = 48.0
"""Moved per score of a token by a head: product, rows, joining, scaling, softmax, and weights laid out for products."""
_TREE_OPERATIONS, _DRAW_OPERATIONS = 13, 60
"""Of a layer that decodes a prompt tree, beyond `LAYER_OPERATIONS`; of drawing a token."""


@dataclass(frozen=True, slots=True)
class SamplingEstimate:
    """Of one rank: the work, the seconds, and bytes beside the models' state: `copy` while others train, too, `cache`
    only while it samples. `ranks` of them have something to draw, `tokens` counts those of all together."""

    work: Work
    seconds: float
    copy: float
    cache: float
    ranks: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Draw:
    """What is to be drawn: `group_size` responses for each of `prompts`, `longest` of which a batch waits for."""

    prompts: Sequence[Row]
    group_size: int
    responses: Sequence[int]
    longest_prompt: int
    longest_response: int


def plan_sampling(
    policy: Model,
    draw: Draw,
    lengths: Lengths,
    rollout: RolloutConfig,
    hardware: Hardware,
    batch_size: int | None = None,
) -> SamplingEstimate:
    if isinstance(rollout, VllmRollout):
        return _by_vllm(policy, draw, lengths, rollout, hardware, hardware.ranks)
    if isinstance(rollout, ServedRollout):
        found = _by_vllm(policy, draw, lengths, _SERVED, hardware, len(rollout.base_urls))
        return replace(found, copy=0.0, cache=0.0)
    return _by_policy(policy, draw, lengths, batch_size or rollout.batch_size, hardware)


def _by_policy(policy: Model, draw: Draw, lengths: Lengths, batch_size: int, hardware: Hardware) -> SamplingEstimate:
    """Whole batches are dealt out to the ranks, each of which has a whole copy where the policy is sharded."""
    shape, b = policy.shape, BYTES[policy.precision]
    group = min(draw.group_size, batch_size)
    per_batch = min(max(1, batch_size // draw.group_size), len(draw.prompts))
    batches = -(-len(draw.prompts) // per_batch)
    own_batches = -(-batches // hardware.ranks) * -(-draw.group_size // group)
    sequences = per_batch * group
    prompts = draw.prompts[:per_batch]
    longest = max(map(lengths.prompt, prompts))
    steps = lengths.longest_rollout or expected_longest(draw.responses, sequences)
    growing = min(1.0, fmean(draw.responses) / steps * _KEPT_AFTER_END) * sequences
    images = tuple(patches for row in prompts for patches in row.images)
    pairs = per_batch * longest**2
    reading = language_forward(shape, per_batch * longest, pairs, policy.precision, mask=pairs)
    reading += vision_forward(shape, images, policy.precision)
    reading += Work(matmul=2.0 * shape.hidden * shape.vocab * per_batch)
    written = fmean(draw.responses) / 2
    context, cached = longest + written, per_batch * longest + growing * written
    # A prompt's keys and values are read once for all of its samples; every head's scores pass through memory.
    step = decoding_step(shape, growing, context, policy.precision, cached=cached)
    step += Work(moved=_SCORE_BYTES * shape.layers * shape.heads * growing * context)
    step += Work(moved=_SAMPLING_BYTES * shape.vocab * growing, operations=_TREE_OPERATIONS * shape.layers)
    spent = own_batches * (
        seconds(reading, hardware, policy.precision) + steps * seconds(step, hardware, policy.precision)
    )
    work = (reading + step * steps) * own_batches
    copy = 0.0
    if policy.shards is not None:
        copy = float(b * shape.total)
        update = _copying(policy, b)
        work, spent = work + update, spent + seconds(update, hardware, policy.precision)
    cache = _batch_bytes(policy, draw, per_batch, sequences)
    ranks = min(hardware.ranks, batches)
    return SamplingEstimate(work, spent, copy, cache, ranks, _num_tokens(draw, lengths))


def _batch_bytes(policy: Model, draw: Draw, prompts: int, sequences: int) -> float:
    """What a batch of the longest prompts, with the most images, and of the longest responses takes: while the prompts
    are read or at the end, whichever is more."""
    shape, b = policy.shape, BYTES[policy.precision]
    patches = prompts * max(sum(row.images) for row in draw.prompts)
    own = -(-max(1, draw.longest_response - 1) // ROOM) * ROOM  # nothing follows the last token
    start = memory.kv_cache(shape, prompts, draw.longest_prompt, b)
    start += memory.reading(policy, prompts, draw.longest_prompt, patches)
    end = memory.kv_cache(shape, prompts, draw.longest_prompt, b) + memory.kv_cache(shape, sequences, own, b)
    end += memory.growing(policy, sequences, draw.longest_prompt, own)
    return max(start, end)


def _by_vllm(
    policy: Model, draw: Draw, lengths: Lengths, rollout: VllmRollout, hardware: Hardware, engines: int
) -> SamplingEstimate:
    """Each engine samples for whole prompts, as many sequences at a time as its cache has room for."""
    precision: Precision = "float32" if rollout.dtype == "float32" else "bfloat16"
    shape, b = policy.shape, BYTES[precision]
    reserved, room = vllm_memory(shape, rollout, hardware)
    mean_prompt, mean_response = fmean(map(lengths.prompt, draw.prompts)), fmean(draw.responses)
    prompts = -(-len(draw.prompts) // engines)
    sequences = prompts * draw.group_size
    at_once = max(1.0, min(rollout.batch_size, sequences, room / (mean_prompt + mean_response)))
    steps = max(sequences / at_once * mean_response, lengths.longest_rollout or max(draw.responses))
    images = tuple(patches for row in draw.prompts[:prompts] for patches in row.images)
    pairs = round(prompts * mean_prompt**2 / 2)
    reading = language_forward(shape, round(prompts * mean_prompt), pairs, precision, mask=0)
    reading += vision_forward(shape, images, precision)
    growing, context = sequences * mean_response / steps, mean_prompt + mean_response / 2
    step = decoding_step(shape, growing, context, precision, cached=growing * context)
    # Its steps are recorded once and started as one: what it needs besides is the sampler's.
    step = Work(step.matmul, step.attention, step.moved)
    update = _copying(policy, b)
    spent = seconds(reading, hardware, precision) + seconds(update, hardware, precision)
    spent += steps * (seconds(step, hardware, precision) + hardware.sampler_step_ms * 1e-3)
    work, copy = reading + step * steps + update, 0.0 if rollout.sleep else reserved
    ranks = -(-len(draw.prompts) // prompts)
    return SamplingEstimate(work, spent, copy, reserved - copy, ranks, _num_tokens(draw, lengths))


def vllm_memory(shape: ModelShape, rollout: VllmRollout, hardware: Hardware) -> tuple[float, float]:
    """Bytes that vLLM reserves on a device, and the tokens that its cache has room for beside the copy."""
    b = 2 if rollout.dtype != "float32" else FLOAT
    copy = float(b * shape.total)
    per_token = memory.kv_cache(shape, 1, 1, b)
    if rollout.kv_cache_bytes is not None:
        return copy + rollout.kv_cache_bytes, rollout.kv_cache_bytes / per_token
    reserved = rollout.memory_fraction * hardware.memory_gib * 2**30
    return reserved, max(0.0, reserved - copy) / per_token


def decoding_step(shape: ModelShape, sequences: float, context: float, precision: Precision, *, cached: float) -> Work:
    """One token more of each sequence: 2 · (parameters a token meets) and attention over `context` for each, and moved
    once all weights of the language model and the keys and values of `cached` tokens."""
    b = BYTES[precision]
    queries = shape.heads * shape.head_dim
    output = shape.hidden * shape.vocab
    return Work(
        matmul=2.0 * (shape.layers * shape.active_matrices + output) * sequences,
        attention=4.0 * shape.layers * queries * sequences * context,
        moved=b * (shape.layers * shape.layer + output)
        + memory.kv_cache(shape, 1, 1, b) * cached
        + shape.layers * layer_bytes(shape, precision) * sequences,
        operations=shape.layers * LAYER_OPERATIONS + TOP_OPERATIONS + _DRAW_OPERATIONS,
    )


def _copying(policy: Model, b: int) -> Work:
    """Every rank gathers all weights in float32 and writes them to its copy."""
    total = policy.shape.total
    return Work(moved=float((FLOAT + b) * total)) + exchange(policy, FLOAT * total)


def _num_tokens(draw: Draw, lengths: Lengths) -> int:
    """Unique ones: a prompt counts once however many responses it has."""
    return sum(map(lengths.prompt, draw.prompts)) + round(len(draw.prompts) * draw.group_size * fmean(draw.responses))
