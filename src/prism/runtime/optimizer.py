"""AdamW (for pretraining also Muon), the learning-rate schedule and gradient clipping, the same for every stage."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from prism.errors import NumericsError
from prism.models.sharding import whole
from prism.runtime.distributed import add_up_gradients
from prism.runtime.muon import Muon

DECAY_SHARE = 0.4
"""Of the steps of a `wsd` schedule."""


def make_optimizer(
    modules: nn.Module | Iterable[nn.Module],
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> AdamW:
    """AdamW over the trainable parameters; norms and biases (fewer than two dimensions) do not decay."""
    modules = [modules] if isinstance(modules, nn.Module) else list(modules)
    parameters = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}.values()
    if not parameters:
        raise ValueError("no parameter requires a gradient")
    return AdamW(_decay_groups(parameters, weight_decay), lr=learning_rate, betas=betas)


def _decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_muon(
    module: nn.Module, *, learning_rate: float, weight_decay: float, rest_learning_rate: float
) -> tuple[Muon, AdamW]:
    """Muon for the matrices inside the language layers and AdamW for all else: embeddings, norms, vision.

    `benchmarks/base_optimizer.py` compares it with AdamW alone on the built-in world's reasoning lessons.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if ".language_model.layers." in name and p.ndim == 2]
    if not matrices:
        raise ValueError("the module has no language layers with matrices")
    taken = {id(p) for p in matrices}
    groups = _decay_groups([p for _, p in named if id(p) not in taken], weight_decay)
    return Muon(matrices, lr=learning_rate, weight_decay=weight_decay), AdamW(groups, lr=rest_learning_rate)


def make_schedule(
    optimizer: Optimizer, *, kind: Literal["constant", "cosine", "wsd"], num_steps: int, warmup_fraction: float = 0.0
) -> LambdaLR:
    """Linear warm-up over ceil(num_steps · warmup_fraction) steps, then constant, or a half cosine towards 0; with
    `wsd` (warm-up, stable, decay) constant but for a half cosine over the last `DECAY_SHARE` of the steps.

    Neither the first nor the last of the `num_steps` has learning rate 0: no step is wasted.
    """
    warmup = math.ceil(num_steps * warmup_fraction)
    start = max(warmup, num_steps - round(DECAY_SHARE * num_steps)) if kind == "wsd" else warmup

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if kind == "constant" or step < start:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - start) / max(1, num_steps - start))))

    if kind not in ("constant", "cosine", "wsd"):
        raise ValueError(f"unknown schedule {kind!r}")
    return LambdaLR(optimizer, factor)


def clip_gradients(module: nn.Module, max_norm: float, *, name: str = "model", step: int | None = None) -> float:
    """Scale all gradients, summed over processes, so that their global norm is at most `max_norm`; return the norm
    before.

    Once per backward pass. NumericsError, naming a parameter and, if given, the step, when a gradient is NaN or Inf.
    With `max_norm=math.inf` gradients are only measured.
    """
    add_up_gradients(module)
    parameters = [p for p in module.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    found = float(whole(norm))
    if not math.isfinite(found):
        raise NumericsError(_describe(module, name, step))
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return found


def descend(
    module: nn.Module, optimizers: Optimizer | Sequence[Optimizer], max_norm: float, *, name: str, step: int
) -> float:
    """One step on the gradients that are there, clipped together as by `clip_gradients`, and none are left;
    returns their norm. Several optimizers share the parameters among them."""
    norm = clip_gradients(module, max_norm, name=name, step=step)
    for optimizer in [optimizers] if isinstance(optimizers, Optimizer) else optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return norm


def _describe(module: nn.Module, name: str, step: int | None) -> str:
    when = "" if step is None else f" at step {step}"
    for parameter_name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(whole(parameter.grad)).all():
            return f"{name}: the gradient of {parameter_name} is NaN or Inf{when}; lower the learning rate"
    return f"{name}: the gradient norm overflows{when}; lower the learning rate"
