"""When the adversarial game has failed: named diagnoses, each from what was measured over the last steps.

The default limits were set between healthy runs of the built-in world and broken ones: a discriminator
that does not learn, one that learns ten (still healthy) or a hundred times as fast, and a policy that
learns ten or thirty times as fast. What a game changes to come to the teacher's texts is not held against it.
A discriminator that is saturated, or blind in one view of two, and rollouts that have gone astray only earn a
warning: such games have come right in the end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism.config.control import CollapseLimits

Row = Mapping[str, float | None]
MIN_PAIRS = 32
"""Over fewer pairs an accuracy is no evidence: its standard error would be 0.09 and more."""
COUNT = "accuracy/count"
WEIGHT_CHANGE, GRADIENT_NORM = "discriminator/weight_change", "discriminator/grad_norm"
VALID, LENGTH, ENTROPY = "rollout/valid_fraction", "rollout/length", "rollout/entropy"
TRUNCATED, ROLLOUTS = "rollout/truncated_count", "rollout/count"
REPETITION, DISTINCT = "rollout/repetition", "rollout/distinct_2"
TEACHER_LENGTH = "teacher/length"
WORDS_FROM_TEACHER = ("drift/description/bigrams", "drift/reasoning/bigrams")
COMPARED = (LENGTH, ENTROPY, DISTINCT, REPETITION, *WORDS_FROM_TEACHER)
"""The metrics of which only a change says something."""
MEASURED = (COUNT, WEIGHT_CHANGE, GRADIENT_NORM, VALID, TRUNCATED, ROLLOUTS, TEACHER_LENGTH, *COMPARED)
"""The metrics that must be in every row, null where nothing was measured, beside accuracy and gap of each view."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The last `window` rows, those of the window before them (fewer at first), and means over the first window."""

    recent: Sequence[Row]
    earlier: Sequence[Row]
    beginning: Row
    is_beginning: bool

    @property
    def steps(self) -> str:
        return f"steps {self.recent[0]['step']}–{self.recent[-1]['step']}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A diagnosis: its name, one line that says what was measured and what to try, and whether the game must stop."""

    name: str
    line: str
    is_fatal: bool = True

    def event(self, step: int) -> dict[str, Any]:
        """A row of `events.jsonl`."""
        kind = "stop" if self.is_fatal else "warning"
        return {"step": step, "event": kind, "diagnosis": self.name, "reason": self.line}


def find_collapses(evidence: Evidence, limits: CollapseLimits) -> list[Diagnosis]:
    """Everything that has failed, causes before consequences."""
    return [collapse for diagnose in _DIAGNOSES for collapse in diagnose(evidence, limits)]


def views_of_row(row: Row) -> list[str]:
    return [name.removeprefix("gap/") for name in row if name.startswith("gap/")]


ASTRAY_ADVICE = (
    "see what the scores follow (credit/…), let align.advantage heed the answers (added), lower "
    "align.policy_learning_rate or leave alignment out"
)
"""What has kept such a game on course comes first; length correction and a longer warm-up have not."""


def mean(rows: Sequence[Row], name: str) -> float | None:
    """Mean of what was measured, None of nothing."""
    values = [value for row in rows if (value := row[name]) is not None]
    return sum(values) / len(values) if values else None


def pooled(rows: Sequence[Row], name: str) -> tuple[float | None, int]:
    """Mean over all pairs of the rows, and their number."""
    counted = [(value, int(row[COUNT] or 0)) for row in rows if (value := row[name]) is not None]
    total = sum(count for _, count in counted)
    return (sum(value * count for value, count in counted) / total if total else None), total


def _frozen(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    change = mean(evidence.recent, WEIGHT_CHANGE)
    norms = [row[GRADIENT_NORM] for row in evidence.recent if row[COUNT] and row[GRADIENT_NORM] is not None]
    if norms and not any(norms):
        line = (
            f"no gradient has reached the discriminator in {evidence.steps}; if its scores are at their limit, lower "
            "align.discriminator_learning_rate or raise align.score_regularization, else see what cuts the gradient off"
        )
    elif change is not None and change < limits.weight_change[0]:
        line = (
            f"the discriminator's weights changed by {change:.1e} of their size a step in {evidence.steps}; see that "
            "they require gradients, and raise align.discriminator_learning_rate (bfloat16 loses small updates)"
        )
    else:
        return
    yield Diagnosis("discriminator-frozen", line)


def _overshooting(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    change = mean(evidence.recent, WEIGHT_CHANGE)
    if change is not None and change > limits.weight_change[1]:
        yield Diagnosis(
            "discriminator-overshooting",
            f"the discriminator's weights changed by {change:.1e} of their size a step in {evidence.steps}, more than "
            f"{limits.weight_change[1]:.0e}; lower align.discriminator_learning_rate, by a factor of 10 to begin with",
        )


def _accuracy_lost(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    measured = {}
    for view in views_of_row(evidence.recent[-1]):
        accuracy, count = pooled(evidence.recent, f"accuracy/{view}")
        gap, _ = pooled(evidence.recent, f"gap/{view}")
        if accuracy is not None and gap is not None and count >= MIN_PAIRS:
            measured[view] = accuracy, gap, count
    is_blind = [accuracy <= 0.5 + limits.chance for accuracy, _, _ in measured.values()]
    for view, (accuracy, gap, count) in measured.items():
        found = f"{view}: accuracy {accuracy:.3f} over {count} pairs, score gap {gap:.3g} in {evidence.steps}"
        if evidence.is_beginning and accuracy <= 0.5 + limits.chance:
            yield Diagnosis(
                "discriminator-blind",
                f"{found}, no better than chance from the start; warm up for longer, check that images and texts "
                "reach the discriminator, or leave alignment out where rollouts cannot be told from the teacher",
                is_fatal=all(is_blind),
            )
        elif accuracy < 0.5 - limits.chance and gap < 0:
            yield Diagnosis(
                "discriminator-overtaken",
                f"{found}: rollouts outscore the teacher and the discriminator does not follow; raise "
                "align.discriminator_learning_rate or lower align.policy_learning_rate",
            )


def _saturated(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    """Every view over two full windows, so that a reaction has had the time to act: one view that tells all rollouts
    is how many a healthy game begins."""
    if len(evidence.earlier) < len(evidence.recent):
        return
    windows, measured = (evidence.earlier, evidence.recent), []
    for view in views_of_row(evidence.recent[-1]):
        accuracies = [pooled(rows, f"accuracy/{view}") for rows in windows]
        before, now = (pooled(rows, f"gap/{view}")[0] or 0.0 for rows in windows)
        is_told = all((share or 0.0) >= limits.saturated and count >= MIN_PAIRS for share, count in accuracies)
        if not is_told or now <= before:
            return
        measured.append(f"{view} {accuracies[1][0]:.3f} with a gap of {now:.3g}, up from {before:.3g}")
    if not measured:
        return
    yield Diagnosis(
        "discriminator-saturated",
        f"accuracy in {evidence.steps}: {'; '.join(measured)}; see whether reward/accuracy falls meanwhile; audit the "
        "data for a shortcut, warm up for fewer steps, lower align.discriminator_learning_rate or configure a reaction",
        is_fatal=False,
    )


def _format_lost(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    truncated = (mean(evidence.recent, TRUNCATED) or 0.0) / (mean(evidence.recent, ROLLOUTS) or 1.0)
    if truncated > limits.truncated_fraction:
        yield Diagnosis(
            "rollouts-truncated",
            f"{truncated:.0%} of the rollouts of {evidence.steps} were cut off at align.max_response_tokens; raise it "
            "if the teacher's responses are that long, else lower align.policy_learning_rate",
        )
    valid = mean(evidence.recent, VALID)
    if valid is not None and valid < limits.valid_fraction:
        yield Diagnosis(
            "rollouts-invalid",
            f"only {valid:.0%} of the rollouts of {evidence.steps} kept the format; lower align.policy_learning_rate, "
            "raise format_penalty of the advantage (that of branch has one) or train the format with a longer SFT",
        )


def _texts_degenerated(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    advice = "lower align.policy_learning_rate or tie the policy to SFT with align.kl"
    teacher_length = mean(evidence.recent, TEACHER_LENGTH)
    # A policy that imitates a teacher of few words is as sure of them as it should be.
    is_imitating = (left := distance_left(evidence.beginning, evidence.recent)) is not None and left <= limits.near
    for metric, name, bounds in (
        (ENTROPY, "entropy", limits.entropy),
        (LENGTH, "length", limits.length),
        (DISTINCT, "distinct", limits.distinct),
    ):
        before, now = evidence.beginning[metric], mean(evidence.recent, metric)
        if not before or now is None or (metric != LENGTH and is_imitating):
            continue
        span = (before, teacher_length) if metric == LENGTH and teacher_length else (before,)
        if bounds[0] * min(span) <= now <= bounds[1] * max(span):
            continue
        yield Diagnosis(
            f"{name}-{'exploded' if now > before else 'collapsed'}",
            f"{metric} is {now:.3g} in {evidence.steps}, {now / before:.2g} × the {before:.3g} it began with; {advice}",
        )
    before, now = evidence.beginning[REPETITION], mean(evidence.recent, REPETITION)
    if before is not None and now is not None and now > before + limits.repetition:
        yield Diagnosis(
            "rollouts-repetitive",
            f"{now:.0%} of the 4-grams of a rollout of {evidence.steps} stood in it before, {before:.0%} at the "
            f"beginning; {advice}",
        )


def _astray(evidence: Evidence, limits: CollapseLimits) -> Iterator[Diagnosis]:
    """A warning: such a game has been seen to turn round, after a while and some harm."""
    left = distance_left(evidence.beginning, evidence.recent)
    if left is not None and left > limits.astray:
        yield Diagnosis(
            "rollouts-astray",
            f"the words of the rollouts of {evidence.steps} are {left:.2g} × as far from the teacher's as those that "
            f"the game began with; {ASTRAY_ADVICE}",
            is_fatal=False,
        )


def distance_left(beginning: Row, recent: Sequence[Row]) -> float | None:
    """The share of the distance between words with which the game began, descriptions and reasonings taken together;
    None where nobody knows, as where a part that was there at first has gone."""
    pairs = [(beginning[name], mean(recent, name)) for name in WORDS_FROM_TEACHER]
    known = [(before, now) for before, now in pairs if before is not None]
    total = sum(before for before, _ in known)
    if not total or any(now is None for _, now in known):
        return None
    return sum(now for _, now in known if now is not None) / total


_DIAGNOSES: tuple[Callable[[Evidence, CollapseLimits], Iterator[Diagnosis]], ...] = (
    _frozen,
    _overshooting,
    _format_lost,
    _texts_degenerated,
    _accuracy_lost,
    _saturated,
    _astray,
)
