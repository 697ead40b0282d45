import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from prism.objectives import expert_load, load_balancing_loss

CASES = json.loads((Path(__file__).parents[2] / "golden" / "objectives_moe_aux_loss.json").read_text())
close_to_golden = partial(assert_close, rtol=1e-6, atol=1e-6)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_matches_golden_in_value_gradient_and_load(case, as_tensor):
    logits = f64(case["gate_logits"]).requires_grad_()
    mask = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"]).bool()
    gate_logits = logits if as_tensor else tuple(logits)
    loss = load_balancing_loss(gate_logits, top_k=case["top_k"], mask=mask)
    loss.backward()
    close_to_golden(loss.detach(), f64(case["loss"]))
    close_to_golden(logits.grad, f64(case["grad_gate_logits"]))
    load = expert_load(gate_logits, top_k=case["top_k"], mask=mask)
    close_to_golden(load, f64(case["fraction_per_expert"]))
    assert load.sum().item() == pytest.approx(case["top_k"])


def test_hand_worked_balance_and_collapse():
    # Each of 4 experts first for one token, so f = 1/4 and, by symmetry, P = 1/4: 4 · 4 · 1/16 = 1.
    balanced = 3 * torch.eye(4, dtype=torch.float64)[None]
    assert load_balancing_loss(balanced, top_k=1).item() == pytest.approx(1.0)
    # All tokens sure of expert 0: f = P = 1 there, so the loss is 4.
    collapsed = torch.zeros(1, 5, 4, dtype=torch.float64)
    collapsed[..., 0] = 100.0
    assert load_balancing_loss(collapsed, top_k=1).item() == pytest.approx(4.0)
    assert expert_load(collapsed, top_k=1).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_masked_tokens_reach_neither_value_nor_gradient():
    logits = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, False, True, True, False, True])
    kept = logits[:, mask].clone().requires_grad_()
    spoilt = logits.masked_fill(~mask[:, None], float("nan")).requires_grad_()
    expected, actual = load_balancing_loss(kept, top_k=2), load_balancing_loss(spoilt, top_k=2, mask=mask)
    assert_close(actual, expected)
    (gradient,) = torch.autograd.grad(actual, spoilt)
    assert_close(gradient[:, mask], torch.autograd.grad(expected, kept)[0])
    assert not gradient[:, ~mask].any()


def test_order_of_tokens_and_experts_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 7, 5, dtype=torch.float64, generator=generator)
    tokens, experts = torch.randperm(7, generator=generator), torch.randperm(5, generator=generator)
    shuffled = logits[:, tokens][:, :, experts]
    assert_close(load_balancing_loss(shuffled, top_k=2), load_balancing_loss(logits, top_k=2))
    assert_close(expert_load(shuffled, top_k=2), expert_load(logits, top_k=2)[experts])


def test_no_counted_token_gives_a_connected_zero():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = load_balancing_loss(logits, top_k=2, mask=torch.zeros(3, dtype=torch.bool))
    assert loss.item() == 0 and loss.dtype == torch.float32
    assert not torch.autograd.grad(loss, logits)[0].any()


LAYER = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("gate_logits:", lambda: load_balancing_loss([], top_k=1)),
        (r"gate_logits\[0\]", lambda: load_balancing_loss(LAYER, top_k=1)),
        (r"gate_logits\[1\]", lambda: load_balancing_loss([LAYER, LAYER[:2]], top_k=1)),
        ("top_k", lambda: load_balancing_loss([LAYER], top_k=5)),
        ("top_k", lambda: expert_load([LAYER], top_k=0)),
        ("mask", lambda: expert_load([LAYER], top_k=1, mask=torch.ones(3))),
        ("mask", lambda: expert_load([LAYER], top_k=1, mask=torch.ones(4, dtype=torch.bool))),
    ],
)
def test_mismatches_name_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()
