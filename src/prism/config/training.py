"""Supervised fine-tuning, discriminator warm-up and alignment."""

import math
from typing import Annotated, Literal

from pydantic import Tag, model_validator

from prism.config.base import (
    Aggregation,
    ClipRange,
    Config,
    Count,
    Fraction,
    NonNegative,
    OptimizerSettings,
    Positive,
    Schedule,
    check_group_size,
    check_token_budget,
    contradiction,
    variant_or,
)
from prism.config.control import ControlConfig


class SftConfig(OptimizerSettings):
    """Supervised fine-tuning on demonstrations; its length is either `num_steps` or `num_epochs`.

    `batch_size` counts demonstrations per step, `token_budget` the packed tokens of one forward pass.
    """

    num_steps: Count | None = None
    num_epochs: Positive | None = None
    batch_size: Count = 16
    learning_rate: Positive = 1e-5
    schedule: Schedule = "cosine"
    warmup_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.0
    max_response_tokens: Count = 8192
    token_budget: Count = 16384
    checkpoint_every: Count = 100

    @model_validator(mode="after")
    def _check(self) -> "SftConfig":
        if (self.num_steps is None) == (self.num_epochs is None):
            raise contradiction("num_steps", self.num_steps, "give either num_steps or num_epochs, not both or neither")
        check_token_budget(self.token_budget, self.max_response_tokens)
        return self


SAMPLES_PER_PROMPT = 2
"""Rollouts that the warm-up draws for a pair; the first valid one is the student's."""


class WarmupConfig(OptimizerSettings):
    """Discriminator warm-up on (teacher, SFT rollout) pairs, one per branch and prompt.

    `batch_size` counts prompts per step, and the `num_steps` steps go `num_epochs` times over their pairs: more epochs
    need fewer rollouts. `num_heldout` prompts are set aside to measure pair accuracy every `evaluate_every` steps;
    `balance_coefficient` weighs the experts' load-balancing loss.
    """

    num_steps: Count
    num_epochs: Count = 1
    batch_size: Count = 16
    learning_rate: Positive = 1e-5
    schedule: Schedule = "cosine"
    warmup_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.05
    balance_coefficient: NonNegative = 0.01
    num_heldout: Count = 32
    evaluate_every: Count = 4
    max_response_tokens: Count = 6144
    temperature: Positive = 1.0
    token_budget: Count = 16384
    checkpoint_every: Count = 100

    @property
    def num_prompts(self) -> int:
        """Prompts that are sampled, if the data have so many."""
        return self.num_heldout + math.ceil(self.num_steps * self.batch_size / self.num_epochs)

    @model_validator(mode="after")
    def _check(self) -> "WarmupConfig":
        check_token_budget(self.token_budget, self.max_response_tokens)
        return self


class BranchAdvantage(Config):
    """Each branch is normalised within its group, then mixed; invalid rollouts lose `format_penalty` more."""

    type: Literal["branch"] = "branch"
    alpha: Fraction = 0.5
    format_penalty: NonNegative = 1.5
    eps: Positive = 1e-6


class MixedAdvantage(Config):
    """The branches are mixed by `alpha` (paper Eq. 1), then normalised within the group (Eq. 3)."""

    type: Literal["mixed"] = "mixed"
    alpha: Fraction = 0.5
    eps: Positive = 1e-6


AlignmentAdvantage = Annotated[
    Annotated[BranchAdvantage, Tag("branch")] | Annotated[MixedAdvantage, Tag("mixed")], variant_or("branch")
]
"""The discriminator's own advantage, which the hybrids below combine with the verdict on the answer."""


class AddedAdvantage(Config):
    """`base` plus `weight` times the accuracy normalised within the group; unverifiable answers keep `base` alone."""

    type: Literal["added"] = "added"
    base: AlignmentAdvantage = BranchAdvantage()
    weight: Positive = 1.0
    eps: Positive = 1e-6


class GatedAdvantage(Config):
    """`base`, of which only rollouts with a right answer keep a positive value; negative ones stay."""

    type: Literal["gated"] = "gated"
    base: AlignmentAdvantage = BranchAdvantage()


class SignAwareAdvantage(Config):
    """`base` cut at 0: never negative for a right answer, never positive for a wrong one."""

    type: Literal["sign-aware"] = "sign-aware"
    base: AlignmentAdvantage = BranchAdvantage()


Advantage = Annotated[
    Annotated[BranchAdvantage, Tag("branch")]
    | Annotated[MixedAdvantage, Tag("mixed")]
    | Annotated[AddedAdvantage, Tag("added")]
    | Annotated[GatedAdvantage, Tag("gated")]
    | Annotated[SignAwareAdvantage, Tag("sign-aware")],
    variant_or("branch"),
]


class KlConfig(Config):
    """A KL term that ties the policy to the policy alignment started from.

    k1 estimates the same, but its gradient in the policy's log-probabilities is 1 whatever the reference: no term.
    """

    coefficient: Positive
    kind: Literal["k2", "k3"] = "k3"


class AlignConfig(Config):
    """The adversarial game: each step samples `prompts_per_step` × `group_size` rollouts and updates both models.

    There is no KL term unless `kl` is given: anchoring to SFT contradicts repairing SFT's drift.
    `balance_coefficient` weighs the experts' load-balancing loss during the game, which the paper leaves out.
    `length_correction` takes out of the scores what a line in a rollout's length explains of them within its group.
    `control` watches the game, reacts where it leaves the band and stops it where it has failed; without it every
    step is the paper's.
    """

    num_steps: Count
    prompts_per_step: Count = 4
    group_size: Count = 16
    max_response_tokens: Count = 6144
    temperature: Positive = 1.0
    policy_learning_rate: Positive = 1e-6
    discriminator_learning_rate: Positive = 1e-6
    weight_decay: NonNegative = 0.01
    max_grad_norm: Positive = 1.0
    advantage: Advantage = BranchAdvantage()
    score_regularization: NonNegative = 0.001
    balance_coefficient: NonNegative = 0.0
    clip_low: ClipRange = 0.2
    clip_high: Positive = 0.2
    aggregation: Aggregation = "token-mean"
    kl: KlConfig | None = None
    length_correction: bool = False
    control: ControlConfig | None = None
    token_budget: Count = 16384
    checkpoint_every: Count = 10

    @model_validator(mode="after")
    def _check(self) -> "AlignConfig":
        check_group_size(self.group_size)
        check_token_budget(self.token_budget, self.max_response_tokens)
        return self
