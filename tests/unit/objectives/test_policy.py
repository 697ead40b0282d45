import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from prism.objectives import AGGREGATIONS, policy_loss

CASES = json.loads((Path(__file__).parents[2] / "golden" / "objectives_policy_losses.json").read_text())
close_to_golden = partial(assert_close, rtol=1e-6, atol=1e-6)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def golden_inputs(case):
    logprobs = f64(case["log_prob"]).requires_grad_()
    mask = torch.tensor(case["response_mask"]).bool()
    keywords = {
        "level": {"ppo": "token", "gspo": "sequence"}[case["kind"]],
        "clip_low": case["clip_low"],
        "clip_high": case["clip_high"],
        "dual_clip": case["dual_clip_c"],
        "aggregation": case["agg"],
    }
    return logprobs, f64(case["old_log_prob"]), f64(case["advantages"]), mask, keywords


golden = pytest.mark.parametrize("case", [pytest.param(c, id=f"{c['name']}-{c['agg']}") for c in CASES])


@golden
def test_matches_golden_in_value_gradient_and_metrics(case):
    logprobs, old, advantages, mask, keywords = golden_inputs(case)
    result = policy_loss(logprobs, old, advantages, mask, **keywords)
    result.loss.backward()
    assert result.loss.dtype == torch.float64
    close_to_golden(result.loss.detach(), f64(case["loss"]))
    close_to_golden(logprobs.grad, f64(case["grad_log_prob"]))
    close_to_golden(result.clip_fraction, f64(case["clip_frac"]))
    close_to_golden(result.clip_fraction_dual, f64(case["clip_frac_lower"]))
    close_to_golden(result.approx_kl, f64(case["approx_kl"]))
    assert result.num_tokens.item() == sum(map(sum, case["response_mask"]))
    metrics = (result.clip_fraction, result.clip_fraction_dual, result.approx_kl)
    assert not any(metric.requires_grad for metric in metrics)


@golden
def test_masked_places_reach_neither_loss_nor_gradient(case):
    logprobs, old, advantages, mask, keywords = golden_inputs(case)
    garbage = logprobs.detach().masked_fill(~mask, math.nan).requires_grad_()
    old, advantages = old.masked_fill(~mask, -math.inf), advantages.masked_fill(~mask, math.inf)
    result = policy_loss(garbage, old, advantages, mask, **keywords)
    result.loss.backward()
    close_to_golden(result.loss.detach(), f64(case["loss"]))
    close_to_golden(garbage.grad, f64(case["grad_log_prob"]))
    close_to_golden(result.approx_kl, f64(case["approx_kl"]))


def single_token(log_ratio, advantage, **keywords):
    logprobs = f64([[log_ratio]]).requires_grad_()
    options: dict[str, Any] = {
        "level": "token",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "aggregation": "token-mean",
    } | keywords
    result = policy_loss(logprobs, f64([[0.0]]), f64([advantage]), torch.ones(1, 1, dtype=torch.bool), **options)
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    return result, gradient.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside the range: −A·ρ, and dρ/dlogp = ρ
        (1.5, 2.0, -2.56, 0.0),  # above 1 + clip_high with A > 0: the incentive ends at 1.28
        (0.5, 2.0, -1.0, -1.0),  # below the range with A > 0: not clipped
        (0.5, -2.0, 1.6, 0.0),  # below 1 − clip_low with A < 0: the incentive ends at 0.8
        (1.5, -2.0, 3.0, 3.0),  # above the range with A < 0: not clipped
        (20.0, -2.0, 20.0, 0.0),  # the dual clip: at most −A·10
    ],
)
def test_hand_worked_tokens(ratio, advantage, loss, gradient):
    result, actual_gradient = single_token(math.log(ratio), advantage, dual_clip=10.0)
    assert result.loss.item() == pytest.approx(loss)
    assert actual_gradient == pytest.approx(gradient)
    assert result.clip_fraction_dual.item() == (ratio == 20.0)


def test_log_ratios_are_clamped_at_20_and_10():
    result, gradient = single_token(400.0, -1.0)
    assert result.loss.item() == pytest.approx(math.exp(20))
    assert gradient == 0
    result, gradient = single_token(400.0, -1.0, level="sequence")
    assert result.loss.item() == pytest.approx(math.exp(10))
    assert gradient == 0
    result, _ = single_token(-400.0, 1.0)
    assert result.loss.item() == pytest.approx(-math.exp(-20))
    assert result.approx_kl.item() == pytest.approx(20)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (int(n) for n in torch.randint(2, 9, (2,), generator=generator))
    old = -torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 3
    logprobs = old + 0.3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, columns, generator=generator) < 0.7
    mask[0, 0] = True
    return logprobs, old, advantages, mask, torch.randperm(rows, generator=generator)


def keywords_of(level, aggregation) -> dict[str, Any]:
    return {"level": level, "clip_low": 0.1, "clip_high": 0.15, "dual_clip": 1.2, "aggregation": aggregation}


every_variant = pytest.mark.parametrize("aggregation", AGGREGATIONS)
every_level = pytest.mark.parametrize("level", ["token", "sequence"])
few_examples = settings(max_examples=12, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)


@every_variant
@every_level
@few_examples
@given(SEEDS)
def test_micro_batches_with_the_global_count_add_up(level, aggregation, seed):
    logprobs, old, advantages, mask, order = batch(seed)
    keywords = keywords_of(level, aggregation)
    whole = logprobs.clone().requires_grad_()
    total = policy_loss(whole, old, advantages, mask, **keywords)
    total.loss.backward()

    denominator = mask.sum() if aggregation == "token-mean" else mask.any(-1).sum()
    parted, losses, clipped = logprobs.clone().requires_grad_(), 0.0, 0.0
    for rows in order.tensor_split(3):
        piece = policy_loss(parted[rows], old[rows], advantages[rows], mask[rows], denominator=denominator, **keywords)
        piece.loss.backward()
        losses += piece.loss.item()
        clipped += piece.clip_fraction.item() * piece.num_tokens.item()
    assert losses == pytest.approx(total.loss.item(), rel=1e-9, abs=1e-12)
    assert clipped == pytest.approx(total.clip_fraction.item() * mask.sum().item())
    assert_close(parted.grad, whole.grad)


@every_variant
@every_level
@few_examples
@given(SEEDS)
def test_padding_and_order_of_rows_do_not_matter(level, aggregation, seed):
    logprobs, old, advantages, mask, order = batch(seed)
    keywords = keywords_of(level, aggregation)
    expected = policy_loss(logprobs, old, advantages, mask, **keywords)

    def pad(tensor, value):
        return torch.nn.functional.pad(tensor[order], (2, 3), value=value)

    padded = policy_loss(pad(logprobs, math.nan), pad(old, math.nan), advantages[order], pad(mask, False), **keywords)
    assert_close(padded.loss, expected.loss)
    assert_close(padded.clip_fraction_dual, expected.clip_fraction_dual)


@every_level
@few_examples
@given(SEEDS)
def test_one_advantage_per_rollout_equals_the_same_on_every_token(level, seed):
    logprobs, old, advantages, mask, _ = batch(seed)
    keywords = keywords_of(level, "token-mean")
    per_token = advantages[:, None].repeat(1, mask.shape[1])
    assert_close(
        policy_loss(logprobs, old, advantages, mask, **keywords).loss,
        policy_loss(logprobs, old, per_token, mask, **keywords).loss,
    )


@few_examples
@given(SEEDS)
def test_sequence_level_gradient_is_that_of_the_geometric_mean_ratio(seed):
    """GSPO's definition, written out: (Π ratios)^(1/T) differentiated directly."""
    logprobs, old, advantages, mask, _ = batch(seed)
    ours, direct = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    keywords = keywords_of("sequence", "seq-mean-token-mean")
    keywords["dual_clip"] = None
    policy_loss(ours, old, advantages, mask, **keywords).loss.backward()
    losses = []
    for row in range(len(mask)):
        if mask[row].any():
            ratio = (direct[row] - old[row])[mask[row]].mean().exp()
            losses.append(-torch.minimum(advantages[row] * ratio, advantages[row] * ratio.clamp(0.9, 1.15)))
    torch.stack(losses).mean().backward()
    assert_close(ours.grad, direct.grad)


@few_examples
@given(SEEDS)
def test_on_policy_gradient_is_the_plain_policy_gradient(seed):
    logprobs, _, advantages, mask, _ = batch(seed)
    logprobs.requires_grad_()
    result = policy_loss(logprobs, logprobs, advantages, mask, level="token", clip_low=0.2, clip_high=0.2)
    result.loss.backward()
    assert_close(logprobs.grad, -advantages[:, None] * mask / mask.sum())
    assert result.clip_fraction.item() == 0


def test_on_policy_the_levels_coincide():
    """With every ratio 1, GRPO (each response weighing the same) and GSPO have one and the same gradient."""
    logprobs, _, advantages, mask, _ = batch(4)
    gradients = []
    for level in ("token", "sequence"):
        fresh = logprobs.clone().requires_grad_()
        loss = policy_loss(fresh, logprobs, advantages, mask, **keywords_of(level, "seq-mean-token-mean")).loss
        gradients += torch.autograd.grad(loss, fresh)
    assert gradients[0].any()
    assert_close(gradients[0], gradients[1])


def test_only_logprobs_receives_a_gradient():
    logprobs, old, advantages, mask, _ = batch(0)
    for tensor in (logprobs, old, advantages):
        tensor.requires_grad_()
    policy_loss(logprobs, old, advantages, mask, **keywords_of("token", "token-mean")).loss.backward()
    assert logprobs.grad is not None
    assert old.grad is None and advantages.grad is None


@every_variant
@every_level
def test_empty_mask_gives_a_connected_zero(level, aggregation):
    logprobs, old, advantages, mask, _ = batch(1)
    logprobs.requires_grad_()
    empty = torch.zeros_like(mask)
    result = policy_loss(logprobs, old, advantages, empty, denominator=0, **keywords_of(level, aggregation))
    assert result.loss.item() == 0
    assert not torch.autograd.grad(result.loss, logprobs)[0].any()
    assert result.clip_fraction.item() == 0 and result.num_tokens.item() == 0


def test_float32_stays_float32():
    logprobs, old, advantages, mask, _ = batch(2)
    result = policy_loss(logprobs.float(), old.float(), advantages.float(), mask, **keywords_of("token", "token-mean"))
    assert {result.loss.dtype, result.clip_fraction.dtype, result.approx_kl.dtype} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("logprobs", lambda a: a | {"logprobs": a["logprobs"][0]}),
        ("old_logprobs", lambda a: a | {"old_logprobs": a["old_logprobs"][:, 1:]}),
        ("old_logprobs", lambda a: a | {"old_logprobs": a["old_logprobs"].float()}),
        ("advantages", lambda a: a | {"advantages": a["advantages"][1:]}),
        ("advantages", lambda a: a | {"advantages": a["advantages"][:, None]}),
        ("advantages", lambda a: a | {"advantages": a["advantages"].float()}),
        ("mask", lambda a: a | {"mask": a["mask"].long()}),
        ("mask", lambda a: a | {"mask": a["mask"][1:]}),
        ("level", lambda a: a | {"level": "word"}),
        ("aggregation", lambda a: a | {"aggregation": "sum"}),
        ("clip_low", lambda a: a | {"clip_low": 1.5}),
        ("clip_high", lambda a: a | {"clip_high": -0.1}),
        ("dual_clip", lambda a: a | {"dual_clip": 1.0}),
    ],
)
def test_mismatches_name_the_argument(name, change):
    logprobs, old, advantages, mask, _ = batch(3)
    arguments = {"logprobs": logprobs, "old_logprobs": old, "advantages": advantages, "mask": mask}
    changed: dict[str, Any] = change(arguments | keywords_of("token", "token-mean"))
    with pytest.raises(ValueError, match=rf"^{name} "):
        policy_loss(**changed)
