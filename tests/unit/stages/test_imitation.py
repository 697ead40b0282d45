"""Batches as a function of position, and the supervised gradient against one sequence at a time."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prism.models import PromptEncoder
from prism.packing import Branch, Pixels
from prism.records import Example, Prompt
from prism.stages import imitation
from prism.stages.imitation import draw_batch, imitate, mean_nll, num_tokens, pack_examples

Make = Callable[..., Any]


@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 70), st.integers(0, 3))
def test_a_batch_depends_on_its_position_alone(size: int, start: int, count: int, seed: int) -> None:
    """However the stream is cut into batches, it is the same stream."""
    records = [f"r{index}" for index in range(size)]
    at_once = draw_batch(records, start, count, seed, "x")
    assert len(at_once) == count
    assert at_once == [draw_batch(records, start + index, 1, seed, "x")[0] for index in range(count)]


@given(st.integers(1, 20), st.integers(0, 4))
def test_every_epoch_holds_every_record_once(size: int, epoch: int) -> None:
    records = list(range(size))
    assert sorted(draw_batch(records, epoch * size, size, 5, "x")) == records
    assert set(Counter(draw_batch(records, 0, 3 * size, 5, "x")).values()) == {3}


def test_epochs_seeds_and_purposes_have_orders_of_their_own() -> None:
    records = list(range(50))
    orders = [
        draw_batch(records, 0, 50, 1, "sft"),
        draw_batch(records, 50, 50, 1, "sft"),
        draw_batch(records, 0, 50, 2, "sft"),
        draw_batch(records, 0, 50, 1, "align"),
        records,
    ]
    assert len({tuple(order) for order in orders}) == 5


@pytest.fixture
def examples(make_prompt: Callable[..., Prompt]) -> list[Example]:
    """The third has its loss on "blue" and on its end alone."""
    return [
        Example(make_prompt(0), "red"),
        Example(make_prompt(1, with_image=False), "blue star, red circle 3"),
        Example(make_prompt(2), "red star, blue circle", ((10, 14), (21, 21))),
        Example(make_prompt(3), "7"),
    ]


TARGETS = (2, 7, 2, 2)


def unpacked_nll(policy: Any, encoder: PromptEncoder, examples: list[Example], single_logprobs: Make) -> Tensor:
    """The mean over all targets, their places read off by hand."""
    chosen = []
    for example, num_targets in zip(examples, TARGETS, strict=True):
        branch = Branch.of(encoder.completion_ids(example.completion))
        logprobs = single_logprobs(policy, encoder.encode(example.prompt), branch)
        if example.loss_spans is None:
            assert len(logprobs) == num_targets
            chosen.append(logprobs)
        else:
            blue = branch.token_ids.tolist().index(encoder.completion_ids(" blue")[0])
            chosen.append(logprobs[[blue, -1]])
    return -torch.cat(chosen).mean()


@pytest.mark.parametrize("token_budget", [32, 60, 4096])
def test_gradient_is_that_of_the_mean_over_targets_whatever_the_budget(
    make_policy: Make,
    encoder: PromptEncoder,
    examples: list[Example],
    single_logprobs: Make,
    take_gradients: Make,
    assert_same_gradients: Make,
    token_budget: int,
) -> None:
    policy = make_policy()
    expected = unpacked_nll(policy, encoder, examples, single_logprobs)
    expected.backward()
    expected_gradients = take_gradients(policy)
    packs = pack_examples(encoder, examples, token_budget)
    assert (len(packs) > 1) == (token_budget < 4096)
    assert all(len(packed) <= token_budget for packed in packs)
    assert num_tokens(packs) == sum(
        len(encoder.encode(example.prompt)) + len(encoder.completion_ids(example.completion)) for example in examples
    )
    assert imitate(policy, packs) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert_same_gradients(take_gradients(policy), expected_gradients)
    assert mean_nll(policy, packs) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert not take_gradients(policy)


def test_a_held_out_pass_keeps_no_pixels(
    encoder: PromptEncoder, make_policy: Make, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Pixels] = []
    release = Pixels.release
    monkeypatch.setattr(Pixels, "release", lambda pixels: released.append(pixels) or release(pixels))
    packs = pack_examples(encoder, examples, 4096)
    imitate(make_policy(), packs)
    assert released == []
    mean_nll(make_policy(), packs)
    assert released and set(released) == {pixels for packed in packs for pixels in packed.pixels}


def test_several_processes_have_packs_of_about_one_length(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that would fill one pack for one process: three others would keep step with nothing."""
    examples = [Example(Prompt("", "What is there?"), "red star 4 " * count) for count in (1, 2, 3, 4, 5, 6, 7, 8)]
    [alone] = pack_examples(encoder, examples, 4096)
    monkeypatch.setattr(imitation, "num_processes", lambda: 4)
    together = pack_examples(encoder, examples, 4096)
    assert len(together) == 4
    assert max(map(len, together)) < 1.1 * len(alone) / 4
    assert sorted(torch.cat([packed.rows for packed in together]).tolist()) == list(range(8))
