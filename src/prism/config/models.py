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
    """Pretraining of the tiny base on the built-in world's lessons: Muon for the language layers' matrices at
    `muon_learning_rate`, AdamW at `learning_rate` for the rest."""

    num_steps: Count = 7000
    batch_size: Count = 16
    learning_rate: Positive = 1e-3
    muon_learning_rate: Positive = 0.01
    schedule: Schedule = "wsd"
    warmup_fraction: float = Field(default=0.02, ge=0, le=1)
    weight_decay: NonNegative = 0.01
    token_budget: Count = 768
    checkpoint_every: Count = 100


class TinyBase(Config):
    """The tiny Qwen3-VL: `shipped` with the package, made again by `pretrain` from the run's seed, or `kept` in `path`,
    in which `{seed}` stands for the run's seed: each may have a base of its own that took an hour to make, once."""

    type: Literal["tiny"] = "tiny"
    source: Literal["shipped", "pretrain", "kept"] = "shipped"
    path: Path | None = None
    pretrain: PretrainConfig = PretrainConfig()

    @model_validator(mode="after")
    def _check_path(self) -> "TinyBase":
        if (self.path is not None) != (self.source == "kept"):
            reason = 'says where the base is, of source "kept" and of no other'
            raise contradiction("path", None if self.path is None else str(self.path), reason)
        return self

    def kept_directory(self, seed: int) -> Path | None:
        """Of the base that a run with `seed` starts from; None unless it is kept."""
        return None if self.path is None else Path(str(self.path).replace("{seed}", str(seed)))


class CheckpointBase(Config):
    """Any Hugging Face Qwen3-VL directory."""

    type: Literal["checkpoint"] = "checkpoint"
    path: Path


Base = Annotated[Annotated[TinyBase, Tag("tiny")] | Annotated[CheckpointBase, Tag("checkpoint")], variant_or("tiny")]


class DiscriminatorSettings(Config):
    """A discriminator made from the dense Qwen3-VL in `dense` (by default the run's base), or the trained one
    in `checkpoint`, ours or a released one. Scores are clipped to ±`score_clip` in the reward.

    `noise_std` is added to copied weights, which would otherwise stay alike.
    """

    dense: Path | None = None
    checkpoint: Path | None = None
    noise_std: NonNegative = 0.01
    score_clip: Positive = 10.0

    @model_validator(mode="after")
    def _check_source(self) -> "DiscriminatorSettings":
        if self.dense is not None and self.checkpoint is not None:
            raise contradiction("checkpoint", str(self.checkpoint), "is trained already: leave out dense")
        return self


class ExpertSettings(DiscriminatorSettings):
    """A mixture of `num_experts` experts per layer, upcycled; a token goes to `top_k` of them."""

    num_experts: Count = 4
    top_k: Count = 2

    @model_validator(mode="after")
    def _check_top_k(self) -> "ExpertSettings":
        if self.top_k > self.num_experts:
            raise contradiction("top_k", self.top_k, f"must not exceed num_experts ({self.num_experts})")
        return self


class MoeDiscriminator(ExpertSettings):
    """The paper's: learned routing, one head, a score for the description and one for the reasoning."""

    type: Literal["moe"] = "moe"


class DedicatedDiscriminator(ExpertSettings):
    """Half of the experts and a head for the description, the other half and a head for the reasoning."""

    type: Literal["dedicated"] = "dedicated"

    @model_validator(mode="after")
    def _check_halves(self) -> "DedicatedDiscriminator":
        if self.num_experts % 2 or self.num_experts < 2 * self.top_k:
            reason = f"must be even and at least twice top_k ({self.top_k}): each view has half of the experts"
            raise contradiction("num_experts", self.num_experts, reason)
        return self


class DenseDiscriminator(DiscriminatorSettings):
    """No experts; MLPs `width` times as wide as the dense model's: 2 is the active compute of two experts."""

    type: Literal["dense"] = "dense"
    width: Count = 2


class TextOnlyDiscriminator(ExpertSettings):
    """The mixture of experts without the images."""

    type: Literal["text-only"] = "text-only"


class WholeResponseDiscriminator(ExpertSettings):
    """The mixture of experts with one score for the whole response (GAD, arXiv 2511.10643)."""

    type: Literal["whole-response"] = "whole-response"


DiscriminatorConfig = Annotated[
    Annotated[MoeDiscriminator, Tag("moe")]
    | Annotated[DedicatedDiscriminator, Tag("dedicated")]
    | Annotated[DenseDiscriminator, Tag("dense")]
    | Annotated[TextOnlyDiscriminator, Tag("text-only")]
    | Annotated[WholeResponseDiscriminator, Tag("whole-response")],
    variant_or("moe"),
]
