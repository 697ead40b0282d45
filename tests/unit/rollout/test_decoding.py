"""Decoding a prompt tree against attention over rows each of which has its prompt's keys and values in it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache

from prism.rollout.decoding import ROOM, SampleCache, SharedPrompts, attend_decoding

PROMPTS, SAMPLES, KEY_HEADS, GROUPS, LENGTH, HEAD = 3, 4, 2, 3, 7, 8
LAYER = SimpleNamespace(layer_idx=0)
IS_KEY = torch.arange(LENGTH) >= torch.tensor([[0], [2], [5]])
KEPT = [
    [],
    [torch.tensor([0, 2, 3, 4, 7, 9])],
    [torch.tensor([4, 5, 8, 9, 10, 11])],
    [torch.tensor([0, 4, 5, 7, 8, 9, 10, 11]), torch.tensor([1, 3, 4, 7]), torch.tensor([3])],
]
"""Rows that stay, one choice of what is left after the other: some of each prompt's, none of the first's, and so on."""


def rows_of(prompts: Tensor) -> Tensor:
    return prompts.repeat_interleave(SAMPLES, dim=0)


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{len(kept)} cuts")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_row_sees_its_prompt_and_its_own_tokens(kept: list[Tensor], precision: torch.dtype) -> None:
    torch.manual_seed(0)
    cache = DynamicCache()
    keys, values = torch.randn(2, PROMPTS, KEY_HEADS, LENGTH, HEAD, dtype=precision)
    cache.update(keys, values, 0)
    prompts = SharedPrompts.of(cache, IS_KEY, SAMPLES)
    own_keys, own_values = torch.randn(2, PROMPTS * SAMPLES, KEY_HEADS, 5, HEAD, dtype=precision)
    query = torch.randn(PROMPTS * SAMPLES, KEY_HEADS * GROUPS, 1, HEAD, dtype=precision)
    whole = [torch.cat([rows_of(keys), own_keys], 2), torch.cat([rows_of(values), own_values], 2)]
    is_visible = torch.cat([rows_of(IS_KEY), torch.ones(PROMPTS * SAMPLES, 5, dtype=torch.bool)], 1)
    for rows in kept:
        prompts.keep(rows)
        own_keys, own_values, query, is_visible = (each[rows] for each in (own_keys, own_values, query, is_visible))
        whole = [each[rows] for each in whole]
    output, _ = attend_decoding(LAYER, query, own_keys, own_values, None, prompts=prompts, scaling=0.3)
    every_head = [each.repeat_interleave(GROUPS, dim=1).double() for each in whole]
    expected = scaled_dot_product_attention(query.double(), *every_head, attn_mask=is_visible[:, None, None], scale=0.3)
    tolerance = 1e-6 if precision == torch.float32 else 0.03
    torch.testing.assert_close(output.double(), expected.transpose(1, 2), atol=tolerance, rtol=0)


def test_a_prompt_that_no_row_goes_on_from_is_dropped() -> None:
    cache = DynamicCache()
    keys, values = torch.randn(2, PROMPTS, KEY_HEADS, LENGTH, HEAD)
    cache.update(keys, values, 0)
    prompts = SharedPrompts.of(cache, IS_KEY, SAMPLES)
    prompts.keep(torch.tensor([0, 1, 9]))
    assert prompts.layers[0][0].shape[0] == 2 and prompts.width == 2
    assert prompts.layers[0][0].equal(keys[[0, 2]])


def test_buffers_hold_what_concatenation_would() -> None:
    torch.manual_seed(0)
    ours, theirs = SampleCache(1), DynamicCache()
    for step in range(2 * ROOM + 3):
        if step == ROOM + 5:
            ours.batch_select_indices(torch.tensor([0, 2]))
            theirs.batch_select_indices(torch.tensor([0, 2]))
        states = torch.randn(2, 3 if step < ROOM + 5 else 2, KEY_HEADS, 1, HEAD)
        seen, expected = (cache.update(states[0], states[1], 0) for cache in (ours, theirs))
        assert all(one.equal(other) for one, other in zip(seen, expected, strict=True))
    assert ours.get_seq_length() == 2 * ROOM + 3
