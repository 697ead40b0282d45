"""Reinforcement learning with verifiable rewards: settings common to all algorithms, and the algorithms.

The algorithms are special cases of one clipped loss, so each answers the same questions: `level`,
`clip_low`, `clip_high`, `dual_clip` and `aggregation` are the arguments of `prism.objectives.policy_loss`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from prism.config.base import (
    Aggregation,
    ClipRange,
    Config,
    Count,
    NonNegative,
    NonNegativeCount,
    PathSafeName,
    Positive,
    check_group_size,
    check_token_budget,
    contradiction,
)


class Grpo(Config):
    """GRPO: token ratios, one symmetric clip, each response weighs the same."""

    type: Literal["grpo"] = "grpo"
    name: PathSafeName = "grpo"
    clip: ClipRange = 0.2
    aggregation: Aggregation = "seq-mean-token-mean"

    level: ClassVar[Literal["token"]] = "token"
    dual_clip: ClassVar[None] = None

    @property
    def clip_low(self) -> float:
        return self.clip

    @property
    def clip_high(self) -> float:
        return self.clip


class Dapo(Config):
    """DAPO: clip-higher, dual clip, each token weighs the same, dynamic sampling, overlong penalty.

    Dynamic sampling generates `oversampling` × `prompts_per_step` prompts, keeps those whose rollouts
    differ in accuracy, refills at most `max_refills` times, and begins the next step with the prompts
    left over, sampled and filtered afresh. The penalty grows over the last `overlong_buffer` tokens
    before `max_response_tokens`, up to `overlong_factor`.
    """

    type: Literal["dapo"] = "dapo"
    name: PathSafeName = "dapo"
    clip_low: ClipRange = 0.2
    clip_high: Positive = 0.28
    dual_clip: float = Field(default=10.0, gt=1)
    oversampling: Count = 3
    max_refills: NonNegativeCount = 10
    overlong_buffer: Count
    overlong_factor: NonNegative = 1.0

    level: ClassVar[Literal["token"]] = "token"
    aggregation: ClassVar[Aggregation] = "token-mean"


class Gspo(Config):
    """GSPO: one ratio per response (the geometric mean of its token ratios), very narrow clips."""

    type: Literal["gspo"] = "gspo"
    name: PathSafeName = "gspo"
    clip_low: ClipRange = 3e-4
    clip_high: Positive = 4e-4

    level: ClassVar[Literal["sequence"]] = "sequence"
    dual_clip: ClassVar[None] = None
    aggregation: ClassVar[Aggregation] = "seq-mean-token-mean"


Algorithm = Annotated[Grpo | Dapo | Gspo, Field(discriminator="type")]


class RlvrConfig(Config):
    """RLVR of the aligned policy by each of `algorithms`, all under the same settings.

    `baselines` names the algorithms that are also run straight from the unaligned policy, with as many rollouts as
    warm-up, alignment and RLVR together (matched budget): the first algorithm by default, none if empty.
    A step's rollouts are used in `num_mini_batches` optimizer steps, one part of the prompts each; with
    one, every ratio is 1 and clipping never acts, so that GRPO and GSPO coincide.
    The reward is `accuracy_weight` × accuracy + `format_weight` × format.
    """

    num_steps: Count
    prompts_per_step: Count = 32
    group_size: Count = 16
    max_response_tokens: Count = 8192
    temperature: Positive = 1.0
    learning_rate: Positive = 1e-6
    weight_decay: NonNegative = 0.01
    max_grad_norm: Positive = 1.0
    accuracy_weight: Positive = 0.8
    format_weight: NonNegative = 0.2
    num_mini_batches: Count = 1
    token_budget: Count = 16384
    checkpoint_every: Count = 10
    algorithms: tuple[Algorithm, ...]
    baselines: tuple[str, ...] | None = None

    @property
    def baseline_algorithms(self) -> tuple[Grpo | Dapo | Gspo, ...]:
        """The algorithms of the matched-budget baselines, in the order of `algorithms`."""
        if self.baselines is None:
            return self.algorithms[:1]
        return tuple(algorithm for algorithm in self.algorithms if algorithm.name in self.baselines)

    @model_validator(mode="after")
    def _check(self) -> "RlvrConfig":
        check_group_size(self.group_size)
        check_token_budget(self.token_budget, self.max_response_tokens)
        if not self.algorithms:
            raise contradiction("algorithms", [], "must hold at least one algorithm")
        names = [algorithm.name for algorithm in self.algorithms]
        for index, algorithm in enumerate(self.algorithms):
            if names.index(algorithm.name) < index:
                raise contradiction(
                    f"algorithms.{index}.name", algorithm.name, "is taken; give each variant its own name"
                )
            if isinstance(algorithm, Dapo) and algorithm.overlong_buffer > self.max_response_tokens:
                reason = f"must not exceed max_response_tokens ({self.max_response_tokens})"
                raise contradiction(f"algorithms.{index}.overlong_buffer", algorithm.overlong_buffer, reason)
        for name in self.baselines or ():
            if name not in names:
                raise contradiction("baselines", name, f"names no algorithm; there are: {', '.join(names)}")
        return self
