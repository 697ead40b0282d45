"""What every rollout engine offers to the stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prism.records import Prompt, RolloutGroup


@dataclass(frozen=True, slots=True)
class Sampling:
    """`temperature` 0 is greedy decoding; `max_tokens` counts the end token."""

    temperature: float
    max_tokens: int


class RolloutEngine(Protocol):
    """Samples completions from the current weights of the policy.

    The sample with index i of a prompt is decided by (`seed`, prompt id, i) and the weights alone,
    whatever else is in the batch, up to round-off in the logits.
    """

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]: ...
