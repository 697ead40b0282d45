"""What a game that was played to its end shows in hindsight: views in which alignment had nothing to go by.

No limit stops such a game, since every step of it looks healthy: a discriminator that still tells the rollouts apart
late in the game does so in a healthy one as well. It is the change that tells. While alignment works, rollouts come
closer to the teacher's responses and the discriminator, which learns meanwhile, tells fewer of them apart.

The limits lie between games of the built-in world that helped and games that did harm. Where SFT leaves a long way to
go a game can help and change as little, so a warning asks for a comparison and gives no verdict (`docs/method.md`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prism.stages.collapse import MIN_PAIRS, Diagnosis, Row, pooled, views_of_row

MIN_STEPS = 20
"""Of a shorter game no change can be expected."""
WINDOW_SHARE = 5
"""The first and the last fifth of the steps are compared."""
BLIND, SEEING = 0.55, 0.7
"""Up to the one accuracy in the first fifth the discriminator tells nothing, from the other on it has learned to tell.

One between them may still be learning what its warm-up did not teach it, and whatever it tells more of says nothing
about the rollouts.
"""
LEAST_FALL = 0.08
"""Accuracy fell by 0.11 and more in games that brought the policy nearly all the way to the teacher, by 0.04 at most in
those that did harm, and by as little in some that helped and had far to go."""
CONFIDENCE = 1.645
"""Standard errors: a fall is taken to be as large as 19 of 20 like it are."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Means over the pairs of a view in some steps."""

    steps: str
    accuracy: float
    gap: float
    num_pairs: int

    @property
    def variance(self) -> float:
        """Of the accuracy, were the pairs independent."""
        return self.accuracy * (1 - self.accuracy) / self.num_pairs


def look_back(rows: Sequence[Row]) -> list[Diagnosis]:
    """What there is to warn of after all steps of a game; `rows` are its metrics, one row a step."""
    if len(rows) < MIN_STEPS:
        return []
    size = len(rows) // WINDOW_SHARE
    return [found for view in views_of_row(rows[-1]) for found in _of_view(view, rows[:size], rows[-size:])]


def _of_view(view: str, first: Sequence[Row], last: Sequence[Row]) -> Iterator[Diagnosis]:
    before, now = _window(view, first), _window(view, last)
    if before is None:
        return
    if before.accuracy <= BLIND:
        yield Diagnosis(
            "discriminator-blind",
            f"{view}: accuracy {before.accuracy:.3f} in {before.steps}, no better than chance, so that its scores told "
            "the policy nothing at first; warm up for longer, check that images and texts reach the discriminator, or "
            "leave alignment out where rollouts cannot be told from the teacher",
        )
    elif (
        now is not None
        and before.accuracy >= SEEING
        and now.gap > before.gap
        and _greatest_fall(before, now) < LEAST_FALL
    ):
        yield Diagnosis(
            "rollouts-not-closer",
            f"{view}: accuracy {before.accuracy:.3f} in {before.steps} and {now.accuracy:.3f} in {now.steps}, while "
            f"the score gap grew from {before.gap:.3g} to {now.gap:.3g}; the policy may follow scores that bring it no "
            "closer to the teacher, or may still have far to go: compare its evaluation with that of SFT, and where it "
            "is no better audit the run (prism audit), lower align.policy_learning_rate or leave alignment out",
        )


def _window(view: str, rows: Sequence[Row]) -> _Window | None:
    """None of too few pairs."""
    accuracy, count = pooled(rows, f"accuracy/{view}")
    gap, _ = pooled(rows, f"gap/{view}")
    if accuracy is None or gap is None or count < MIN_PAIRS:
        return None
    return _Window(f"steps {rows[0]['step']}–{rows[-1]['step']}", accuracy, gap, count)


def _greatest_fall(before: _Window, now: _Window) -> float:
    """The upper limit of what accuracy has fallen by."""
    return before.accuracy - now.accuracy + CONFIDENCE * math.sqrt(before.variance + now.variance)
