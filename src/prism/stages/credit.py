"""From a discriminator's scores, and where configured from verdicts on the answers, to advantages; and what such
scores follow."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prism.config import AddedAdvantage, Advantage, BranchAdvantage, GatedAdvantage, MixedAdvantage, SignAwareAdvantage
from prism.data.world.datasets import described_fraction
from prism.errors import DataError
from prism.evals.probes import rank_correlation
from prism.models import view_text
from prism.objectives import (
    added_advantages,
    branch_advantages,
    fill_invalid_scores,
    gated_advantages,
    mixed_advantages,
    sign_aware_advantages,
)
from prism.records import Prompt, Response, RolloutGroup
from prism.rewards import Verdict, verdict_of
from prism.runtime.distributed import spread_out
from prism.stages.scoring import ContestScores


def verdicts_of(groups: Sequence[RolloutGroup], responses: Sequence[Response]) -> list[Verdict | None]:
    """The verdict on every rollout's answer, None where its prompt has no answer to check against."""
    prompts = [group.prompt for group in groups for _ in group.rollouts]

    def verdict(pair: tuple[Response, Prompt]) -> Verdict | None:
        response, prompt = pair
        return verdict_of(response, prompt) if prompt.answer else None

    return spread_out(verdict, list(zip(responses, prompts, strict=True)))


def check_answers(form: Advantage, prompts: Iterable[Prompt]) -> None:
    """DataError where an advantage heeds answers and no prompt has one: the game would be that of its base form."""
    if not isinstance(form, BranchAdvantage | MixedAdvantage) and not any(prompt.answer for prompt in prompts):
        raise DataError(
            f'align.advantage.type is "{form.type}", which heeds whether answers are right, and no row of the '
            f'alignment data has an answer: add the answers, or take "{form.base.type}"'
        )


def align_advantages(
    pairs: ContestScores, group_ids: Int[Tensor, "rollout"], form: Advantage, verdicts: Sequence[Verdict | None]
) -> Float[Tensor, "rollout"]:
    """Advantages of fresh rollouts in the configured form; `verdicts` are read by the hybrid ones only."""
    match form:
        case BranchAdvantage() | MixedAdvantage():
            return _base_advantages(pairs, group_ids, form)
        case AddedAdvantage() | GatedAdvantage() | SignAwareAdvantage():
            base = _base_advantages(pairs, group_ids, form.base)
    is_correct = torch.tensor([verdict == "correct" for verdict in verdicts])
    is_verified = _verified(pairs.is_valid, group_ids, verdicts)
    match form:
        case AddedAdvantage():
            rewards = is_correct.to(base.dtype)
            return added_advantages(base, rewards, is_verified, group_ids, weight=form.weight, eps=form.eps)
        case GatedAdvantage():
            return gated_advantages(base, is_correct, is_verified, group_ids)
        case SignAwareAdvantage():
            return sign_aware_advantages(base, is_correct, is_verified, group_ids)


def _base_advantages(pairs: ContestScores, group_ids: Tensor, form: BranchAdvantage | MixedAdvantage) -> Tensor:
    perception, reasoning = pairs.student("perception"), pairs.student("reasoning")
    if isinstance(form, BranchAdvantage):
        return branch_advantages(
            perception,
            reasoning,
            pairs.is_valid,
            group_ids,
            alpha=form.alpha,
            format_penalty=form.format_penalty,
            eps=form.eps,
        )
    # The paper does not say what an unparseable rollout scores: it ranks below every valid one of its group.
    perception, reasoning = (
        fill_invalid_scores(scores, pairs.is_valid, group_ids) for scores in (perception, reasoning)
    )
    return mixed_advantages(perception, reasoning, group_ids, alpha=form.alpha, eps=form.eps)


def _verified(
    is_valid: Bool[Tensor, "rollout"], group_ids: Int[Tensor, "rollout"], verdicts: Sequence[Verdict | None]
) -> Bool[Tensor, "rollout"]:
    """Whether the answer could be checked. A rollout without the format is wrong without a look at the ground
    truth, so in a group where no other verdict was reached it says nothing either."""
    is_checked = torch.tensor([verdict is not None and verdict != "unverifiable" for verdict in verdicts])
    is_decided = (is_checked & is_valid)[None] & (group_ids[:, None] == group_ids[None])
    return is_checked & is_decided.any(1)


def credit_metrics(
    groups: Sequence[RolloutGroup],
    responses: Sequence[Response],
    verdicts: Sequence[Verdict | None],
    pairs: ContestScores,
) -> dict[str, float | None]:
    """What the scores follow among the valid rollouts of a prompt, which is all that the policy learns from them.

    Rank correlations of each view's scores with the length of the text that is scored, with whether the answer is
    right and, in the built-in world, with how much of the description is. None where nothing varies or nobody knows.
    """
    prompts = [group.prompt for group in groups for _ in group.rollouts]
    places = [str(place) for place, group in enumerate(groups) for _ in group.rollouts]
    facts = [
        described_fraction(prompt, str(response.caption)) if response.is_valid else None
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    answers = [
        float(verdict == "correct") if response.is_valid and verdict in ("correct", "wrong") else None
        for verdict, response in zip(verdicts, responses, strict=True)
    ]
    metrics: dict[str, float | None] = {}
    for view, scores in pairs.views.items():
        lengths = [len(view_text(response, view)) if response.is_valid else None for response in responses]
        for name, values in (("length", lengths), ("answer", answers), ("facts", facts)):
            metrics[f"credit/{view}_{name}"] = _followed(scores.student.tolist(), values, places)
    return metrics


def _followed(scores: Sequence[float], values: Sequence[float | None], places: Sequence[str]) -> float | None:
    known = [(row, value) for row, value in enumerate(values) if value is not None]
    rows = [row for row, _ in known]
    followed = [value for _, value in known]
    return rank_correlation([scores[row] for row in rows], followed, [places[row] for row in rows]).mean
