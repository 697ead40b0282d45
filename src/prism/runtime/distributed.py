"""One process, or many under torchrun that do each step together.

Every process reads the same data and draws the same batches, so all of them know all that a step looks at; each
then samples, scores and trains on its share, and sums are taken over all of them. The weights are sharded (FSDP2),
gradients are sums over processes, and the first process alone writes, but for checkpoints. What a run computes does
not depend on how many processes there are, but for the order in which floating-point sums are taken.

No process ever waits for another because of what the data hold: shares differ by one pack at most, and whoever has one
less runs another pack without effect, packs with images and packs without by themselves (`share`). A process that fails
ends, and torchrun ends the others of its machine.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from prism.models.device import own_device
from prism.models.sharding import TIMEOUT, is_sharded
from prism.runtime.launch import is_first, process_index, was_started_with_others


class _Sized(Protocol):
    def __len__(self) -> int: ...


Item = TypeVar("Item", bound=_Sized)
Value = TypeVar("Value")
Result = TypeVar("Result")


@contextmanager
def processes(*, also_alone: bool = False) -> Iterator[None]:
    """Joins the other processes that torchrun started, if it did, until the end of the block.

    Where it did not, `also_alone` makes a group of this process alone, which weights in mixed precision need.
    """
    is_alone = not was_started_with_others()
    if dist.is_initialized() or (is_alone and not also_alone):
        yield
        return
    # Numbers and objects are summed and gathered on the CPU, wherever the models are.
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(own_device())
        backend = "cpu:gloo,cuda:nccl"
    if is_alone:
        # Documented, but not in the module's __all__.
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=TIMEOUT)
    yield
    # Not after an error: leaving in good order would mean to wait for the others, who may wait for this one.
    wait_for_all()
    dist.destroy_process_group()


def num_processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first(function: Callable[[], Value]) -> Value:
    """What `function` returns in the first process, which alone calls it; the others wait for it."""
    if num_processes() == 1:
        return function()
    found: list[Any] = [function() if is_first() else None]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def wait_for_all() -> None:
    if num_processes() > 1:
        dist.barrier()


def gather(values: Sequence[Value]) -> list[Value]:
    """The values of all processes, those of the first one first."""
    if num_processes() == 1:
        return list(values)
    parts: list[Any] = [None] * num_processes()
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def largest(value: int) -> int:
    """The largest of the processes' values."""
    return max(gather([value]))


def add_up(values: Tensor) -> Tensor:
    """The sum over processes, everywhere."""
    if num_processes() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def add_up_number(value: float) -> float:
    return float(add_up(torch.tensor(value, dtype=torch.float64)))


def add_up_numbers(values: dict[str, float]) -> dict[str, float]:
    """`add_up` for numbers with names."""
    sums = add_up(torch.tensor(list(values.values()), dtype=torch.float64)).tolist()
    return dict(zip(values, sums, strict=True))


@dataclass(frozen=True, slots=True)
class Part(Generic[Item]):
    """One item of a share, and its place among all items. `weight` is 0 for one that only keeps step with the other
    processes: it is to be run, forward and backward, and what comes of it to be multiplied by `weight`."""

    index: int
    item: Item
    weight: float

    @property
    def counts(self) -> bool:
        return self.weight > 0


def share(items: Sequence[Item], kind: Callable[[Item], bool] = lambda item: True) -> list[Part[Item]]:
    """What this process does of `items`: as many parts as every other process, of about as much length in all.

    At any place of their shares all processes have items of the same `kind`: what differs in which weights it uses must
    meet the same in the other processes, where weights are gathered and gradients summed.
    """
    if num_processes() == 1:
        return [Part(place, item, 1.0) for place, item in enumerate(items)]
    kinds = [[place for place, item in enumerate(items) if kind(item) is wanted] for wanted in (True, False)]
    return [part for places in kinds for part in _deal(items, places)]


def _deal(items: Sequence[Item], places: Sequence[int]) -> Iterator[Part[Item]]:
    """Longest first, to and fro over the processes: each gets one of as many items as there are processes, all about as
    long. Whoever would get none of the last ones gets the shortest, without weight."""
    size, index = num_processes(), process_index()
    order = sorted(places, key=lambda place: (-len(items[place]), place))
    for number, start in enumerate(range(0, len(order), size)):
        row = order[start : start + size]
        place = index if number % 2 == 0 else size - 1 - index
        is_own = place < len(row)
        chosen = row[place] if is_own else order[-1]
        yield Part(chosen, items[chosen], 1.0 if is_own else 0.0)


def spread_out(function: Callable[[Value], Result], values: Sequence[Value]) -> list[Result]:
    """`function` of every value, each computed by one process: what depends on the clock, as a verdict that may time
    out, is then the same for all."""
    if num_processes() == 1:
        return [function(value) for value in values]
    own = filter(is_own_turn, range(len(values)))
    found = dict(gather([(place, function(values[place])) for place in own]))
    return [found[place] for place in range(len(values))]


def is_own_turn(place: int) -> bool:
    """Whether this process is the one that has the item at `place`, where each takes its turn."""
    return place % num_processes() == process_index()


def own_slices(count: int, per_slice: int) -> list[slice]:
    """Which of `count` items, cut into slices of `per_slice`, are this process's: whole slices, so that what is
    computed slice by slice is the same whoever computes it."""
    slices = [slice(start, min(start + per_slice, count)) for start in range(0, count, per_slice)]
    return slices[process_index() :: num_processes()]


def add_up_gradients(module: nn.Module) -> None:
    """Sums the gradients over processes where the weights are whole; sharded ones are summed by the backward pass."""
    if num_processes() > 1 and not is_sharded(module):
        for parameter in module.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
