"""What every configuration model shares: frozen, strict, unknown keys refused, common number types."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
NonNegativeCount = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ClipRange = Annotated[float, Field(gt=0, lt=1)]
PathSafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name that becomes a directory name: letters, digits, dot, dash and underscore."""

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"]
Precision = Literal["float32", "bfloat16"]
"""In what layers are computed. Weights that train, their gradients and optimizer states are float32 in any case."""

Schedule = Literal["cosine", "constant", "wsd"]


class Config(BaseModel):
    """Base of all configuration models.

    Strict: `"3"` is no integer and `1` is no boolean; an integer may stand where a float is wanted.
    NaN and infinity are refused everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class OptimizerSettings(Config):
    """AdamW with a warm-up of `warmup_fraction` of the steps, then the schedule; shared by single-model stages."""

    learning_rate: Positive
    schedule: Schedule = "constant"
    warmup_fraction: Fraction = 0.0
    weight_decay: NonNegative = 0.01
    max_grad_norm: Positive = 1.0


def variant_or(default: str) -> Discriminator:
    """Tells the variants of a union by `type`; a table that leaves it out is of the `default` variant.

    Without a default `align.advantage.alpha=0.3` on the command line would need the type repeated.
    """

    def variant(value: Any) -> Any:
        if isinstance(value, dict):
            return value.get("type", default)
        return getattr(value, "type", None)

    return Discriminator(variant)


def contradiction(field: str, value: object, reason: str) -> PydanticCustomError:
    """An error about one `field` of the model that raises it (dots reach into sub-tables)."""
    return PydanticCustomError("contradiction", "{reason}", {"field": field, "value": value, "reason": reason})


def check_group_size(group_size: int) -> None:
    """Raises unless a group has the two rollouts that normalisation within a group needs."""
    if group_size < 2:
        raise contradiction("group_size", group_size, "must be at least 2: advantages are normalised within a group")


def check_token_budget(token_budget: int, max_response_tokens: int) -> None:
    if token_budget <= max_response_tokens:
        reason = f"must be greater than max_response_tokens ({max_response_tokens}): prompt and response share one pass"
        raise contradiction("token_budget", token_budget, reason)
