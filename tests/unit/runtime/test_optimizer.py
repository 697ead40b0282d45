import math

import pytest
import torch
from torch import nn

from prism.errors import NumericsError
from prism.runtime.muon import Muon, orthogonalised
from prism.runtime.optimizer import clip_gradients, make_muon, make_optimizer, make_schedule


def _linear(weight: float, bias: float, grad: float) -> nn.Linear:
    layer = nn.Linear(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    layer.weight.grad = torch.full_like(layer.weight, grad)
    layer.bias.grad = torch.full_like(layer.bias, grad)
    return layer


def test_first_step_is_adamw_by_hand_and_biases_do_not_decay():
    layer = _linear(weight=2.0, bias=2.0, grad=0.5)
    make_optimizer(layer, learning_rate=0.1, weight_decay=0.3).step()
    # Bias-corrected moments of the first step are g and g², so the update is g / (|g| + 1e-8).
    update = 0.1 * 0.5 / (0.5 + 1e-8)
    assert layer.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.3) - update, abs=1e-12)
    assert layer.bias.item() == pytest.approx(2.0 - update, abs=1e-12)


def test_each_trainable_parameter_once_across_modules():
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    norm = nn.LayerNorm(3)
    optimizer = make_optimizer([first, second, norm], learning_rate=1.0, weight_decay=0.1, betas=(0.8, 0.9))
    found = {group["weight_decay"]: {id(p) for p in group["params"]} for group in optimizer.param_groups}
    assert found == {0.1: {id(first.weight)}, 0.0: {id(first.bias), id(norm.weight), id(norm.bias)}}
    assert all(group["betas"] == (0.8, 0.9) for group in optimizer.param_groups)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError):
        make_optimizer(nn.Linear(1, 1).requires_grad_(False), learning_rate=1.0, weight_decay=0.0)


def _rates(kind, num_steps, warmup_fraction):
    optimizer = make_optimizer(_linear(1, 1, 0.1), learning_rate=2.0, weight_decay=0.0)
    schedule = make_schedule(optimizer, kind=kind, num_steps=num_steps, warmup_fraction=warmup_fraction)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_constant_schedule_with_warmup():
    assert _rates("constant", 6, 0.5) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    assert _rates("constant", 3, 0.0) == [2.0, 2.0, 2.0]


def test_cosine_schedule_at_hand_worked_points():
    # After one warm-up step four steps remain: cos(0), cos(π/4), cos(π/2), cos(3π/4).
    root = math.sqrt(0.5)
    assert _rates("cosine", 5, 0.2) == pytest.approx([1.0, 2.0, 1 + root, 1.0, 1 - root])
    assert min(_rates("cosine", 100, 0.1)) > 0


def test_wsd_schedule_at_hand_worked_points():
    """One step up, four at the top, the first of the decay among them, and the rest of a half cosine over four."""
    root = math.sqrt(0.5)
    assert _rates("wsd", 10, 0.1) == pytest.approx([1.0, *[2.0] * 6, 1 + root, 1.0, 1 - root])


def test_unknown_schedule():
    with pytest.raises(ValueError, match="linear"):
        _rates("linear", 3, 0.0)


def _grads(layer: nn.Linear) -> tuple[float, float]:
    assert layer.weight.grad is not None and layer.bias.grad is not None
    return layer.weight.grad.item(), layer.bias.grad.item()


def test_clipping_scales_the_global_norm():
    layer = _linear(1, 1, 0)
    layer.weight.grad = torch.full_like(layer.weight, 3.0)
    layer.bias.grad = torch.full_like(layer.bias, 4.0)
    assert clip_gradients(layer, math.inf) == pytest.approx(5.0)
    assert _grads(layer) == (3.0, 4.0)
    assert clip_gradients(layer, 1.0) == pytest.approx(5.0)
    assert _grads(layer) == pytest.approx((0.6, 0.8), abs=1e-6)
    assert clip_gradients(layer, 10.0) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_gradient_is_named(bad):
    layer = _linear(1, 1, 1.0)
    layer.bias.grad = torch.full_like(layer.bias, bad)
    with pytest.raises(NumericsError, match=r"policy: the gradient of bias is NaN or Inf at step 7"):
        clip_gradients(layer, 1.0, name="policy", step=7)


def test_finite_gradients_whose_norm_overflows():
    layer = nn.Linear(2, 1)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    with pytest.raises(NumericsError, match="overflows"):
        clip_gradients(layer, 1.0)


class LanguageModel(nn.Module):
    """Named as a Qwen3-VL names its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {
                "language_model": nn.ModuleDict(
                    {"layers": nn.ModuleList([nn.Linear(4, 6)]), "embed_tokens": nn.Embedding(5, 4)}
                ),
                "visual": nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 4)])}),
            }
        )


def test_muon_takes_the_matrices_of_the_language_layers_and_adamw_the_rest() -> None:
    module = LanguageModel()
    muon, adamw = make_muon(module, learning_rate=0.5, weight_decay=0.0, rest_learning_rate=0.1)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    taken = [[names[id(p)] for group in optimizer.param_groups for p in group["params"]] for optimizer in (muon, adamw)]
    assert taken[0] == ["model.language_model.layers.0.weight"]
    assert sorted(taken[0] + taken[1]) == sorted(names.values())
    matrix = dict(module.named_parameters())["model.language_model.layers.0.weight"]
    before = matrix.detach().clone()
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    muon.step()
    singular = torch.linalg.svdvals(before - matrix.detach()) / 0.5
    assert singular.min() > 0.6 and singular.max() < 1.4  # an orthogonal step, as far as five iterations come


@pytest.mark.parametrize("shape", [(6, 12), (12, 12), (24, 12)])
def test_muon_is_torchs_but_for_its_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = Muon([ours], lr=0.02, weight_decay=0.1), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()


def test_muon_orthogonalises_to_the_precision_of_float32() -> None:
    """Singular vectors are kept: in the basis of the matrix's own the update is diagonal."""
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ orthogonalised(matrix) @ right.T
    torch.testing.assert_close(values, torch.diag(values.diag()), atol=1e-5, rtol=0)
    assert values.diag().min() > 0.6 and values.diag().max() < 1.3


def test_muon_is_for_matrices() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0)


def test_muon_needs_language_layers() -> None:
    with pytest.raises(ValueError, match="no language layers"):
        make_muon(nn.Linear(2, 2), learning_rate=0.1, weight_decay=0.0, rest_learning_rate=0.1)
