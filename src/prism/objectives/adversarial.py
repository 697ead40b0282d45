"""The discriminator's side of the game: teacher responses should score above fresh rollouts.

Scores are one number per pair of a teacher response and a rollout to the same prompt. A weight of 0
marks a pair that cannot be judged, such as a rollout without a caption. Bradley-Terry and the accuracy
ignore whatever stands there, NaN included.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from prism.objectives.aggregation import divide_by_count
from prism.objectives.checks import require_floating, require_like, require_shape


@dataclass(frozen=True, slots=True, eq=False)
class DiscriminatorLoss:
    """The loss to minimise, its parts (detached, unscaled) and how many pairs of this call had weight."""

    loss: Float[Tensor, ""]
    views: Mapping[str, Float[Tensor, ""]]
    score_regularization: Float[Tensor, ""]
    num_pairs: int


def bradley_terry_loss(
    teacher_scores: Float[Tensor, "pair"],
    student_scores: Float[Tensor, "pair"],
    weights: Shaped[Tensor, "pair"] | None = None,
    *,
    label_smoothing: float = 0.0,
    denominator: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Paper Eq. 2: Σ w·(−log σ(teacher − student)) / max(1, Σ w).

    `weights` may be boolean. With `label_smoothing` ε the teacher counts as the better one with
    probability 1 − ε only, −(1 − ε)·log σ(m) − ε·log σ(−m), and the loss is least at the margin
    m = log((1 − ε)/ε) instead of at infinity. `denominator` replaces Σ w by its value over all
    micro-batches and ranks, so that losses of the parts add up to the loss of the whole. Without any
    weighted pair the loss is 0 with a zero gradient.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is {label_smoothing}, not in [0, 0.5)")
    weights = _checked_weights(teacher_scores, student_scores, weights)
    margin = _margin(teacher_scores, student_scores, weights)
    log_likelihood = functional.logsigmoid(margin)
    if label_smoothing:
        # log σ(−m) = log σ(m) − m
        log_likelihood = log_likelihood - label_smoothing * margin
    total = -(weights * log_likelihood).sum()
    return divide_by_count(total, weights.sum() if denominator is None else denominator)


def score_regularization(*scores: Float[Tensor, "_"], denominator: float | Tensor | None = None) -> Float[Tensor, ""]:
    """The mean over the given score vectors of their mean square, which keeps scores near 0.

    Bradley-Terry sees differences only; without this a common offset of all scores is free to grow.
    `denominator` is the length of each vector over all micro-batches and ranks.
    """
    if not scores:
        raise ValueError("scores: give at least one vector of scores")
    for position, vector in enumerate(scores):
        require_floating(f"scores[{position}]", vector, ndim=1)
    means = [divide_by_count(s.square().sum(), s.numel() if denominator is None else denominator) for s in scores]
    return torch.stack(means).mean()


def discriminator_loss(
    views: Mapping[str, tuple[Float[Tensor, "pair"], Float[Tensor, "pair"]]],
    weights: Shaped[Tensor, "pair"] | None = None,
    *,
    label_smoothing: float = 0.0,
    regularization: float = 1e-3,
    teacher_anchor: float = 0.0,
    denominator: float | Tensor | None = None,
    row_denominator: float | Tensor | None = None,
) -> DiscriminatorLoss:
    """Σ_k L_k (paper Eq. 2, k ∈ {v, r}, added) + `regularization` · mean square of all scores.

    `views` holds teacher and student scores of the same pairs for each view k. The regulariser runs over
    all pairs, weighted or not: unless `regularization` is 0 every score must be finite. `denominator`
    (Σ weights) and `row_denominator` (number of pairs) are counts over the whole batch. Where no pair has
    weight only the regulariser is left; the released code then also pushes the teacher's mean score up,
    by −log σ(mean) per view times 0.01: `teacher_anchor=0.01` does so.
    """
    if not views:
        raise ValueError("views: give the scores of at least one view")
    first, (reference, _) = next(iter(views.items()))
    for view, (teacher, student) in views.items():
        require_floating(f"views[{view!r}] teacher", teacher, ndim=1)
        require_like(f"views[{view!r}] teacher", teacher, f"views[{first!r}] teacher", reference)
        require_like(f"views[{view!r}] student", student, f"views[{first!r}] teacher", reference)
    weights = _checked_weights(reference, reference, weights)
    count = weights.sum() if denominator is None else denominator
    losses = {
        view: bradley_terry_loss(teacher, student, weights, label_smoothing=label_smoothing, denominator=count)
        for view, (teacher, student) in views.items()
    }
    if teacher_anchor and reference.numel() and not count:
        for view, (teacher, _) in views.items():
            losses[view] = losses[view] - teacher_anchor * functional.logsigmoid(teacher.mean())
    mean_square = score_regularization(*(side for pair in views.values() for side in pair), denominator=row_denominator)
    loss = torch.stack(list(losses.values())).sum()
    if regularization:
        loss = loss + regularization * mean_square
    return DiscriminatorLoss(
        loss=loss,
        views={view: value.detach() for view, value in losses.items()},
        score_regularization=mean_square.detach(),
        num_pairs=int((weights != 0).sum()),
    )


@torch.no_grad()
def discriminator_accuracy(
    teacher_scores: Float[Tensor, "pair"],
    student_scores: Float[Tensor, "pair"],
    weights: Shaped[Tensor, "pair"] | None = None,
) -> tuple[float | None, int]:
    """Share of pairs in which the teacher scores higher, and the number of pairs it is the share of.

    Pairs of weight 0 are left out and the others count the same; a tie counts half, so that a
    discriminator that tells nothing apart has 0.5. Without pairs the share is None, never a made-up
    number; a NaN score makes it NaN.
    """
    weights = _checked_weights(teacher_scores, student_scores, weights)
    margin = (teacher_scores - student_scores)[weights != 0]
    if not margin.numel():
        return None, 0
    wins = (margin > 0).double() + (margin == 0).double() / 2
    wins = wins.masked_fill(margin.isnan(), torch.nan)
    return wins.mean().item(), margin.numel()


def _checked_weights(teacher_scores: Tensor, student_scores: Tensor, weights: Tensor | None) -> Tensor:
    require_floating("teacher_scores", teacher_scores, ndim=1)
    require_like("student_scores", student_scores, "teacher_scores", teacher_scores)
    if weights is None:
        return torch.ones_like(teacher_scores)
    require_shape("weights", weights, "teacher_scores", teacher_scores)
    return weights.detach().to(teacher_scores.dtype)


def _margin(teacher_scores: Tensor, student_scores: Tensor, weights: Tensor) -> Tensor:
    return torch.where(weights != 0, teacher_scores - student_scores, torch.zeros_like(teacher_scores))
