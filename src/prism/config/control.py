"""Collapse control of the adversarial game: where accuracy should stay, what to do outside, when to stop."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from prism.config.base import Config, Count, Fraction, NonNegative, NonNegativeCount, contradiction

OpenFraction = Annotated[float, Field(gt=0, lt=1)]


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1]:
        raise ValueError("must be a lower and a greater upper bound, neither negative")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_check_range)]


class Reaction(Config):
    """Acts once accuracy has been outside the band for more than `after` steps, until it is back inside."""

    after: NonNegativeCount = 0


class UpdateRatio(Reaction):
    """Discriminator updates per step while accuracy is above and while it is below the band.

    With `hold_policy` the policy is not updated while accuracy is below it.
    """

    type: Literal["update-ratio"] = "update-ratio"
    discriminator_above: NonNegativeCount = 0
    discriminator_below: Count = 2
    hold_policy: bool = False

    @model_validator(mode="after")
    def _check(self) -> "UpdateRatio":
        if self.discriminator_above == self.discriminator_below == 1 and not self.hold_policy:
            raise contradiction("discriminator_above", 1, "one update on either side of the band changes nothing")
        return self


class Replay(Reaction):
    """A `share` of the discriminator's batch is rollouts of earlier steps, while accuracy is on that side.

    `capacity` rollouts are kept as text, a uniform sample of all valid ones so far; they are part of
    every checkpoint.
    """

    type: Literal["replay"] = "replay"
    on: Literal["above", "below"] = "above"
    share: OpenFraction = 0.25
    capacity: Count = 256


class LabelSmoothing(Reaction):
    """While accuracy is above the band the teacher counts as the better one with probability 1 − `amount` only."""

    type: Literal["label-smoothing"] = "label-smoothing"
    amount: float = Field(default=0.1, gt=0, lt=0.5)


class LearningRate(Reaction):
    """Scales a model's learning rate by `factor` more with every step outside the band, and back when inside.

    Above the band the discriminator becomes slower and the policy faster, below it the other way round;
    the scale stays between `minimum` and `maximum`.
    """

    type: Literal["learning-rate"] = "learning-rate"
    model: Literal["discriminator", "policy"] = "discriminator"
    factor: OpenFraction = 0.9
    minimum: float = Field(default=0.1, gt=0, le=1)
    maximum: float = Field(default=2.0, ge=1)


AnyReaction = Annotated[UpdateRatio | Replay | LabelSmoothing | LearningRate, Field(discriminator="type")]


class CollapseLimits(Config):
    """The game is stopped with a diagnosis when the mean over a window is beyond one of these, `saturated` aside.

    `valid_fraction` is the least, `truncated_fraction` the greatest share of rollouts; `length`, `entropy`
    and `distinct` are ranges, in multiples of the mean over the first window, and `repetition` is the
    greatest rise above it. Where the teacher's texts are longer or shorter than that, the range of length is
    wider by as much; and entropy and variety may be what they like while no more than the share `near` is left of
    the distance to the teacher's bigrams that the game began with. `weight_change` is the range of the
    discriminator's relative change per update. There are warnings beyond `saturated`, an accuracy that every view
    has for two windows in a row while the gap grows, and beyond `astray`, in multiples of that distance. Within
    `chance` of 0.5 an accuracy counts as none.
    """

    valid_fraction: Fraction = 0.5
    truncated_fraction: Fraction = 0.25
    length: Range = (1 / 3, 2.0)
    entropy: Range = (0.1, 3.0)
    distinct: Range = (0.3, 3.0)
    repetition: NonNegative = 0.1
    near: Fraction = 0.2
    astray: float = Field(default=1.5, gt=1)
    weight_change: Range = (1e-8, 3e-3)
    saturated: float = Field(default=0.98, gt=0.5, le=1)
    chance: float = Field(default=0.05, ge=0, lt=0.5)


class ControlConfig(Config):
    """Keeps the discriminator's accuracy on fresh rollouts, mean of the views over `window` steps, in a band.

    The band is left at `low` and `high` and re-entered `hysteresis` further inside. Outside it the
    `reactions` act, each kind at most once, learning rates once per model. Without reactions the game is
    only watched, and stopped at the `limits`. Nothing happens before the first window is full.
    """

    low: Fraction = 0.65
    high: Fraction = 0.85
    hysteresis: NonNegative = 0.05
    window: Count = 8
    reactions: tuple[AnyReaction, ...] = ()
    limits: CollapseLimits = CollapseLimits()

    @model_validator(mode="after")
    def _check(self) -> "ControlConfig":
        if self.low >= self.high:
            raise contradiction("high", self.high, f"must be greater than low ({self.low})")
        if 2 * self.hysteresis > self.high - self.low + 1e-9:
            raise contradiction("hysteresis", self.hysteresis, "must not exceed half of high - low")
        kinds = [
            f"{reaction.type} of the {reaction.model}" if isinstance(reaction, LearningRate) else reaction.type
            for reaction in self.reactions
        ]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                raise contradiction(f"reactions.{index}.type", self.reactions[index].type, f"{kind} is given twice")
            if self._is_idle(self.reactions[index]):
                reason = (
                    "changes updates of the discriminator above the band, where update-ratio leaves none: give that a "
                    "discriminator_above of 1 or more, or act before it (after)"
                )
                raise contradiction(f"reactions.{index}.type", kind, reason)
        return self

    def _is_idle(self, reaction: AnyReaction) -> bool:
        """Whether whenever it acts the discriminator is not updated at all."""
        if not isinstance(reaction, LabelSmoothing) and not (isinstance(reaction, Replay) and reaction.on == "above"):
            return False
        return any(
            isinstance(other, UpdateRatio) and other.discriminator_above == 0 and other.after <= reaction.after
            for other in self.reactions
        )

    @property
    def replay(self) -> Replay | None:
        return next((reaction for reaction in self.reactions if isinstance(reaction, Replay)), None)
