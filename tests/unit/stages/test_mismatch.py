"""The comparison of an engine's log-probabilities with the training forward's."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prism.config import ImportanceConfig, RlvrConfig, TransformersRollout, VllmRollout
from prism.errors import RolloutError
from prism.models import PromptEncoder
from prism.records import RolloutGroup
from prism.stages.mismatch import Mismatch, check_sampler, join, mismatch_metrics, sampler_logprobs
from prism.stages.policy_update import PolicyObjective, accumulate_policy_gradient, pack_groups, rollout_logprobs
from prism.stages.rlvr import pack_mini_batches

Make = Callable[..., Any]
OBJECTIVE = PolicyObjective("token", 0.2, 0.2, None, "token-mean", 1.0, ())
ADVANTAGES = torch.linspace(-1, 1, 8)


def reporting(policy: Any, encoder: PromptEncoder, groups: list[RolloutGroup], *shifts: float) -> list[RolloutGroup]:
    """`groups` as an engine would report them that is off by `shifts`, in turn, in the tokens of every rollout."""
    found = []
    for group in groups:
        [packed] = pack_groups(encoder, [group], 4096)
        [exact] = rollout_logprobs(policy, [packed], OBJECTIVE)
        own = []
        for row, rollout in enumerate(group.rollouts):
            values = exact[packed.target_rows == row].tolist()
            moved = [value - shifts[index % len(shifts)] for index, value in enumerate(values)]
            own.append(dataclasses.replace(rollout, logprobs=tuple(moved)))
        found.append(RolloutGroup(group.prompt, tuple(own)))
    return found


@pytest.mark.parametrize("token_budget", [45, 80, 4096])
def test_every_token_is_compared_with_its_own(
    make_policy: Make, encoder: PromptEncoder, groups: list[RolloutGroup], token_budget: int
) -> None:
    """However the rollouts were packed."""
    policy = make_policy()
    reported = reporting(policy, encoder, groups, 0.0)
    packs = pack_groups(encoder, reported, token_budget)
    update = accumulate_policy_gradient(
        policy, packs, ADVANTAGES, OBJECTIVE, sampler_logprobs=sampler_logprobs(reported, packs)
    )
    assert update.mismatch is not None
    assert update.mismatch.differences.numel() == sum(
        len(rollout.token_ids) for group in groups for rollout in group.rollouts
    )
    assert float(update.mismatch.differences.max()) < 1e-5


def test_mismatch_by_hand() -> None:
    mismatch = Mismatch(torch.tensor([0.0, 0.01, 0.02, 0.13]))
    assert mismatch.metrics(0.015) == pytest.approx(
        {
            "sampler/mismatch_mean": 0.04,
            "sampler/mismatch_max": 0.13,
            "sampler/mismatch_share": 0.5,
            "sampler/mismatch_count": 4,
        }
    )
    joined = join([mismatch, None, Mismatch(torch.tensor([0.24]))])
    assert joined is not None and joined.mean == pytest.approx(0.08) and join([None]) is None


@pytest.mark.parametrize(("differences", "stops"), [([0.05, 0.05], False), ([0.0, 0.11], True), ([math.nan], True)])
def test_the_mean_decides(differences: list[float], stops: bool) -> None:
    rollout = VllmRollout(tolerance=0.051)
    mismatch = Mismatch(torch.tensor(differences))
    if stops:
        with pytest.raises(RolloutError, match=r"step 3: .* of \d tokens differ .* rollout\.tolerance \(0\.051\)"):
            check_sampler(mismatch, rollout, "step 3")
    else:
        check_sampler(mismatch, rollout, "step 3")


def test_the_training_model_is_not_compared_with_itself(
    make_policy: Make, encoder: PromptEncoder, groups: list[RolloutGroup]
) -> None:
    packs = pack_groups(encoder, groups, 80)
    assert sampler_logprobs(groups, packs) is None
    update = accumulate_policy_gradient(make_policy(), packs, ADVANTAGES, OBJECTIVE)
    assert update.mismatch is None and "policy/importance" not in update.named()
    check_sampler(update.mismatch, TransformersRollout(), "step 1")
    assert mismatch_metrics(update.mismatch, TransformersRollout()) == {}


def test_importance_weighs_the_gradient(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    take_gradients: Make,
    assert_same_gradients: Make,
) -> None:
    """An engine that gave every token half its probability: all weights are 2, or the cap of 1.5."""
    policy = make_policy()
    reported = reporting(policy, encoder, groups, math.log(2))
    packs = pack_groups(encoder, reported, 80)
    accumulate_policy_gradient(policy, packs, ADVANTAGES, OBJECTIVE)
    plain = take_gradients(policy)
    for cap, factor in ((4.0, 2.0), (1.5, 1.5)):
        objective = dataclasses.replace(OBJECTIVE, importance=ImportanceConfig(cap=cap))
        update = accumulate_policy_gradient(
            policy, packs, ADVANTAGES, objective, sampler_logprobs=sampler_logprobs(reported, packs)
        )
        assert update.importance == pytest.approx(factor, abs=1e-5)
        assert_same_gradients(take_gradients(policy), {name: factor * grad for name, grad in plain.items()})


def test_weights_and_mismatch_refer_to_the_policy_that_sampled(
    make_policy: Make,
    encoder: PromptEncoder,
    groups: list[RolloutGroup],
    take_gradients: Make,
    assert_same_gradients: Make,
) -> None:
    """Not to the one that has moved on since, in a later mini-batch."""
    sampling, policy = make_policy(0), make_policy(0)
    with torch.no_grad():
        policy.lm_head.weight *= 1.2
    reported = reporting(sampling, encoder, groups, math.log(2))
    packs = pack_groups(encoder, reported, 80)
    old = rollout_logprobs(sampling, packs, OBJECTIVE)
    accumulate_policy_gradient(policy, packs, ADVANTAGES, OBJECTIVE, old_logprobs=old)
    plain = take_gradients(policy)
    objective = dataclasses.replace(OBJECTIVE, importance=ImportanceConfig(cap=4.0))
    update = accumulate_policy_gradient(
        policy, packs, ADVANTAGES, objective, old_logprobs=old, sampler_logprobs=sampler_logprobs(reported, packs)
    )
    assert update.mismatch is not None and update.mismatch.mean == pytest.approx(math.log(2), abs=1e-5)
    assert_same_gradients(take_gradients(policy), {name: 2 * grad for name, grad in plain.items()})


def test_every_mini_batch_has_the_logprobs_of_its_own_rollouts(
    make_policy: Make, encoder: PromptEncoder, groups: list[RolloutGroup]
) -> None:
    policy = make_policy()
    reported = reporting(policy, encoder, [*groups, *groups[::-1]], 0.0)
    # Of one length, as the stage's groups are.
    size = min(len(group.rollouts) for group in reported)
    reported = [RolloutGroup(group.prompt, group.rollouts[:size]) for group in reported]
    sizes = {"prompts_per_step": len(reported), "group_size": size, "num_mini_batches": 2, "token_budget": 4096}
    config = RlvrConfig.model_validate(
        sizes | {"num_steps": 1, "max_response_tokens": 20, "algorithms": ({"type": "grpo"},)}
    )
    parts = pack_mini_batches(encoder, reported, torch.arange(size * len(reported)).float(), config)
    assert len(parts) == 2
    for part in parts:
        assert part.sampler_logprobs is not None
        exact = rollout_logprobs(policy, part.packs, OBJECTIVE)
        torch.testing.assert_close(part.sampler_logprobs, exact, atol=1e-5, rtol=0)


def test_importance_needs_the_engines_logprobs(
    make_policy: Make, encoder: PromptEncoder, groups: list[RolloutGroup]
) -> None:
    objective = dataclasses.replace(OBJECTIVE, importance=ImportanceConfig())
    with pytest.raises(RolloutError, match="did not report log-probabilities"):
        accumulate_policy_gradient(make_policy(), pack_groups(encoder, groups, 80), ADVANTAGES, objective)
