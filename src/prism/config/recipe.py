"""The recipe: everything one run is made of, and the checks that reach across its parts."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from prism.config.audit import AuditConfig
from prism.config.base import Config, Count, PathSafeName, Positive, Precision, contradiction
from prism.config.data import Data, FilesData, WorldData
from prism.config.lora import LoraConfig
from prism.config.models import Base, DiscriminatorConfig, MoeDiscriminator, TinyBase
from prism.config.rlvr import RlvrConfig
from prism.config.rollout import RolloutConfig, TransformersRollout
from prism.config.training import AlignConfig, SftConfig, WarmupConfig
from prism.config.typical import TypicalConfig


def _check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("must name at least one seed, and each once")
    return seeds


Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[tuple[Seed, ...], AfterValidator(_check_seeds)]


class EvaluationConfig(Config):
    """Evaluation of every stage's model on the test set: once greedily, `num_samples` times sampled.

    `limit` keeps only the first so many items of each benchmark.
    """

    num_samples: Count = 4
    temperature: Positive = 1.0
    max_response_tokens: Count = 8192
    batch_size: Count = 64
    limit: Count | None = None


class Recipe(Config):
    """One run. A stage without a table is left out; the stages after it start from the one before it.

    Each of `seeds` runs the whole pipeline, from the data on, in a directory of its own. `output` is
    the run directory (`runs/<name>` by default); paths are relative to the working directory.
    `max_pixels` scales larger images down to as many, in place of what the base's processor says: a photo of twelve
    million pixels has some 12,000 tokens otherwise, and a row of more than `max_prompt_tokens` is rejected.
    `threads` is PyTorch's thread count, by default the program's choice. `precision` is that of the models' layers;
    weights that train, gradients and optimizer states are float32 in any case. `attention` over packed sequences is
    one call for each branch (sdpa) or one with a block mask (flex, for GPUs). `activation_checkpointing` computes the
    inside of every layer again in the backward pass: less memory for a third more work, and the same results. It is
    not for the pretraining of the tiny base. `fsdp_size` processes have one copy of the weights between them, by
    default all; it must divide their number. Several copies sum their gradients, and results do not depend on it but
    for rounding. `second_sft` goes on with SFT, on the demonstrations that alignment would have: the control that tells
    what a game is worth beyond the data that it is played on. `plan` is read by `prism plan` alone.
    """

    name: PathSafeName
    seeds: Seeds = (0,)
    output: Path | None = None
    threads: Count | None = None
    precision: Precision = "float32"
    attention: Literal["sdpa", "flex"] = "sdpa"
    activation_checkpointing: bool = False
    fsdp_size: Count | None = None
    max_prompt_tokens: Count = 2048
    max_pixels: Count | None = None
    data: Data
    base: Base
    discriminator: DiscriminatorConfig = MoeDiscriminator()
    rollout: RolloutConfig = TransformersRollout()
    lora: LoraConfig | None = None
    sft: SftConfig | None = None
    second_sft: SftConfig | None = None
    warmup: WarmupConfig | None = None
    audit: AuditConfig | None = None
    align: AlignConfig | None = None
    rlvr: RlvrConfig | None = None
    evaluation: EvaluationConfig | None = None
    plan: TypicalConfig | None = None

    @property
    def run_directory(self) -> Path:
        return self.output if self.output is not None else Path("runs") / self.name

    @property
    def on_alignment(self) -> Config | None:
        """The first of the stages that read the alignment data; None where none does."""
        return self.second_sft or self.warmup or self.align

    def seed_directory(self, seed: int) -> Path:
        return self.run_directory / f"seed-{seed}"

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        self._check_token_budgets()
        if isinstance(self.data, FilesData):
            self._check_files(self.data)
        else:
            self._check_world(self.data)
        if self.rlvr and self.rlvr.baselines and not self.align:
            reason = "a matched-budget baseline needs an [align] stage to match; leave it out"
            raise contradiction("rlvr.baselines", list(self.rlvr.baselines), reason)
        if self.audit and not (self.warmup or self.align):
            raise contradiction("audit", None, "there is no warmup or align stage whose data could be audited")
        if self.audit and self.audit.every:
            self._check_game_audits(self.audit.every)
        return self

    def _check_game_audits(self, every: int) -> None:
        if self.align is None:
            raise contradiction("audit.every", every, "there is no [align] stage whose steps could be audited")
        if every > self.align.num_steps:
            reason = f"must not exceed align.num_steps ({self.align.num_steps}), else no step is audited"
            raise contradiction("audit.every", every, reason)

    def _check_token_budgets(self) -> None:
        """A whole prompt and a whole response must fit in one forward pass, for neither is ever cut there."""
        for stage in ("sft", "second_sft", "warmup", "align", "rlvr"):
            config = getattr(self, stage)
            if config is None:
                continue
            needed = self.max_prompt_tokens + config.max_response_tokens
            if config.token_budget < needed:
                reason = (
                    f"must be at least max_prompt_tokens + {stage}.max_response_tokens"
                    f" ({self.max_prompt_tokens} + {config.max_response_tokens} = {needed})"
                )
                raise contradiction(f"{stage}.token_budget", config.token_budget, reason)

    def _check_files(self, data: FilesData) -> None:
        if isinstance(self.base, TinyBase) and self.base.source == "pretrain":
            raise contradiction(
                "base.source", "pretrain", 'the tiny base is pretrained on the built-in world: data.type "world"'
            )
        needs = {"sft": self.sft, "alignment": self.on_alignment, "rl": self.rlvr, "test": self.evaluation}
        for field, stage in needs.items():
            if stage is not None and not getattr(data, field):
                tables = {"alignment": "second_sft, warmup or align", "rl": "rlvr", "test": "evaluation"}
                reason = f"the recipe's {tables.get(field, field)} stage reads it: name a file"
                raise contradiction(f"data.{field}", getattr(data, field), reason)

    def _check_world(self, data: WorldData) -> None:
        """No step may want more prompts than the world is asked to make."""
        if self.sft and self.sft.batch_size > data.num_demonstrations:
            reason = f"must not exceed data.public + data.curated ({data.num_demonstrations})"
            raise contradiction("sft.batch_size", self.sft.batch_size, reason)
        if self.second_sft and self.second_sft.batch_size > data.alignment:
            reason = f"must not exceed data.alignment ({data.alignment})"
            raise contradiction("second_sft.batch_size", self.second_sft.batch_size, reason)
        if self.warmup and self.warmup.num_heldout + self.warmup.batch_size > data.alignment:
            reason = f"batch_size and num_heldout together must not exceed data.alignment ({data.alignment})"
            raise contradiction("warmup.num_heldout", self.warmup.num_heldout, reason)
        for stage, pool in (("align", "alignment"), ("rlvr", "rl")):
            config, size = getattr(self, stage), getattr(data, pool)
            if config and config.prompts_per_step > size:
                reason = f"must not exceed data.{pool} ({size})"
                raise contradiction(f"{stage}.prompts_per_step", config.prompts_per_step, reason)
