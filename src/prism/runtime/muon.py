"""Muon in float32."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steepest at 0, so that five steps bring small singular values near 1."""


class Muon(Optimizer):
    """Nesterov momentum whose update is orthogonalised (Jordan et al., 2024), for matrices only; with decoupled weight
    decay.

    `torch.optim.Muon` but for the orthogonalisation, which is computed in the gradient's precision. There it is in
    bfloat16, which GPUs are made for: a CPU without bfloat16 instructions takes twenty times as long.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        """ValueError for a parameter that is no matrix."""
        parameters = list(parameters)
        if shapes := [tuple(parameter.shape) for parameter in parameters if parameter.ndim != 2]:
            raise ValueError(f"Muon is for matrices, not for a parameter of shape {shapes[0]}")
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update. ValueError for a closure: gradients are taken once."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        update = orthogonalised(gradient.lerp(buffer, momentum))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        rows, columns = parameter.shape
        parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonalised(
    matrix: Float[Tensor, "rows columns"], num_steps: int = 5, eps: float = 1e-7
) -> Float[Tensor, "rows columns"]:
    """`matrix` with singular values brought near 1 (0.7 to 1.2 but for the smallest) by Newton–Schulz steps."""
    first, third, fifth = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if is_tall else matrix
    x = x / x.norm().clamp(min=eps)  # No singular value is above 1.
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.mT if is_tall else x
