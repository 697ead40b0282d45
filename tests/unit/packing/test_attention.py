"""Attention within trees against one masked attention over the whole sequence."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from prism.packing.attention import attend, tree_block_mask

PROMPT = -1


def visible(tree_ids: torch.Tensor, branch_ids: torch.Tensor) -> torch.Tensor:
    """True where the row's token may look at the column's: earlier, in its tree, of the prompt or of its own branch."""
    length = len(tree_ids)
    is_earlier = torch.ones(length, length, dtype=torch.bool).tril()
    is_seen = (branch_ids[None] == PROMPT) | (branch_ids[:, None] == branch_ids[None])
    return is_earlier & (tree_ids[:, None] == tree_ids[None]) & is_seen


def ids_of(trees: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tree and branch of every token, from the lengths of prompts and branches."""
    branches = [
        (tree, branch, length)
        for tree, lengths in enumerate(trees)
        for branch, length in enumerate(lengths, start=PROMPT)
    ]
    columns = [torch.tensor([tree, branch]).expand(length, 2) for tree, branch, length in branches]
    tree_ids, branch_ids = torch.cat(columns).T
    return tree_ids, branch_ids


def test_what_is_visible_in_two_small_trees_by_hand():
    # Prompt of 1, branches of 1 and 2; then a prompt of 1 with a branch of 1.
    tree_ids, branch_ids = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([-1, 0, 1, 1, -1, 0])
    by_block = tree_block_mask(tree_ids, branch_ids).mask_mod
    places = torch.arange(6)
    nothing = torch.tensor(0)
    assert by_block(nothing, nothing, places[:, None], places[None]).equal(visible(tree_ids, branch_ids))
    assert visible(tree_ids, branch_ids).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


@settings(max_examples=25, deadline=None)
@given(trees=st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=5).map(tuple), min_size=1, max_size=4))
def test_the_block_mask_is_the_one_that_all_pairs_of_tokens_make(trees: list[tuple[int, ...]]) -> None:
    tree_ids, branch_ids = ids_of(trees)
    found, length = tree_block_mask(tree_ids, branch_ids), len(tree_ids)
    expected = create_block_mask(found.mask_mod, None, None, length, length, device="cpu")
    assert (found.shape, found.seq_lengths, found.BLOCK_SIZE) == (
        expected.shape,
        expected.seq_lengths,
        expected.BLOCK_SIZE,
    )
    for side, kind, part in itertools.product(("kv", "q"), ("", "full_"), ("num_blocks", "indices")):
        assert getattr(found, f"{kind}{side}_{part}").equal(getattr(expected, f"{kind}{side}_{part}"))


def test_flex_attention_is_compiled_once_for_all_lengths() -> None:
    """After eight compilations of one function torch would give up and compute all pairs of tokens."""
    counter = CompileCounterWithBackend("aot_eager")
    attention, counts = torch.compile(flex_attention, dynamic=True, backend=counter), []
    for first in range(140, 2000, 150):
        tree_ids, branch_ids = ids_of([(first, 60, 200), (50, 70)])
        query, key = (torch.randn(1, heads, len(tree_ids), 16) for heads in (4, 2))
        attention(query, key, key, block_mask=tree_block_mask(tree_ids, branch_ids), scale=0.3, enable_gqa=True)
        counts.append(counter.frame_count)
    assert counts == [counts[0]] * 13 and counts[0] > 0


lengths = st.integers(1, 9)


@settings(max_examples=40, deadline=None)
@given(trees=st.lists(st.lists(lengths, min_size=2, max_size=5).map(tuple), min_size=1, max_size=4))
def test_attention_and_its_gradients_equal_those_under_a_mask(trees: list[tuple[int, ...]]):
    tree_ids, branch_ids = ids_of(trees)
    length = len(tree_ids)
    generator = torch.Generator().manual_seed(length)
    shapes = [(1, 4, length, 8), (1, 2, length, 8), (1, 2, length, 8), (1, length, 4, 8)]
    query, key, value, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    # A lone branch counts to its prompt.
    runs = tuple(tree if len(tree) > 2 else (sum(tree),) for tree in trees)
    found, _ = attend(torch.nn.Module(), query, key, value, None, runs=runs, scaling=0.3)
    mask = visible(tree_ids, branch_ids)
    keys, values = (tensor.repeat_interleave(2, dim=1) for tensor in (key, value))
    expected = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=0.3).transpose(1, 2)

    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    inputs = (query, key, value)
    own_gradients = torch.autograd.grad((found * weights).sum(), inputs)
    for own, other in zip(own_gradients, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(own, other, atol=1e-12, rtol=0)
