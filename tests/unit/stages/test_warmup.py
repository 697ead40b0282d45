"""The warm-up's loss and its held-out measure."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import softplus

from prism.models import Discriminator, PromptEncoder
from prism.objectives import load_balancing_loss
from prism.packing import branch_scores
from prism.rewards import parse_response
from prism.stages.discriminators import num_active_experts
from prism.stages.rollouts import parse_rollout
from prism.stages.scoring import Contest, ContestBatch, score
from prism.stages.warmup import accumulate_gradient, measure_heldout

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"


@pytest.fixture
def contests(make_prompt: Make, make_rollout: Make) -> list[Contest]:
    return [
        Contest(
            make_prompt(index, with_image=index != 1),
            parse_response(TEXT.format("row 1: red circle 2.", "1. one", index)),
            (parse_rollout(make_rollout(TEXT.format("some thing ?", "1. it is 2", index))),),
        )
        for index in range(3)
    ]


@pytest.mark.parametrize("token_budget", [70, 4096])
@pytest.mark.parametrize("balance_coefficient", [0.0, 0.5])
def test_gradient_is_that_of_both_branches_and_the_balance(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    contests: list[Contest],
    take_gradients: Make,
    assert_same_gradients: Make,
    token_budget: int,
    balance_coefficient: float,
) -> None:
    """One graph over all packs; a pack's balance counts by its share of the tokens."""
    batch = ContestBatch(encoder, contests, token_budget)
    is_sparse = num_active_experts(discriminator) is not None
    assert num_active_experts(discriminator) in (None, 2)
    scores, balance = torch.zeros(batch.num_branches), torch.zeros(())
    total = sum(map(len, batch.packs))
    for packed in batch.packs:
        values, router_logits = branch_scores(discriminator, packed, with_router=is_sparse)
        scores = scores.index_put((packed.rows,), values)
        if is_sparse:
            assert router_logits is not None
            balance = balance + load_balancing_loss(router_logits, top_k=2) * len(packed) / total
    pairs = batch.pair_scores(scores)
    perception = softplus(pairs.perception - pairs.teacher_perception).mean()
    reasoning = softplus(pairs.reasoning - pairs.teacher_reasoning).mean()
    (perception + reasoning + balance_coefficient * balance).backward()
    expected = take_gradients(discriminator)

    metrics = accumulate_gradient(discriminator, batch, balance_coefficient)
    assert_same_gradients(take_gradients(discriminator), expected)
    assert metrics["loss/perception"] == pytest.approx(perception.item(), abs=1e-5)
    assert metrics["loss/reasoning"] == pytest.approx(reasoning.item(), abs=1e-5)
    assert metrics["loss/balance"] == (pytest.approx(balance.item(), abs=1e-5) if is_sparse else None)


def test_heldout_measures_by_hand(
    discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest]
) -> None:
    batch = ContestBatch(encoder, contests, 4096)
    pairs = batch.pair_scores(score(discriminator, batch))
    metrics = measure_heldout(discriminator, batch)
    for name in ("perception", "reasoning"):
        gaps = (getattr(pairs, f"teacher_{name}") - getattr(pairs, name)).tolist()
        assert metrics[f"heldout/{name}_accuracy"] == pytest.approx(sum(gap > 0 for gap in gaps) / 3)
        assert metrics[f"heldout/{name}_gap"] == pytest.approx(sum(gaps) / 3, abs=1e-6)
    assert metrics["heldout/count"] == 3


def test_warm_up_and_alignment_read_one_response_alike(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make
) -> None:
    """A policy that answers like the teacher: no branch and no token tells them apart in the warm-up either."""
    text = TEXT.format("row 1: red circle 2.", "1. one", "1")
    contest = Contest(make_prompt(0), parse_response(text), (parse_rollout(make_rollout(text)),))
    metrics = measure_heldout(discriminator, ContestBatch(encoder, [contest], 4096))
    assert metrics["heldout/perception_gap"] == pytest.approx(0, abs=1e-5)
    assert metrics["heldout/reasoning_gap"] == pytest.approx(0, abs=1e-5)


def test_a_few_steps_tell_a_careless_writer_from_the_teacher(
    discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest]
) -> None:
    batch = ContestBatch(encoder, contests, 4096)
    torch.nn.init.zeros_(discriminator.head.weight)
    before = accumulate_gradient(discriminator, batch, 0.01)
    assert before["loss/perception"] == pytest.approx(math.log(2))
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    for _ in range(6):
        optimizer.step()
        optimizer.zero_grad()
        accumulate_gradient(discriminator, batch, 0.01)
    metrics = measure_heldout(discriminator, batch)
    assert metrics["heldout/perception_accuracy"] == metrics["heldout/reasoning_accuracy"] == 1
