"""One supervised step: completions imitated on packed prompt trees."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from prism.models import PromptEncoder
from prism.objectives import completion_nll
from prism.packing import Branch, PackedTrees, PromptTree, branch_logprobs, pack_trees
from prism.records import Example
from prism.runtime.distributed import add_up_number, num_processes
from prism.runtime.seeding import python_random
from prism.stages.shares import share_packs

_Record = TypeVar("_Record")


def draw_batch(records: Sequence[_Record], start: int, count: int, *seed: int | str) -> list[_Record]:
    """Records `start` … `start` + `count` − 1 of an endless stream: every epoch a new permutation.

    The stream is a function of `seed` alone, so a resumed run needs nothing but its position.
    """
    batch: list[_Record] = []
    while len(batch) < count:
        epoch, offset = divmod(start + len(batch), len(records))
        order = _epoch_order(len(records), *seed, epoch)
        batch += [records[index] for index in order[offset : offset + count - len(batch)]]
    return batch


@lru_cache(maxsize=4)
def _epoch_order(length: int, *seed: int | str) -> list[int]:
    order = list(range(length))
    python_random(*seed).shuffle(order)
    return order


def example_branch(encoder: PromptEncoder, example: Example) -> Branch:
    """The completion and its end token; only the completion (or its `loss_spans`) is a target."""
    ids = encoder.completion_ids(example.completion)
    return Branch(torch.tensor(ids), torch.tensor(encoder.completion_mask(example.completion, example.loss_spans)))


def pack_examples(
    encoder: PromptEncoder,
    examples: Sequence[Example],
    token_budget: int,
    to_branch: Callable[[PromptEncoder, Example], Branch] = example_branch,
) -> list[PackedTrees]:
    """Each example a tree with one branch."""
    trees = [PromptTree(encoder.encode(example.prompt), (to_branch(encoder, example),)) for example in examples]
    return pack_trees(trees, token_budget=token_budget, num_shares=num_processes())


def imitate(policy: Any, packs: Sequence[PackedTrees]) -> float:
    """Adds the gradient of the batch's mean negative log-likelihood per target token; returns that mean."""
    total = 0.0
    for loss in _losses(policy, packs):
        loss.backward()
        total += loss.item()
    return add_up_number(total)


@torch.no_grad()
def mean_nll(policy: Any, packs: Sequence[PackedTrees]) -> float:
    """Mean negative log-likelihood per target token, without a gradient. It is the last pass over `packs`."""
    return add_up_number(sum(loss.item() for loss in _losses(policy, packs, is_last_pass=True)))


def _losses(policy: Any, packs: Sequence[PackedTrees], *, is_last_pass: bool = False) -> Iterator[Tensor]:
    """What this process's share adds to the mean over all targets of `packs`."""
    num_targets = sum(packed.target_ids.numel() for packed in packs)
    for part in share_packs(packs, is_last_pass=is_last_pass):
        logprobs = branch_logprobs(policy, part.item).logprobs[None]
        yield part.weight * completion_nll(logprobs, torch.ones_like(logprobs, dtype=torch.bool), num_targets)


def num_tokens(packs: Sequence[PackedTrees]) -> int:
    return sum(len(packed) for packed in packs)
