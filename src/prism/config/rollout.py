"""What samples from the policy: the training model itself, or an engine with a copy of its weights."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from prism.config.base import Config, Count, Positive, Precision, contradiction, variant_or


class TransformersRollout(Config):
    """The training model decodes, `batch_size` sequences at a time."""

    type: Literal["transformers"] = "transformers"
    batch_size: Count = 64


class ImportanceConfig(Config):
    """Policy losses are multiplied by min(π_train / π_sampler, `cap`), both of the policy before its update.

    `level` says whose probabilities: a `token`'s own, or those of its whole `sequence`.
    """

    level: Literal["token", "sequence"] = "token"
    cap: float = Field(default=2.0, ge=1)


class CopyRollout(Config):
    """Of every engine that samples from a copy of the weights.

    A step stops the run when the sampled tokens' log-probabilities differ from the training forward's by more than
    `tolerance` nats in the mean: rounding to bfloat16 stays below the default, float32 below 0.001. `max_images` is
    the most a prompt may have.
    """

    max_images: Count = 8
    tolerance: Positive = 0.05
    importance: ImportanceConfig | None = None


class VllmRollout(CopyRollout):
    """vLLM samples in this process, at most `batch_size` sequences at a time, from a copy of the weights in `dtype`.

    `memory_fraction` is the share of the device's memory for that copy and its KV cache; `kv_cache_bytes` sets the
    cache's size instead. `eager` does without compiled graphs, `sleep` frees the device's memory while the policy
    trains.
    """

    type: Literal["vllm"] = "vllm"
    batch_size: Count = 256
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    memory_fraction: float = Field(default=0.4, gt=0, lt=1)
    kv_cache_bytes: Count | None = None
    eager: bool = False
    sleep: bool = False


class ServedRollout(CopyRollout):
    """Servers started with `prism serve` sample, on devices of their own, for an equal share of the prompts each.

    `timeout_s` is for all that one server samples in a step, or for its part of an update of the weights.
    """

    type: Literal["served"] = "served"
    base_urls: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout_s: Positive = 3600.0

    @model_validator(mode="after")
    def _check(self) -> "ServedRollout":
        if len({*self.base_urls}) < len(self.base_urls):
            # It would wait for itself: its weights are sent to all servers at once.
            raise contradiction("base_urls", list(self.base_urls), "must name each server once")
        return self


RolloutConfig = Annotated[
    Annotated[TransformersRollout, Tag("transformers")]
    | Annotated[VllmRollout, Tag("vllm")]
    | Annotated[ServedRollout, Tag("served")],
    variant_or("transformers"),
]


class ServeConfig(Config):
    """What `prism serve` samples with. `max_length` counts the tokens of a prompt and its completion; `max_pixels` is
    that of the recipe. `precision` is that of weights which transformers samples with; vLLM has `rollout.dtype`."""

    rollout: Annotated[
        Annotated[TransformersRollout, Tag("transformers")] | Annotated[VllmRollout, Tag("vllm")], variant_or("vllm")
    ] = VllmRollout()
    max_length: Count = 8192
    max_pixels: Count | None = None
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _check_precision(self) -> "ServeConfig":
        if self.precision != "float32" and isinstance(self.rollout, VllmRollout):
            reason = "is that of transformers' weights: name rollout.dtype for vLLM's, or rollout.type=transformers"
            raise contradiction("precision", self.precision, reason)
        return self
