"""What every rollout engine offers to the stages."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from prism.records import Prompt, Rollout, RolloutGroup
from prism.runtime.distributed import gather, own_slices


@dataclass(frozen=True, slots=True)
class Sampling:
    """`temperature` 0 is greedy decoding; `max_tokens` counts the end token."""

    temperature: float
    max_tokens: int


Stream = tuple[int | str, ...]
"""What the random numbers of one prompt's samples are derived from."""


class RolloutEngine(Protocol):
    """Samples completions from the current weights of the policy.

    The sample with index i of a prompt is decided by (`seed`, prompt id, i) and the weights alone,
    whatever else is in the batch, up to round-off in the logits.
    """

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]: ...


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


def streams(prompts: Sequence[Prompt], seed: int) -> list[Stream]:
    """One stream per prompt; a prompt that occurs again in the same call must not repeat its samples."""
    occurrences: Counter[str] = Counter()
    found: list[Stream] = []
    for prompt in prompts:
        found.append((seed, prompt.id, occurrences[prompt.id]))
        occurrences[prompt.id] += 1
    return found


def share_out(
    prompts: Sequence[Prompt], per_slice: int, sample: Callable[[slice], Sequence[Sequence[Rollout]]]
) -> list[RolloutGroup]:
    """Groups of rollouts for all `prompts`, in every process; each samples for some slices of `per_slice` prompts."""
    drawn = [
        (piece.start + place, tuple(rollouts))
        for piece in own_slices(len(prompts), per_slice)
        for place, rollouts in enumerate(sample(piece))
    ]
    # Without the prompts, which hold the images.
    found = dict(gather(drawn))
    return [RolloutGroup(prompt, found[place]) for place, prompt in enumerate(prompts)]
