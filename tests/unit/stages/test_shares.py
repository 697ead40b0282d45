"""Which images a process prepares, and when."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from prism.errors import DataError
from prism.packing import Branch, EncodedPrompt, PackedTrees, Pixels, PromptTree, pack_trees
from prism.runtime import distributed
from prism.stages.shares import share_packs


def packs_of(prepared: list[Callable[[], Tensor]]) -> list[PackedTrees]:
    """A pack for each image, the first the longest."""
    trees = []
    for place, prepare in enumerate(prepared):
        length = 40 - place
        ids, positions = torch.zeros(length, dtype=torch.long), torch.zeros(3, length, dtype=torch.long)
        prompt = EncodedPrompt(ids, positions, length, Pixels(prepare), torch.tensor([[1, 2, 2]]))
        trees.append(PromptTree(prompt, (Branch.of([1, 2]),)))
    packs = pack_trees(trees, token_budget=50)
    assert len(packs) == len(prepared)
    return packs


def remember(seen: list[int], place: int) -> Tensor:
    seen.append(place)
    return torch.ones(4, 3)


def test_a_process_prepares_the_images_of_its_own_packs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    for index in range(2):
        monkeypatch.setattr(distributed, "process_index", lambda index=index: index)
        seen: list[int] = []
        packs = packs_of([partial(remember, seen, place) for place in range(6)])
        own = [part.index for part in share_packs(packs)]
        assert len(own) == 3
        assert seen == own


def test_the_next_images_are_prepared_while_a_pack_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")  # which leaves two threads
    begun = [threading.Event() for _ in range(16)]
    packs = packs_of([lambda event=event: event.set() or torch.ones(4, 3) for event in begun])
    parts = share_packs(packs)
    first = next(parts)
    assert begun[1].wait(10)
    assert not begun[10].is_set()
    assert first.item.pixel_values is not None
    assert [part.index for part in parts] == list(range(1, 16))
    assert all(event.is_set() for event in begun)


def test_images_of_a_prompt_in_two_packs_are_prepared_once() -> None:
    """Two threads ask at the same time."""
    both, made = threading.Barrier(2), []
    pixels = Pixels(lambda: made.append(1) or torch.ones(4, 3))

    def ask() -> Tensor:
        both.wait(10)
        return pixels.values

    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(ask) for _ in range(2))
        assert first.result() is second.result()
    assert made == [1]


def test_images_are_prepared_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    both = threading.Barrier(2)
    packs = packs_of([lambda: both.wait(10) * 0 + torch.ones(4, 3) for _ in range(2)])
    assert [part.index for part in share_packs(packs)] == [0, 1]


def test_an_image_that_cannot_be_prepared_is_its_own_packs_error() -> None:
    def fail() -> Tensor:
        raise DataError("prompt 'p': broken image")

    parts = share_packs(packs_of([lambda: torch.ones(4, 3), fail]))
    assert next(parts).index == 0
    with pytest.raises(DataError, match="'p'"):
        next(parts)


def test_no_packs_are_no_parts() -> None:
    assert list(share_packs([])) == []


def live_pixels(num_packs: int, *, is_last_pass: bool) -> list[int]:
    """How many packs' pixels are in memory while each pack is run."""
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def prepare() -> Tensor:
        pixels = torch.ones(4, 3)
        alive.add(pixels)
        return pixels

    packs = packs_of([prepare] * num_packs)
    return [len(alive) for _ in share_packs(packs, is_last_pass=is_last_pass)]


def test_a_last_pass_keeps_the_pixels_of_the_packs_at_hand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")  # which leaves two threads, four packs ahead
    assert max(live_pixels(16, is_last_pass=True)) <= 6
    assert live_pixels(16, is_last_pass=False)[-1] == 16


def test_a_last_pass_prepares_the_images_of_a_prompt_in_two_packs_once() -> None:
    made = []
    first, second = packs_of([lambda: made.append(1) or torch.ones(4, 3), lambda: torch.zeros(4, 3)])
    packs = [first, second, replace(first, pixels=(*first.pixels, *second.pixels))]
    for part in share_packs(packs, is_last_pass=True):
        assert part.item.pixel_values is not None
    assert made == [1]
    assert first.pixels[0].values.sum() == 12 and made == [1, 1]
