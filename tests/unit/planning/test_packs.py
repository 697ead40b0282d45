"""Packs as numbers against real packs."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prism.packing import Branch, EncodedPrompt, PackedTrees, Pixels, PromptTree, attention, pack_trees
from prism.packing.attention import attend, tree_block_mask
from prism.planning.packs import Pack, Tree, expected_longest, own_share, pack_lengths


def real(tree: Tree) -> PromptTree:
    patches = sum(tree.images)
    prompt = EncodedPrompt(
        torch.zeros(tree.prompt, dtype=torch.long),
        torch.zeros(3, tree.prompt, dtype=torch.long),
        tree.prompt,
        Pixels(lambda: torch.zeros(patches, 2)) if patches else None,
        torch.tensor([[1, 1, count] for count in tree.images]) if patches else None,
    )
    return PromptTree(prompt, tuple(Branch.of([0] * length) for length in tree.branches))


def num_visible(packed: PackedTrees) -> int:
    places, nothing = torch.arange(len(packed)), torch.tensor(0)
    is_visible = tree_block_mask(packed.tree_ids, packed.branch_ids).mask_mod
    return int(is_visible(nothing, nothing, places[:, None], places[None]).sum())


def calls_of(packed: PackedTrees, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the calls under a mask are like that attention makes over `packed`."""
    counts: dict[str, int] = dict.fromkeys(("calls", "joined", "masked", "hidden"), 0)
    real_call = attention.scaled_dot_product_attention

    def count(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, **settings: Any) -> Tensor:
        if attn_mask is not None:
            found = (1, key.shape[2], attn_mask.numel(), int((~attn_mask).sum()))
            for name, number in zip(counts, found, strict=True):
                counts[name] += number
        return real_call(query, key, value, attn_mask=attn_mask, **settings)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", count)
    one = torch.zeros(1, 1, len(packed), 2)
    attend(nn.Identity(), one, one, one, None, runs=packed.runs, scaling=1.0)
    monkeypatch.undo()
    return counts


def first_rows(packed: PackedTrees) -> list[int]:
    """The first branch of each piece."""
    counts = [max(1, len(run) - 1) for run in packed.runs]
    return [int(packed.rows[sum(counts[:place])]) for place in range(len(counts))]


@pytest.mark.parametrize("num_shares", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_packs_are_those_that_training_makes(seed: int, num_shares: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(seed)
    trees = [
        Tree(
            source.randint(1, 40),
            tuple(source.randint(1, 60) for _ in range(source.randint(1, 6))),
            tuple(source.choice((4, 8)) for _ in range(source.randint(0, 2))),
        )
        for _ in range(source.randint(1, 12))
    ]
    trees.append(Tree(10, (20, 95, 20)))  # two of its three pieces fit together
    owners = [number for number, tree in enumerate(trees) for _ in tree.branches]
    expected = [
        Pack(
            len(packed),
            packed.target_ids.numel(),
            num_visible(packed),
            tuple(packed.image_grid_thw.prod(1).tolist()) if packed.image_grid_thw is not None else (),
            **calls_of(packed, monkeypatch),
            parts=sum(
                max(1, len(run) - 1) < len(trees[owners[row]].branches)
                for run, row in zip(packed.runs, first_rows(packed), strict=True)
            ),
        )
        for packed in pack_trees([real(tree) for tree in trees], token_budget=120, num_shares=num_shares)
    ]
    assert pack_lengths(trees, 120, num_shares) == expected


def test_a_prompt_counts_once_however_many_its_branches() -> None:
    assert [pack.tokens for pack in pack_lengths([Tree(100, (10,) * 16)], 1000)] == [100 + 16 * 10]
    # Five branches fit beside it at a time: it is repeated three times.
    assert [pack.tokens for pack in pack_lengths([Tree(100, (10,) * 16)], 150)] == [150, 150, 150, 110]


def test_in_every_round_all_wait_for_the_longest() -> None:
    packs = [Pack(tokens, tokens, 1) for tokens in (10, 50, 20, 40, 30)]
    assert [pack.tokens for pack in own_share(packs, 2)] == [50, 30, 10]
    assert [pack.tokens for pack in own_share(packs, 8)] == [50]
    assert sum(pack.tokens for pack in own_share(packs, 1)) == 150


def test_the_longest_of_a_batch() -> None:
    # Two throws of a die with faces 1, 2, 3: (1 · 1 + 2 · 3 + 3 · 5) / 9.
    assert expected_longest([3, 1, 2], 2) == pytest.approx(22 / 9)
    assert expected_longest([7], 100) == 7
    assert expected_longest([1, 2, 3], 1) == 2
