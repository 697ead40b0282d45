"""Shape and dtype checks shared by the objectives: a mismatch names the argument at fault."""

from typing import Any

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def require_floating(name: str, tensor: Tensor, *, ndim: int | None = None) -> None:
    """ValueError unless `tensor` is a floating-point tensor (with `ndim` dimensions, where given)."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {tensor.dtype}")
    if ndim is not None and tensor.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), not shape {tuple(tensor.shape)}")


def require_shape(name: str, tensor: Tensor, reference_name: str, reference: Tensor) -> None:
    """ValueError unless `tensor` has exactly the shape of `reference`: nothing here broadcasts."""
    if tensor.shape != reference.shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} but {reference_name} has {tuple(reference.shape)}; they must agree"
        )


def require_like(name: str, tensor: Tensor, reference_name: str, reference: Tensor) -> None:
    """ValueError unless `tensor` has the shape and the dtype of `reference`."""
    require_shape(name, tensor, reference_name, reference)
    if tensor.dtype != reference.dtype:
        raise ValueError(f"{name} is {tensor.dtype} but {reference_name} is {reference.dtype}; convert one of them")


def require_boolean(name: str, tensor: Tensor, reference_name: str, reference: Tensor) -> None:
    """ValueError unless `tensor` is boolean and has the shape of `reference`."""
    if tensor.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean, not {tensor.dtype}")
    require_shape(name, tensor, reference_name, reference)


def require_group_ids(group_ids: Tensor, reference_name: str, reference: Tensor) -> None:
    """ValueError unless `group_ids` holds one integer per row of the 1-D `reference`."""
    if group_ids.dtype not in _INTEGERS:
        raise ValueError(f"group_ids must be integers, not {group_ids.dtype}")
    require_shape("group_ids", group_ids, reference_name, reference)


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
