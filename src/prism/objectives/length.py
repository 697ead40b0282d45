"""Scores without what their length explains of them, for rewards that length should not decide."""

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from prism.objectives.checks import require_floating, require_group_ids, require_shape


def length_corrected(
    scores: Float[Tensor, "rollout"], lengths: Real[Tensor, "rollout"], group_ids: Int[Tensor, "rollout"]
) -> Float[Tensor, "rollout"]:
    """Scores less what a straight line in the length explains of them inside the groups.

    The slope is that of least squares over the batch, of differences from the group's mean score on
    differences from its mean length; a group's mean score stays as it is. For the rewards of valid rollouts,
    before they are normalised.

    Not to be used where length is part of the quality (teachers that describe more completely: the
    correction takes the reason to describe more away as well), on the scores that train the discriminator or
    measure its accuracy (it would hide the shortcut instead of removing it), on scores that stand in for
    those of invalid rollouts, or with fewer than some dozens of rollouts, whose slope is mostly noise.
    Unchanged where lengths do not vary inside groups.
    """
    require_floating("scores", scores, ndim=1)
    require_shape("lengths", lengths, "scores", scores)
    require_group_ids(group_ids, "scores", scores)
    if not scores.numel():
        return scores
    _, index = torch.unique(group_ids, return_inverse=True)
    away = _from_group_mean(lengths.double(), index)
    # Round-off of equal lengths is no variation.
    if not bool((away.abs() > 1e-9 * lengths.abs().max()).any()):
        return scores
    slope = (away * _from_group_mean(scores.double(), index)).sum() / away.square().sum()
    return (scores.double() - slope * away).to(scores.dtype)


def _from_group_mean(values: Float[Tensor, "row"], index: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    sums = values.new_zeros(int(index.max()) + 1).index_add(0, index, values)
    return values - (sums / torch.bincount(index))[index]
