"""Activation checkpointing: the same gradients from fewer kept tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prism.models import Discriminator, PromptEncoder
from prism.packing import branch_logprobs, branch_scores
from prism.records import RolloutGroup
from prism.stages.policy_update import pack_groups
from prism.stages.workspace import Workspace

Make = Callable[..., Any]


def kept_numbers(compute: Callable[[], Tensor]) -> int:
    """Runs `compute` and its backward pass; how many numbers the graph kept for the latter."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = compute()
    kept = sum(sizes)
    loss.backward()
    return kept


@pytest.fixture
def to_train(make_workspace: Make) -> Callable[..., Any]:
    def prepare(model: Any, player: Any) -> Any:
        workspace: Workspace = make_workspace(activation_checkpointing=True)
        return workspace.to_train(model, player).train()

    return prepare


def test_a_policys_gradients_are_the_same(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    to_train: Make,
    take_gradients: Make,
    assert_same_gradients: Make,
) -> None:
    [packed] = pack_groups(encoder, groups, 4096)
    plain, frugal = make_policy().train(), to_train(make_policy(), "policy")
    kept = [
        kept_numbers(lambda policy=policy: branch_logprobs(policy, packed).logprobs.sum()) for policy in (plain, frugal)
    ]
    assert kept[1] < 0.7 * kept[0]
    assert_same_gradients(take_gradients(frugal), take_gradients(plain))


def test_a_discriminators_gradients_are_the_same_those_of_its_routers_included(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    to_train: Make,
    take_gradients: Make,
    assert_same_gradients: Make,
) -> None:
    [packed] = pack_groups(encoder, groups, 4096)
    views = torch.arange(len(packed.rows)) % len(discriminator.views)

    def loss(model: Discriminator) -> Tensor:
        scores, logits = branch_scores(model, packed, views=views, with_router=model.mode != "dense")
        return scores.sum() + sum((0.1 * layer[layer.isfinite()] ** 2).sum() for layer in logits or ())

    plain = kept_numbers(lambda: loss(discriminator.train()))
    expected = take_gradients(discriminator)
    frugal = to_train(discriminator, "discriminator")
    assert kept_numbers(lambda: loss(frugal)) < 0.8 * plain
    assert_same_gradients(take_gradients(frugal), expected, atol=1e-4)
