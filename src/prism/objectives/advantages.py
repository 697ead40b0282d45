"""Group-relative advantages: a rollout is as good as it is better than others of the same prompt.

Every function takes one value per rollout and an integer naming its group (its prompt). Rows of a
group may lie anywhere; the order of rows never changes a row's result. Nothing loops over groups.

`branch_advantages` and `mixed_advantages` make the discriminator's scores an advantage; the hybrids
(`added_`, `gated_`, `sign_aware_advantages`) combine either with what a verifier says of the answer.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from prism.objectives.checks import require_boolean, require_floating, require_group_ids, require_like


def group_normalize(
    values: Float[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
    *,
    scale: bool = True,
    eps: float = 1e-6,
) -> Float[Tensor, "rollout"]:
    """(value − group mean) / (group standard deviation with n − 1, plus `eps`); without `scale` only centred.

    Groups whose values are all equal, and so groups of one, give exactly 0: neither round-off in the
    mean nor `eps` turns a tie into a signal. A NaN or Inf makes its whole group NaN, a group of one
    too (without `scale` a group's finite values beside an Inf become infinite).
    """
    require_floating("values", values, ndim=1)
    require_group_ids(group_ids, "values", values)
    index, sizes = _group_index(group_ids)
    mean = _group_sum(values, index, sizes) / sizes
    lowest, highest = _group_extremes(values, index, sizes)
    is_tie = (lowest == highest)[index] & values.isfinite()
    result = values - mean[index]
    if scale:
        variance = _group_sum(result.square(), index, sizes) / (sizes - 1).clamp(min=1)
        result = result / (variance.sqrt()[index] + eps)
    return torch.where(is_tie, torch.zeros_like(result), result)


def grpo_advantages(
    rewards: Float[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
    *,
    scale: bool = True,
    eps: float = 1e-6,
) -> Float[Tensor, "rollout"]:
    """GRPO's outcome advantage (paper Eq. 3 with one reward); `scale=False` is Dr. GRPO's, without the deviation.

    A group of one gets 0. The released code gives it its raw reward, which pushes the policy by a
    number that no other rollout of the prompt put into proportion.
    """
    require_floating("rewards", rewards, ndim=1)
    require_group_ids(group_ids, "rewards", rewards)
    return group_normalize(rewards, group_ids, scale=scale, eps=eps)


def branch_advantages(
    perception: Float[Tensor, "rollout"],
    reasoning: Float[Tensor, "rollout"],
    is_valid: Bool[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
    *,
    alpha: float = 0.5,
    format_penalty: float = 1.5,
    eps: float = 1e-6,
) -> Float[Tensor, "rollout"]:
    """α·N(D_v) + (1 − α)·N(D_r) − `format_penalty`·[invalid], N normalising within the group: the released code's form.

    A rollout in the wrong format has no scores: whatever stands in its rows (NaN included) is
    replaced, per branch, by the smallest score of its group's valid rollouts (0 if there are none)
    minus 1, and takes part in the group's mean and deviation. The penalty comes on top, so it acts
    even in a group where nothing is valid and every normalised score is 0.
    """
    require_floating("perception", perception, ndim=1)
    require_like("reasoning", reasoning, "perception", perception)
    require_boolean("is_valid", is_valid, "perception", perception)
    require_group_ids(group_ids, "perception", perception)
    index, sizes = _group_index(group_ids)
    perception, reasoning = (_fill_invalid(scores, is_valid, index, sizes) for scores in (perception, reasoning))
    mixed = alpha * group_normalize(perception, index, eps=eps) + (1 - alpha) * group_normalize(
        reasoning, index, eps=eps
    )
    return mixed - format_penalty * (~is_valid).to(mixed.dtype)


def mixed_advantages(
    perception: Float[Tensor, "rollout"],
    reasoning: Float[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
    *,
    alpha: float = 0.5,
    eps: float = 1e-6,
) -> Float[Tensor, "rollout"]:
    """Paper Eq. 1 and 3 as printed: r = α·D_v + (1 − α)·D_r first, then normalised within the group.

    The paper states neither the deviation's degrees of freedom nor `eps`; here n − 1 and 1e-6, as in
    `group_normalize`. A branch with widely spread scores outweighs the other, which
    `branch_advantages` prevents.
    """
    require_floating("perception", perception, ndim=1)
    require_like("reasoning", reasoning, "perception", perception)
    require_group_ids(group_ids, "perception", perception)
    return group_normalize(alpha * perception + (1 - alpha) * reasoning, group_ids, eps=eps)


def added_advantages(
    alignment: Float[Tensor, "rollout"],
    rewards: Float[Tensor, "rollout"],
    is_verified: Bool[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
    *,
    weight: float = 1.0,
    eps: float = 1e-6,
) -> Float[Tensor, "rollout"]:
    """`alignment` + `weight` · N(rewards), N normalising within the group: the discriminator and the verifier vote.

    A rollout that is not verified keeps its `alignment` alone; its reward is not read and takes no
    part in the group's mean and deviation. Where the rewards of a group are equal, N is 0.
    """
    require_floating("alignment", alignment, ndim=1)
    require_like("rewards", rewards, "alignment", alignment)
    require_boolean("is_verified", is_verified, "alignment", alignment)
    require_group_ids(group_ids, "alignment", alignment)
    verifiable = torch.zeros_like(rewards)
    verifiable[is_verified] = group_normalize(rewards[is_verified], group_ids[is_verified], eps=eps)
    return alignment + weight * verifiable


def gated_advantages(
    alignment: Float[Tensor, "rollout"],
    is_correct: Bool[Tensor, "rollout"],
    is_verified: Bool[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
) -> Float[Tensor, "rollout"]:
    """`alignment` where the answer is right, min(`alignment`, 0) elsewhere: no credit for style without a right answer.

    Blame passes the gate, or being wrong would be a way out of it: out of the penalty of a broken
    format, and out of what a right answer pays for the same style. A rollout that is not verified may
    be wrong, so it gets no credit either; `is_correct` is not read there. A group without any verified
    rollout keeps its `alignment`.
    """
    _, may_be_wrong = _open_verdicts(alignment, is_correct, is_verified, group_ids)
    return torch.where(may_be_wrong, alignment.clamp(max=0), alignment)


def sign_aware_advantages(
    alignment: Float[Tensor, "rollout"],
    is_correct: Bool[Tensor, "rollout"],
    is_verified: Bool[Tensor, "rollout"],
    group_ids: Int[Tensor, "rollout"],
) -> Float[Tensor, "rollout"]:
    """max(`alignment`, 0) where the answer is right, min(`alignment`, 0) where it is wrong.

    The verdict decides the sign and the discriminator the size, down to 0 where they disagree: the
    nearest advantages to `alignment` under which style pushes no right answer down and no wrong one up,
    in groups that are all right or all wrong too. A rollout that is not verified may be either, so it
    gets 0; `is_correct` is not read there. A group without any verified rollout keeps its `alignment`.
    """
    may_be_correct, may_be_wrong = _open_verdicts(alignment, is_correct, is_verified, group_ids)
    alignment = torch.where(may_be_correct, alignment.clamp(min=0), alignment)
    return torch.where(may_be_wrong, alignment.clamp(max=0), alignment)


def fill_invalid_scores(
    scores: Float[Tensor, "rollout"], is_valid: Bool[Tensor, "rollout"], group_ids: Int[Tensor, "rollout"]
) -> Float[Tensor, "rollout"]:
    """Scores with those of invalid rollouts replaced as in `branch_advantages`: one below the smallest
    valid score of their group, −1 where the group has none."""
    require_floating("scores", scores, ndim=1)
    require_boolean("is_valid", is_valid, "scores", scores)
    require_group_ids(group_ids, "scores", scores)
    return _fill_invalid(scores, is_valid, *_group_index(group_ids))


def has_signal(values: Shaped[Tensor, "rollout"], group_ids: Int[Tensor, "rollout"]) -> Bool[Tensor, "rollout"]:
    """True for rollouts of groups whose values are not all equal: what DAPO's dynamic sampling keeps.

    Equality is exact. The standard deviation of equal values can be a tiny positive number, so a test
    on the deviation keeps some groups that teach nothing. A group of one is kept, as DAPO does.
    """
    if values.ndim != 1:
        raise ValueError(f"values must have 1 dimension(s), not shape {tuple(values.shape)}")
    require_group_ids(group_ids, "values", values)
    index, sizes = _group_index(group_ids)
    lowest, highest = _group_extremes(values.byte() if values.dtype == torch.bool else values, index, sizes)
    return ((lowest != highest) | (sizes == 1))[index]


def overlong_penalty(
    lengths: Shaped[Tensor, "rollout"], *, max_length: int, buffer: int, factor: float = 1.0
) -> Float[Tensor, "rollout"]:
    """DAPO's soft penalty: 0 up to `max_length` − `buffer` tokens, falling linearly to −`factor` at `max_length`.

    Never below −`factor`; integer lengths give the default floating dtype.
    """
    if not 0 < buffer <= max_length:
        raise ValueError(f"buffer must lie in 1..max_length ({max_length}), not {buffer}")
    if not lengths.is_floating_point():
        lengths = lengths.to(torch.get_default_dtype())
    return ((max_length - buffer - lengths) / buffer).clamp(min=-1, max=0) * factor


def _group_index(group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's group as a number in 0..groups − 1, and the size of each group."""
    _, index, sizes = torch.unique(group_ids, return_inverse=True, return_counts=True)
    return index, sizes


def _group_sum(values: Tensor, index: Tensor, sizes: Tensor) -> Tensor:
    return values.new_zeros(sizes.numel()).index_add(0, index, values)


def _group_extremes(values: Tensor, index: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    empty = values.new_zeros(sizes.numel())
    lowest = empty.scatter_reduce(0, index, values, "amin", include_self=False)
    return lowest, empty.scatter_reduce(0, index, values, "amax", include_self=False)


def _fill_invalid(scores: Tensor, is_valid: Tensor, index: Tensor, sizes: Tensor) -> Tensor:
    """Scores with those of invalid rows set one below the group's smallest valid score (0 where none is valid)."""
    infinity = torch.full_like(scores, torch.inf)
    lowest, _ = _group_extremes(torch.where(is_valid, scores, infinity), index, sizes)
    has_valid = _group_sum(is_valid.to(scores.dtype), index, sizes) > 0
    floor = torch.where(has_valid, lowest, torch.zeros_like(lowest)) - 1
    return torch.where(is_valid, scores, floor[index])


def _open_verdicts(
    alignment: Tensor, is_correct: Tensor, is_verified: Tensor, group_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether a rollout may be right, and whether it may be wrong: both where it is not verified itself,
    neither where nothing in its group is."""
    require_floating("alignment", alignment, ndim=1)
    require_boolean("is_correct", is_correct, "alignment", alignment)
    require_boolean("is_verified", is_verified, "alignment", alignment)
    require_group_ids(group_ids, "alignment", alignment)
    index, sizes = _group_index(group_ids)
    _, has_verdict = _group_extremes(is_verified.byte(), index, sizes)
    is_judged = has_verdict.bool()[index]
    return is_judged & (is_correct | ~is_verified), is_judged & ~(is_correct & is_verified)
