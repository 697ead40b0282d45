"""What a game that was played to its end shows in hindsight: that it led away, or that it had nothing to go by.

No limit stops such a game, since every step of it looks healthy: a discriminator that still tells the rollouts apart
late in the game does so in a healthy one as well. It is the change that tells. While alignment works, more answers are
right, as far as the verifier knows, and rollouts come closer to the teacher's responses. The discriminator, which
learns meanwhile, tells fewer of them apart, unless SFT has left them so far off that it tells all of them to the end:
so whether it does counts only where neither answers nor distances say that the game has helped (`docs/method.md`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from prism.evals.statistics import student_t_quantile
from prism.stages.collapse import (
    ASTRAY_ADVICE,
    MIN_PAIRS,
    WORDS_FROM_TEACHER,
    Diagnosis,
    Row,
    distance_left,
    mean,
    pooled,
    views_of_row,
)

MIN_STEPS = 20
"""Of a shorter game no change can be expected."""
WINDOW_SHARE = 5
"""The first and the last fifth of the steps are compared."""
BLIND, SEEING = 0.55, 0.7
"""Up to the one accuracy in the first fifth the discriminator tells nothing, from the other on it has learned to tell.

One between them may still be learning what its warm-up did not teach it, and whatever it tells more of says nothing
about the rollouts.
"""
ANSWERS = "reward/accuracy"
"""Right answers over all rollouts of a step; None where the verifier knows none."""
FARTHER, CLOSER = 1.1, 0.8
"""Shares of the distance to the teacher's words that are left: one of a game that led away, one of a game that did not.
Between them it may be chance: the same policy's distance differs by some percent between windows of a game."""
LEAST_FALL = 0.08
"""Accuracy fell by 0.11 and more in games that brought the policy nearly all the way to the teacher, by 0.04 at most in
those that did harm, and by as little in some that helped and had far to go."""
CERTAINTY = 0.95
"""A fall of accuracy is taken to be as large as 19 of 20 like it are, and answers to have changed where they would seem
to by chance in one game of 20."""
_STANDARD_ERRORS = NormalDist().inv_cdf(CERTAINTY)


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
    first, last = rows[:size], rows[-size:]
    before, now = _answers(first), _answers(last)
    rise = _rise(before, now) if before and now else 0.0
    found = [_answers_worse(before, now)] if before and now and rise < 0 else []
    left = _distance_left(first, last)
    if left is not None and left > FARTHER:
        found.append(_farther(left, first, last))
    has_helped = rise > 0 or (left is not None and left < CLOSER)
    for view in views_of_row(rows[-1]):
        found += _of_view(view, first, last, has_helped=has_helped)
    return found


def _distance_left(first: Sequence[Row], last: Sequence[Row]) -> float | None:
    """None, too, of a game whose distances to the teacher were not recorded."""
    if any(name not in row for row in (*first, *last) for name in WORDS_FROM_TEACHER):
        return None
    return distance_left({name: mean(first, name) for name in WORDS_FROM_TEACHER}, last)


def _farther(left: float, first: Sequence[Row], last: Sequence[Row]) -> Diagnosis:
    return Diagnosis(
        "rollouts-farther",
        f"the words of the rollouts of {_steps_text(last)} are {left:.2g} × as far from the teacher's as those of "
        f"{_steps_text(first)}; {ASTRAY_ADVICE}",
        is_fatal=False,
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """The share of right answers in some steps, and the variance of a step's share."""

    steps: str
    share: float
    variance: float
    num_steps: int


def _answers(rows: Sequence[Row]) -> _Answers | None:
    """None where the verifier could judge the answers of fewer than two steps."""
    shares = [share for row in rows if (share := row.get(ANSWERS)) is not None]
    return _Answers(_steps_text(rows), fmean(shares), variance(shares), len(shares)) if len(shares) > 1 else None


def _rise(before: _Answers, now: _Answers) -> float:
    """How much larger the later share is, negative where it is smaller; 0 where a policy that stays the same would have
    such a difference in one case of 20, to that side (Student's t over steps, each of which has prompts of its own)."""
    freedom = before.num_steps + now.num_steps - 2
    error = math.sqrt(before.variance / before.num_steps + now.variance / now.num_steps)
    rise = now.share - before.share
    return rise if abs(rise) > student_t_quantile(CERTAINTY, freedom) * error else 0.0


def _answers_worse(before: _Answers, now: _Answers) -> Diagnosis:
    return Diagnosis(
        "answers-worse",
        f"{before.share:.1%} of the answers were right in {before.steps} and {now.share:.1%} in {now.steps}, so that "
        "the policy follows scores away from what is right; compare its evaluation with that of SFT, audit the run "
        "(prism audit), lower align.policy_learning_rate, let align.advantage heed the answers (gated, sign-aware or "
        "added), or leave alignment out",
        is_fatal=False,
    )


def _of_view(view: str, first: Sequence[Row], last: Sequence[Row], *, has_helped: bool) -> Iterator[Diagnosis]:
    before, now = _window(view, first), _window(view, last)
    if before is None:
        return
    if before.accuracy <= BLIND:
        yield Diagnosis(
            "discriminator-blind",
            f"{view}: accuracy {before.accuracy:.3f} in {before.steps}, no better than chance, so that its scores told "
            "the policy nothing at first; warm up for longer, check that images and texts reach the discriminator, or "
            "leave alignment out where rollouts cannot be told from the teacher",
            is_fatal=False,
        )
    elif (
        not has_helped
        and now is not None
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
            is_fatal=False,
        )


def _window(view: str, rows: Sequence[Row]) -> _Window | None:
    """None of too few pairs."""
    accuracy, count = pooled(rows, f"accuracy/{view}")
    gap, _ = pooled(rows, f"gap/{view}")
    if accuracy is None or gap is None or count < MIN_PAIRS:
        return None
    return _Window(_steps_text(rows), accuracy, gap, count)


def _steps_text(rows: Sequence[Row]) -> str:
    return f"steps {rows[0]['step']}–{rows[-1]['step']}"


def _greatest_fall(before: _Window, now: _Window) -> float:
    """The upper limit of what accuracy has fallen by."""
    return before.accuracy - now.accuracy + _STANDARD_ERRORS * math.sqrt(before.variance + now.variance)
