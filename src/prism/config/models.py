"""The two models of a run: the base that becomes the policy, and the discriminator."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from prism.config.base import (
    Config,
    Count,
    NonNegative,
    OptimizerSettings,
    Positive,
    Schedule,
    contradiction,
    variant_or,
)


class PretrainConfig(OptimizerSettings):
    """Pretraining of the tiny base on the built-in world's lessons."""

    num_steps: Count = 2000
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    schedule: Schedule = "cosine"
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    weight_decay: NonNegative = 0.01
    token_budget: Count = 512
    checkpoint_every: Count = 100


class TinyBase(Config):
    """The tiny Qwen3-VL: `shipped` with the package, or made again by `pretrain` from the run's seed."""

    type: Literal["tiny"] = "tiny"
    source: Literal["shipped", "pretrain"] = "shipped"
    pretrain: PretrainConfig = PretrainConfig()


class CheckpointBase(Config):
    """Any Hugging Face Qwen3-VL directory."""

    type: Literal["checkpoint"] = "checkpoint"
    path: Path


Base = Annotated[Annotated[TinyBase, Tag("tiny")] | Annotated[CheckpointBase, Tag("checkpoint")], variant_or("tiny")]


class UpcycledDiscriminator(Config):
    """A mixture of experts upcycled from a dense Qwen3-VL: the directory `dense`, or by default the run's base.

    `noise_std` is added to the copied experts; scores are clipped to ±`score_clip` in the reward.
    """

    type: Literal["upcycle"] = "upcycle"
    dense: Path | None = None
    num_experts: Count = 4
    top_k: Count = 2
    noise_std: NonNegative = 0.01
    score_clip: Positive = 10.0

    @model_validator(mode="after")
    def _check_top_k(self) -> "UpcycledDiscriminator":
        if self.top_k > self.num_experts:
            raise contradiction("top_k", self.top_k, f"must not exceed num_experts ({self.num_experts})")
        return self


class CheckpointDiscriminator(Config):
    """A trained discriminator, ours or a released one."""

    type: Literal["checkpoint"] = "checkpoint"
    path: Path
    score_clip: Positive = 10.0


DiscriminatorConfig = Annotated[
    Annotated[UpcycledDiscriminator, Tag("upcycle")] | Annotated[CheckpointDiscriminator, Tag("checkpoint")],
    variant_or("upcycle"),
]
