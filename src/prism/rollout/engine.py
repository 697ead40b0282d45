"""What an engine in a training process offers to the stages besides sampling."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.sampling import RolloutEngine, Sampling, Stream
from prism.runtime.distributed import gather, num_processes, own_slices


class PolicyEngine(RolloutEngine, Protocol):
    """An engine in the training process that follows a policy whose weights change.

    A step is `update_weights`, `generate` as often as it takes, `sleep`, then training.
    """

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Samples from `weights` (checkpoint names and tensors, one at a time) from now on, and wakes up.

        An engine that shares the training model's memory does not look at them.
        """
        ...

    def sleep(self) -> None:
        """Frees what memory it can until the next `update_weights`."""
        ...

    def close(self) -> None:
        """Gives everything back; the engine is of no use afterwards."""
        ...


class LocalEngine(PolicyEngine, Protocol):
    """An engine that samples in its own process, and so can be served to others."""

    def sample(
        self, prompts: Sequence[Prompt], sources: Sequence[Stream], *, num_samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """What `generate` draws for prompts with these streams, whatever other processes do."""
        ...


def share_out(
    prompts: Sequence[Prompt], per_slice: int, sample: Callable[[slice], Sequence[Sequence[Rollout]]]
) -> list[RolloutGroup]:
    """Groups of rollouts for all `prompts`, in every process; each samples for some slices of `per_slice` prompts, or
    of fewer where some process would have none."""
    per_slice = max(1, min(per_slice, math.ceil(len(prompts) / num_processes())))
    drawn = [
        (piece.start + place, tuple(rollouts))
        for piece in own_slices(len(prompts), per_slice)
        for place, rollouts in enumerate(sample(piece))
    ]
    # Without the prompts, which hold the images.
    found = dict(gather(drawn))
    return [RolloutGroup(prompt, found[place]) for place, prompt in enumerate(prompts)]
