import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from prism.objectives import AGGREGATIONS, aggregate, completion_nll, entropy_from_logits, kl_estimate

CASES = json.loads((Path(__file__).parents[2] / "golden" / "objectives_kl_entropy.json").read_text())
KL_CASES = [case for case in CASES if case["kind"] == "kl"]
ENTROPY_CASES = [case for case in CASES if case["kind"] == "entropy"]
close_to_golden = partial(assert_close, rtol=1e-6, atol=1e-6)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("case", [pytest.param(case, id=f"spread{case['spread']}") for case in KL_CASES])
def test_kl_matches_golden(case, kind):
    logprobs, mask = f64(case["log_prob"]).requires_grad_(), torch.tensor(case["response_mask"]).bool()
    per_token = kl_estimate(logprobs, f64(case["ref_log_prob"]), kind=kind)
    mean = aggregate(per_token, mask)
    mean.backward()
    close_to_golden(per_token.detach(), f64(case[kind]["per_token"]))
    close_to_golden(mean.detach(), f64(case[kind]["token_mean"]))
    close_to_golden(logprobs.grad, f64(case[kind]["grad_log_prob_of_token_mean"]))


def test_kl_estimates_average_to_the_divergence():
    """Over all tokens weighted by their probability, k1 and k3 give KL(policy ‖ reference) exactly."""
    logits = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    policy, reference = logits.log_softmax(-1)
    exact = (policy.exp() * (policy - reference)).sum()
    for kind in ("k1", "k3"):
        assert_close((policy.exp() * kl_estimate(policy, reference, kind=kind)).sum(), exact)


def test_k3_keeps_its_digits_where_policies_hardly_differ():
    # exp(d) − d − 1 = d²/2 + d³/6 + …; in the printed order of operations d = 1e-9 gives 8e-17.
    estimate = kl_estimate(f64([0.0, -1.0]), f64([1e-9, -1.0]), kind="k3")
    assert estimate.tolist() == [pytest.approx(5e-19, rel=1e-6, abs=0), 0.0]


@pytest.mark.parametrize("case", ENTROPY_CASES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_entropy_matches_golden(case, aggregation):
    logits, mask = f64(case["logits"]).requires_grad_(), torch.tensor(case["response_mask"]).bool()
    entropy = entropy_from_logits(logits)
    value = aggregate(entropy, mask, aggregation)
    value.backward()
    expected = case["aggregated"][aggregation]
    close_to_golden(entropy.detach(), f64(case["per_token"]))
    close_to_golden(value.detach(), f64(expected["value"]))
    close_to_golden(logits.grad, f64(expected["grad_logits"]))


def test_entropy_with_banned_tokens_is_that_of_the_others():
    logits = f64([0.0, -math.inf, 0.0, 0.0, -math.inf]).requires_grad_()
    entropy = entropy_from_logits(logits)
    entropy.backward()
    assert entropy.item() == pytest.approx(math.log(3))
    assert_close(logits.grad, torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_nll_by_hand_and_with_a_global_count():
    logprobs = f64([[-1.0, -2.0, math.nan], [-6.0, math.nan, math.nan]]).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss = completion_nll(logprobs, mask)
    loss.backward()
    assert loss.item() == pytest.approx(3.0)
    assert_close(logprobs.grad, -mask.double() / 3)
    parts = [completion_nll(logprobs[i : i + 1], mask[i : i + 1], denominator=3) for i in range(2)]
    assert sum(part.item() for part in parts) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("kind", lambda: kl_estimate(f64([0.0]), f64([0.0]), kind="k4")),  # pyright: ignore[reportArgumentType]
        ("ref_logprobs", lambda: kl_estimate(f64([0.0]), f64([0.0, 1.0]), kind="k1")),
        ("ref_logprobs", lambda: kl_estimate(f64([0.0]), torch.zeros(1), kind="k1")),
        ("logits", lambda: entropy_from_logits(torch.zeros(3, dtype=torch.long))),
        ("logprobs", lambda: completion_nll(f64([0.0]), torch.ones(1, dtype=torch.bool))),
        ("mask", lambda: completion_nll(f64([[0.0]]), torch.ones(1, 1))),
    ],
)
def test_mismatches_name_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()
