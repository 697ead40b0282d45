"""Numbers of a step: every one finite, or an error that names it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prism.errors import NumericsError


def check_finite(name: str, value: float | Tensor, step: int) -> None:
    """Raise NumericsError naming the quantity and the step unless every number in `value` is finite."""
    if isinstance(value, Tensor):
        num_bad = int((~torch.isfinite(value)).sum())
        if num_bad:
            found = str(value.item()) if value.numel() == 1 else f"not finite in {num_bad} of {value.numel()} places"
            raise NumericsError(f"{name} is {found} at step {step}; {_ADVICE}")
    elif not math.isfinite(value):
        raise NumericsError(f"{name} is {value} at step {step}; {_ADVICE}")


_ADVICE = "lower the learning rate or inspect this step's samples"


def metric_row(step: int, values: Mapping[str, float | Tensor | None], stage: str) -> dict[str, Any]:
    """One metrics line. None stays null (nothing was measured); NaN and Inf raise NumericsError."""
    row: dict[str, Any] = {"step": step}
    for name, value in values.items():
        if value is not None:
            check_finite(f"{stage}: {name}", value, step)
            value = value.item() if isinstance(value, Tensor) else value
            value = int(value) if isinstance(value, int) else float(value)
        row[name] = value
    return row
