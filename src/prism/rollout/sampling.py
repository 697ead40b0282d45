"""What is asked of every engine, in this process or behind a server. Needs no torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prism.records import Prompt, RolloutGroup


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


def streams(prompts: Sequence[Prompt], seed: int) -> list[Stream]:
    """One stream per prompt; a prompt that occurs again in the same call must not repeat its samples."""
    occurrences: Counter[str] = Counter()
    found: list[Stream] = []
    for prompt in prompts:
        found.append((seed, prompt.id, occurrences[prompt.id]))
        occurrences[prompt.id] += 1
    return found
