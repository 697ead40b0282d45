"""What drawing takes against the bytes of all tensors that exist while the real engine reads prompts and goes on."""

import weakref
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prism.config import Precision, TransformersRollout, load_hardware
from prism.packing import EncodedPrompt, Pixels
from prism.planning import memory
from prism.planning.lengths import Lengths, Row
from prism.planning.sampling import Draw, SamplingEstimate, plan_sampling
from prism.planning.shapes import read_shape
from prism.planning.work import BYTES, Model, layer_bytes
from prism.rollout.decoding import ROOM, SampleCache
from prism.rollout.transformers_engine import TransformersEngine

from .conftest import IMAGE_TOKEN, Small

Make = Callable[..., Small]
PROMPTS, SAMPLES, LONGEST, PATCH = 2, 6, 200, 1536


class Peak(TorchDispatchMode):
    """The most bytes of tensors that operations read or write, `own` left out, that ever existed at one time."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._bytes = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        storages = [leaf.untyped_storage() for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
        for storage in storages:
            if storage not in self._seen and storage.data_ptr() not in self._own:
                self._seen.add(storage)
                self._bytes += storage.nbytes()
                weakref.finalize(storage, self._forget, storage.nbytes())
        self.bytes = max(self.bytes, self._bytes)
        return output

    def _forget(self, size: int) -> None:
        self._bytes -= size


def prompt(patches: int, length: int = LONGEST) -> EncodedPrompt:
    ids = torch.randint(10, 90, (length,))
    places = torch.arange(length).expand(3, -1)
    if not patches:
        return EncodedPrompt(ids, places, length)
    ids[: patches // 4] = IMAGE_TOKEN
    values, side = torch.randn(patches, PATCH), round(patches**0.5)
    return EncodedPrompt(ids, places, length, Pixels(lambda: values), torch.tensor([[1, side, side]]))


def engine_of(small: Small, precision: Precision) -> tuple[TransformersEngine, Model]:
    small.model.to(getattr(torch, precision)).eval()
    encoder: Any = SimpleNamespace(banned_token_ids=())
    return TransformersEngine(small.model, encoder), Model(read_shape(small.model.config), precision, has_logits=True)


@pytest.mark.parametrize("precision", BYTES)
@pytest.mark.parametrize("patches", [0, 64, 400])
@torch.no_grad()
def test_reading_has_the_logits_of_one_token_of_each_prompt(
    make_small: Make, precision: Precision, patches: int
) -> None:
    """All tokens' logits would take twice to twenty times as much as everything else together."""
    small = make_small(vocab=20_000)
    engine, model = engine_of(small, precision)
    prompts = [prompt(patches) for _ in range(PROMPTS)]
    engine._read_prompts(prompts, 1)
    with Peak(small.model.parameters()) as peak:
        engine._read_prompts(prompts, 1)
    planned = memory.kv_cache(model.shape, PROMPTS, LONGEST, BYTES[precision])
    planned += memory.reading(model, PROMPTS, LONGEST, PROMPTS * patches)
    # The prompts' own pixels are in the host's memory.
    host = PROMPTS * patches * PATCH * 4
    assert planned == pytest.approx(peak.bytes - host, rel=0.02)


@pytest.mark.parametrize("precision", BYTES)
@pytest.mark.parametrize(
    ("vocab", "length", "written"),
    [(1000, LONGEST, 1), (1000, LONGEST, ROOM + 1), (20_000, LONGEST, 2), (100, 4000, 2)],
)
@torch.no_grad()
def test_a_token_more_takes_room_for_a_layers_keys_or_scores_or_copies_of_its_logits(
    make_small: Make, precision: Precision, vocab: int, length: int, written: int
) -> None:
    """Whatever the number of samples, their prompts' keys and values are there once. Where rows leave, no more is."""
    small = make_small(vocab=vocab)
    engine, model = engine_of(small, precision)
    prompts, _ = engine._read_prompts([prompt(0, length) for _ in range(PROMPTS)], SAMPLES)
    rows, cache = PROMPTS * SAMPLES, SampleCache(len(prompts.layers))
    tokens, places = torch.full((rows,), 20), torch.full((rows,), length)

    def step() -> None:
        logits = engine._next_logits(tokens, places, prompts, cache)
        engine._choose(logits, torch.rand(len(tokens), dtype=torch.float64), 1.0)

    for _ in range(written - 1):
        step()
    with Peak(small.model.parameters()) as peak:
        for keys, values in prompts.layers:
            _ = keys[:0], values[:0]  # seen from the start: the last layer's may be read after what takes most
        step()
    b = BYTES[precision]
    own = -(-written // ROOM) * ROOM
    planned = memory.kv_cache(model.shape, PROMPTS, length, b) + memory.kv_cache(model.shape, rows, own, b)
    planned += memory.growing(model, rows, length, own)
    assert planned == pytest.approx(peak.bytes, rel=0.02)

    for kept in (torch.arange(4, 12), torch.arange(4, 8)):  # of both prompts, then of the second alone
        with Peak(small.model.parameters()) as leaving:
            prompts.keep(kept)
            cache.batch_select_indices(kept)
        tokens, places = tokens[kept], places[kept]
        with Peak(small.model.parameters()) as ragged:
            step()
        assert max(leaving.bytes, ragged.bytes) < planned


def test_batches_are_drawn_one_after_the_other(make_small: Make) -> None:
    """Of four prompts with four samples each; every response is as long as the longest, so that all rows go on."""
    model = Model(read_shape(make_small().model.config), "float32", has_logits=True)
    lengths = Lengths({}, {}, [], longest_rollout=60, merge=2, source="")

    def drawn(num_prompts: int, group_size: int = 4) -> SamplingEstimate:
        draw = Draw([Row(text=50)] * num_prompts, group_size, [60] * num_prompts, 50, 60)
        batch = TransformersRollout(batch_size=4 * group_size)
        return plan_sampling(model, draw, lengths, batch, load_hardware("h100"))

    one, three = drawn(4), drawn(12)
    assert three.seconds == pytest.approx(3 * one.seconds)
    assert three.work.moved == pytest.approx(3 * one.work.moved)
    assert three.cache == one.cache
    shape = model.shape
    per_token, output = 2 * shape.layers * shape.active_matrices, 2 * shape.hidden * shape.vocab
    assert one.work.matmul == pytest.approx(4 * (50 * per_token + output) + 60 * 16 * (per_token + output))
    assert one.work.attention == pytest.approx(4 * 3 * 128 * (4 * 50**2 + 60 * 16 * (50 + 30)))
    # Each sample more moves its own keys and values, half of them in the mean, and scores of its prompt's tokens, too.
    keys, scores = 2 * 3 * 2 * 32 * 4 * 30, 48 * 3 * 4 * 80
    per_token = shape.layers * layer_bytes(shape, "float32") + 90 * shape.vocab
    more = drawn(4, group_size=8).work.moved - one.work.moved
    assert more == pytest.approx(60 * 16 * (keys + scores + per_token))
    assert one.work.operations == (3 * 98 + 40) + 60 * (3 * (98 + 13) + 40 + 60)
