"""Models whose weights are spread over processes (FSDP2), and tensors of theirs."""

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from prism.config import Precision
from prism.errors import ConfigError
from prism.models.device import own_device
from prism.packing.forward import SHARDED_CALL

TIMEOUT = timedelta(hours=4)
"""Long, since one process may write a large model, or data, while the others wait. It is the last thing to end a
run whose process died: before it come torchrun, on the same machine, closed connections, and srun."""

Value = TypeVar("Value")
Module = TypeVar("Module", bound=nn.Module)


def shard(module: Module, precision: Precision = "float32", *, fsdp_size: int | None = None) -> Module:
    """`module` on the devices of the default group's processes, its weights spread over them layer by layer.

    Where `fsdp_size` is less than the number of processes, each so many that follow each other have a copy of the
    weights between them (HSDP).

    In bfloat16 a layer is computed with rounded weights, which exist while it runs; the weights that train and their
    gradients stay in float32. That needs a group even of a single process; without one, `module` is moved to the
    device of this process as it is.

    The layers are those that transformers says are not to be split. Code that reads weights other than in a
    module's `forward` goes through `packing.forward` or takes the `whole` of a tensor.
    """
    device = own_device()
    if not dist.is_initialized() or (dist.get_world_size() == 1 and precision == "float32"):
        return module.to(device)
    mesh = _mesh(device.type, fsdp_size, dist.group.WORLD)
    rounded = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = rounded if precision == "bfloat16" else MixedPrecisionPolicy()
    layers = {name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    for part in list(module.modules()):
        if type(part).__name__ in layers:
            fully_shard(part, mesh=mesh, mp_policy=policy)
    # Resharded even at the top, so that parameters are always the shards wherever they are looked at.
    fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            # Losses are divided by counts over all processes already: their gradients are added, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    setattr(module, SHARDED_CALL, MethodType(_call, module))
    register_fsdp_forward_method(module, SHARDED_CALL)
    return module


@lru_cache(maxsize=1)
def _mesh(device_type: str, fsdp_size: int | None, default_group: object) -> DeviceMesh:
    """One for all models of a `default_group`: groups inside it take memory of their own on a GPU."""
    size = dist.get_world_size()
    check_fsdp_size(fsdp_size, size)
    if fsdp_size is None or fsdp_size == size:
        return init_device_mesh(device_type, (size,))
    ranks = torch.arange(size).view(-1, fsdp_size)
    # Groups of their own, since those that a mesh makes would give up long before the default one.
    groups: list[Any] = [
        dist.new_subgroups_by_enumeration(lines.tolist(), timeout=TIMEOUT)[0] for lines in (ranks.T, ranks)
    ]
    return DeviceMesh.from_group(groups, device_type, mesh=ranks, mesh_dim_names=("replicate", "shard"))


def check_fsdp_size(fsdp_size: int | None, num_processes: int) -> None:
    """ConfigError unless the processes can be divided into groups of `fsdp_size`."""
    if fsdp_size is not None and num_processes % fsdp_size:
        divisors = [str(size) for size in range(1, num_processes + 1) if num_processes % size == 0]
        raise ConfigError(
            f"fsdp_size: {fsdp_size} does not divide the number of processes, {num_processes}: "
            f"give one of {', '.join(divisors)}, or leave it out"
        )


def _call(module: nn.Module, function: Callable[..., Value], *arguments: Any) -> Value:
    return function(module, *arguments)


def is_sharded(module: nn.Module) -> bool:
    return isinstance(module, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded. Every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(module: nn.Module, *, is_kept: bool) -> dict[str, Tensor] | None:
    """All weights by name, tied ones one and the same tensor; None of a module that is not sharded, which has them.

    Every process has to ask for them; those that do not keep them get an empty dictionary.
    """
    if not is_sharded(module):
        return None
    gathered: dict[int, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in gathered:
            found = whole(tensor.detach())
            gathered[id(tensor)] = found.cpu() if is_kept else found.new_empty(0)
        if is_kept:
            kept[name] = gathered[id(tensor)]
    return kept


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
