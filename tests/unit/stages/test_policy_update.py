"""The packed, micro-batched policy gradient against padded rows from one forward per sequence."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from prism.config import KlConfig
from prism.models import PromptEncoder
from prism.objectives import kl_estimate, policy_loss
from prism.packing import Branch, PackedTrees
from prism.records import RolloutGroup
from prism.stages.policy_update import (
    PolicyObjective,
    accumulate_policy_gradient,
    pack_groups,
    rollout_logprobs,
)

Make = Callable[..., Any]
ADVANTAGES = torch.tensor([1.0, -0.5, -0.5, 0.7, -0.7, 1.4, -1.0, -0.4])
TEMPERATURE = 0.8
BANNED = (0, 1, 3, 4, 5, 6)
"""The special tokens but the end token, as the tiny tokenizer numbers them."""

OBJECTIVES = {
    "grpo": PolicyObjective("token", 0.2, 0.2, None, "seq-mean-token-mean", TEMPERATURE, BANNED),
    "dapo": PolicyObjective("token", 0.2, 0.28, 1.5, "token-mean", TEMPERATURE, BANNED),
    "gspo": PolicyObjective("sequence", 0.02, 0.03, None, "seq-mean-token-mean", TEMPERATURE, BANNED),
    "sum": PolicyObjective("token", 0.2, 0.2, None, "seq-mean-token-sum", TEMPERATURE, BANNED),
}


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    matrix = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
    return matrix, mask


@pytest.fixture
def unpacked(encoder: PromptEncoder, groups: list[RolloutGroup], single_logprobs: Make) -> Callable[[Any], tuple]:
    """The log-probabilities of all rollouts as padded rows, and the mask."""

    def run(policy: Any) -> tuple[Tensor, Tensor]:
        return padded(
            [
                single_logprobs(policy, encoder.encode(group.prompt), Branch.of(rollout.token_ids), TEMPERATURE, BANNED)
                for group in groups
                for rollout in group.rollouts
            ]
        )

    return run


@pytest.fixture
def drift(groups: list[RolloutGroup]) -> Tensor:
    """How far the sampling policy's log-probabilities lie from today's: far enough to clip some tokens."""
    lengths = [len(rollout.token_ids) for group in groups for rollout in group.rollouts]
    return 0.4 * torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(2))


def shifted(policy: Any, packs: Sequence[PackedTrees], drift: Tensor) -> list[Tensor]:
    return [
        logprobs + drift[packed.target_rows, packed.target_columns]
        for logprobs, packed in zip(rollout_logprobs(policy, packs, OBJECTIVES["grpo"]), packs, strict=True)
    ]


@pytest.mark.parametrize("token_budget", [45, 80, 4096])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_equals_the_direct_one_whatever_the_budget(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    unpacked: Make,
    drift: Tensor,
    take_gradients: Make,
    assert_same_gradients: Make,
    name: str,
    token_budget: int,
) -> None:
    policy, objective = make_policy(), OBJECTIVES[name]
    logprobs, mask = unpacked(policy)
    direct = policy_loss(
        logprobs,
        logprobs.detach() + drift,
        ADVANTAGES,
        mask,
        level=objective.level,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
        dual_clip=objective.dual_clip,
        aggregation=objective.aggregation,
    )
    direct.loss.backward()
    expected = take_gradients(policy)
    assert 0 < direct.clip_fraction < 1
    assert name != "dapo" or 0 < direct.clip_fraction_dual < 1

    packs = pack_groups(encoder, groups, token_budget)
    assert (len(packs) == 1) == (token_budget == 4096) and (len(packs) > 2) == (token_budget == 45)
    metrics = accumulate_policy_gradient(
        policy, packs, ADVANTAGES, objective, old_logprobs=shifted(policy, packs, drift)
    )
    assert_same_gradients(take_gradients(policy), expected)
    assert metrics.loss == pytest.approx(direct.loss.item(), abs=1e-5)
    assert metrics.clip_fraction == pytest.approx(direct.clip_fraction.item(), abs=1e-6)
    assert metrics.clip_fraction_dual == pytest.approx(direct.clip_fraction_dual.item(), abs=1e-6)
    assert metrics.num_tokens == sum(map(len, packs))
    assert metrics.kl is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_policy_that_sampled_itself_needs_no_old_logprobs(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    take_gradients: Make,
    assert_same_gradients: Make,
    name: str,
) -> None:
    policy = make_policy()
    packs = pack_groups(encoder, groups, 80)
    fresh = accumulate_policy_gradient(policy, packs, ADVANTAGES, OBJECTIVES[name])
    gradients = take_gradients(policy)
    current = rollout_logprobs(policy, packs, OBJECTIVES[name])
    given = accumulate_policy_gradient(policy, packs, ADVANTAGES, OBJECTIVES[name], old_logprobs=current)
    assert_same_gradients(take_gradients(policy), gradients, atol=1e-6)
    assert fresh.loss == pytest.approx(given.loss, abs=1e-6)
    assert fresh.clip_fraction == given.clip_fraction == 0


def test_on_policy_gradient_is_the_plain_policy_gradient(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    unpacked: Make,
    take_gradients: Make,
    assert_same_gradients: Make,
) -> None:
    """−mean over tokens of A · log π: no ratio, no clip."""
    policy = make_policy()
    logprobs, mask = unpacked(policy)
    (-(ADVANTAGES[:, None] * logprobs)[mask].mean()).backward()
    expected = take_gradients(policy)
    accumulate_policy_gradient(policy, pack_groups(encoder, groups, 80), ADVANTAGES, OBJECTIVES["dapo"])
    assert_same_gradients(take_gradients(policy), expected)


@pytest.mark.parametrize("token_budget", [45, 4096])
@pytest.mark.parametrize(("aggregation", "kind"), [("token-mean", "k3"), ("seq-mean-token-mean", "k2")])
def test_kl_term_pulls_towards_the_reference(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    unpacked: Make,
    take_gradients: Make,
    assert_same_gradients: Make,
    aggregation: Any,
    kind: Any,
    token_budget: int,
) -> None:
    policy, reference = make_policy(), make_policy(7)
    logprobs, mask = unpacked(policy)
    with torch.no_grad():
        distant, _ = unpacked(reference)
    distance = kl_estimate(logprobs, distant, kind=kind)
    if aggregation == "token-mean":
        mean = distance[mask].mean()
    else:
        mean = torch.stack([row[own].mean() for row, own in zip(distance, mask, strict=True)]).mean()
    (0.3 * mean).backward()
    expected = take_gradients(policy)

    objective = PolicyObjective(
        "token", 0.2, 0.2, None, aggregation, TEMPERATURE, BANNED, KlConfig(coefficient=0.3, kind=kind)
    )
    metrics = accumulate_policy_gradient(
        policy, pack_groups(encoder, groups, token_budget), torch.zeros(8), objective, reference=reference
    )
    assert_same_gradients(take_gradients(policy), expected)
    assert metrics.loss == pytest.approx(0.3 * mean.item(), abs=1e-5)
    assert metrics.kl == pytest.approx(distance[mask].mean().item(), abs=1e-5)
    assert not take_gradients(reference)


def test_entropy_is_that_of_the_distributions_sampled_from(
    make_policy: Make, encoder: PromptEncoder, groups: list[RolloutGroup], hidden_states: Make
) -> None:
    policy, entropies = make_policy(), []
    with torch.no_grad():
        for group in groups:
            prompt = encoder.encode(group.prompt)
            for rollout in group.rollouts:
                hidden = hidden_states(policy.model, prompt, Branch.of(rollout.token_ids))[len(prompt) - 1 : -1]
                logits = policy.lm_head(hidden) / TEMPERATURE
                allowed = [token for token in range(logits.shape[-1]) if token not in BANNED]
                entropies.append(torch.distributions.Categorical(logits=logits[:, allowed]).entropy())
    metrics = accumulate_policy_gradient(policy, pack_groups(encoder, groups, 80), ADVANTAGES, OBJECTIVES["grpo"])
    assert metrics.entropy == pytest.approx(torch.cat(entropies).mean().item(), abs=1e-5)
    assert metrics.named()["rollout/entropy"] == metrics.entropy


def test_an_update_leaves_the_logits_of_banned_tokens_alone(
    make_policy: Make, encoder: PromptEncoder, groups: list[RolloutGroup]
) -> None:
    """No rollout can show what they do: the gradient reaches those of the allowed tokens only."""
    policy, gradients = make_policy(), []
    policy.lm_head.register_full_backward_hook(lambda module, inputs, outputs: gradients.append(outputs[0]))
    accumulate_policy_gradient(policy, pack_groups(encoder, groups, 80), ADVANTAGES, OBJECTIVES["grpo"])
    reached = torch.cat(gradients).abs().sum(0)
    assert [token for token in range(len(reached)) if reached[token] == 0] == list(BANNED)


def test_sampled_tokens_are_packed_as_they_are(encoder: PromptEncoder, groups: list[RolloutGroup]) -> None:
    packs = pack_groups(encoder, groups, 60)
    seen: dict[int, list[int]] = {}
    for packed in packs:
        for row, token in zip(packed.target_rows.tolist(), packed.target_ids.tolist(), strict=True):
            seen.setdefault(row, []).append(token)
    assert [tuple(seen[row]) for row in range(8)] == [
        rollout.token_ids for group in groups for rollout in group.rollouts
    ]
