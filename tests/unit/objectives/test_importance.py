"""Truncated importance weights against numbers worked by hand."""

import math

import pytest
import torch

from prism.objectives import importance_weights, policy_loss

OLD = torch.tensor([[0.5, 0.2, 0.9], [0.4, 0.4, 0.1]], dtype=torch.float64).log()
SAMPLER = torch.tensor([[0.25, 0.4, 0.9], [0.1, 0.5, 0.7]], dtype=torch.float64).log()
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_token_level() -> None:
    """Ratios 2, 1/2, 1 and 4, 4/5; the cap of 3 takes the 4. The last place is masked."""
    weights = importance_weights(OLD, SAMPLER, MASK, cap=3.0)
    expected = torch.tensor([[2.0, 0.5, 1.0], [3.0, 0.8, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)


def test_sequence_level() -> None:
    """Products 1 and 3.2, of which the second is cut at 3."""
    weights = importance_weights(OLD, SAMPLER, MASK, level="sequence", cap=3.0)
    expected = torch.tensor([[1.0, 1.0, 1.0], [3.0, 3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)
    uncut = importance_weights(OLD, SAMPLER, MASK, level="sequence", cap=10.0)
    assert uncut[1, 0].item() == pytest.approx(3.2)


def test_masked_places_may_hold_anything_and_nothing_has_a_gradient() -> None:
    old = OLD.clone().requires_grad_()
    sampler = SAMPLER.clone()
    sampler[1, 2] = math.nan
    for level in ("token", "sequence"):
        weights = importance_weights(old, sampler, MASK, level=level, cap=3.0)
        assert weights.isfinite().all() and not weights.requires_grad


def test_equal_probabilities_change_no_loss() -> None:
    advantages = torch.tensor([1.0, -0.5], dtype=torch.float64)
    plain = policy_loss(OLD, OLD, advantages, MASK, clip_low=0.2, clip_high=0.2)
    weights = importance_weights(OLD, OLD, MASK, cap=2.0)
    weighted = policy_loss(OLD, OLD, advantages, MASK, clip_low=0.2, clip_high=0.2, weights=weights)
    assert weighted.loss == plain.loss


def test_losses_and_gradients_are_multiplied_after_clipping() -> None:
    """Advantages 1 and −1, weights 2, 1/2, 1 and 3, 4/5: the mean of −w·A·ρ over five tokens, every ρ being 1 but
    one of 2, which its clip at 1.2 takes. −(2 · 1.2 + 0.5 + 1 − 3 − 0.8) / 5 = −0.02."""
    logprobs = OLD.clone()
    logprobs[0, 0] += math.log(2)
    logprobs.requires_grad_()
    weights = importance_weights(OLD, SAMPLER, MASK, cap=3.0)
    advantages = torch.tensor([1.0, -1.0], dtype=torch.float64)
    loss = policy_loss(logprobs, OLD, advantages, MASK, clip_low=0.2, clip_high=0.2, weights=weights).loss
    assert loss.item() == pytest.approx(-0.02)
    loss.backward()
    expected = torch.tensor([[0.0, -0.1, -0.2], [0.6, 0.16, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(logprobs.grad, expected)


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="cap must be at least 1"):
        importance_weights(OLD, SAMPLER, MASK, cap=0.5)
