"""The plan of a recipe: for every stage what each phase of a step needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism.config import Hardware, Recipe

GIB = 2**30
PARTS = ("weights", "optimizer states", "gradients", "gathered weights", "activations", "logits", "rollouts")
"""What memory goes to: `rollouts` is a copy of the policy, its keys and values, and logits while sampling."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What is done `times` times in a stage. `memory` is in bytes of one rank by `PARTS`, `seconds` those of one time;
    `tokens` and `flops` are those of all ranks together, `waiting` is the share of its packs' tokens that a rank runs
    only to keep step with others."""

    name: str
    memory: Mapping[str, float]
    tokens: int
    flops: float
    seconds: float
    times: float
    waiting: float = 0.0

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """`num_steps` counts optimizer steps, of the evaluation the models that are evaluated."""

    name: str
    start: str
    num_steps: int
    phases: Sequence[Phase]

    @property
    def peak(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def seconds(self) -> float:
        return sum(phase.seconds * phase.times for phase in self.phases)

    @property
    def step_seconds(self) -> float:
        return self.seconds / max(1, self.num_steps)

    @property
    def flops(self) -> float:
        return sum(phase.flops * phase.times for phase in self.phases)

    @property
    def tokens(self) -> float:
        return sum(phase.tokens * phase.times for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Estimate:
    """All stages of one seed, and what the numbers rest on, a line each."""

    recipe: Recipe
    hardware: Hardware
    stages: Sequence[StageEstimate]
    basis: Sequence[str]

    @property
    def peak(self) -> StageEstimate:
        return max(self.stages, key=lambda stage: stage.peak.bytes)

    @property
    def fits(self) -> bool:
        return self.peak.peak.bytes <= self.hardware.usable_bytes

    @property
    def seconds(self) -> float:
        """Of all seeds."""
        return sum(stage.seconds for stage in self.stages) * len(self.recipe.seeds)

    def cost(self, seconds: float) -> float | None:
        """In the hardware's currency; None where it has no price."""
        price = self.hardware.price
        return None if price is None else price * self.hardware.ranks * seconds / 3600
