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

from prism.config import Precision
from prism.packing import EncodedPrompt, Pixels
from prism.planning import memory
from prism.planning.shapes import read_shape
from prism.planning.work import BYTES, Model
from prism.rollout.transformers_engine import TransformersEngine

from .conftest import IMAGE_TOKEN, Small

Make = Callable[..., Small]
PROMPTS, LONGEST, PATCH = 2, 200, 1536


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


def prompt(patches: int) -> EncodedPrompt:
    ids = torch.randint(10, 900, (LONGEST,))
    places = torch.arange(LONGEST).expand(3, -1)
    if not patches:
        return EncodedPrompt(ids, places, LONGEST)
    ids[: patches // 4] = IMAGE_TOKEN
    values, side = torch.randn(patches, PATCH), round(patches**0.5)
    return EncodedPrompt(ids, places, LONGEST, Pixels(lambda: values), torch.tensor([[1, side, side]]))


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
    engine._read_prompts(prompts)
    with Peak(small.model.parameters()) as peak:
        engine._read_prompts(prompts)
    planned = memory.kv_cache(model.shape, PROMPTS, LONGEST, BYTES[precision])
    planned += memory.reading(model, PROMPTS, LONGEST, PROMPTS * patches)
    # The prompts' own pixels are in the host's memory.
    host = PROMPTS * patches * PATCH * 4
    assert planned == pytest.approx(peak.bytes - host, rel=0.02)


@pytest.mark.parametrize("precision", BYTES)
@pytest.mark.parametrize("vocab", [1000, 20_000])
@torch.no_grad()
def test_a_token_more_takes_a_layers_keys_or_copies_of_its_logits(
    make_small: Make, precision: Precision, vocab: int
) -> None:
    small = make_small(vocab=vocab)
    engine, model = engine_of(small, precision)
    cache, is_key, _ = engine._read_prompts([prompt(0) for _ in range(PROMPTS)])
    is_key = torch.cat([is_key, is_key.new_ones(PROMPTS, 1)], dim=1)
    tokens, places = torch.full((PROMPTS,), 20), torch.full((PROMPTS,), LONGEST)
    with Peak(small.model.parameters()) as peak:
        logits = engine._next_logits(tokens, places, is_key, cache)
        engine._choose(logits, torch.rand(PROMPTS, dtype=torch.float64), 1.0)
    b = BYTES[precision]
    planned = memory.kv_cache(model.shape, PROMPTS, LONGEST + 1, b)
    planned += memory.growing(model.shape, PROMPTS, LONGEST + 1, b)
    assert planned == pytest.approx(peak.bytes, rel=0.02)
