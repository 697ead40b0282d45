"""One round of the game: fresh rollouts, what the discriminator makes of them, and what it had heard before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prism.config import AlignConfig
from prism.errors import DataError
from prism.evals.drift import plug_in_distances
from prism.models import PromptEncoder
from prism.records import Demonstration, Response, RolloutGroup
from prism.rewards import Verdict, num_description_items, num_reasoning_steps, parse_response
from prism.stages.control import Control
from prism.stages.credit import align_advantages, credit_metrics, verdicts_of
from prism.stages.game import game_loss, game_metrics
from prism.stages.length import without_length
from prism.stages.rollouts import description_metrics, mean, parse_rollout, rollout_metrics
from prism.stages.scoring import Contest, ContestScores, ViewScores


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Fresh rollouts of one step, in the order of `responses`, before either side has learned from them."""

    demonstrations: Sequence[Demonstration]
    groups: Sequence[RolloutGroup]
    responses: Sequence[Response]
    pairs: ContestScores
    verdicts: Sequence[Verdict | None]
    advantages: Float[Tensor, "rollout"]

    @property
    def valid_texts(self) -> list[tuple[str, str]]:
        """(prompt id, text) of each valid rollout."""
        ids = [group.prompt.id for group in self.groups for _ in group.rollouts]
        return [(name, found.text) for name, found in zip(ids, self.responses, strict=True) if found.is_valid]

    def metrics(self, config: AlignConfig, encoder: PromptEncoder) -> dict[str, float | None]:
        metrics = rollout_metrics(self.groups, self.responses) | game_metrics(self.pairs)
        metrics |= discriminator_metrics(self.pairs, config) | answer_metrics(self.verdicts)
        metrics |= credit_metrics(self.groups, self.responses, self.verdicts, self.pairs)
        metrics |= description_metrics(self.groups, self.responses) | teacher_metrics(self.demonstrations, encoder)
        return metrics | drift_metrics(self.demonstrations, self.responses)


def make_contest(demonstration: Demonstration, group: RolloutGroup) -> Contest:
    return Contest(demonstration.prompt, demonstration.response, tuple(map(parse_rollout, group.rollouts)))


def make_round(
    demonstrations: Sequence[Demonstration],
    groups: Sequence[RolloutGroup],
    contests: Sequence[Contest],
    pairs: ContestScores,
    config: AlignConfig,
) -> Round:
    """`contests` are those of `groups`. `pairs` may go on with pairs of replayed rollouts, which earn nothing."""
    responses = [response for contest in contests for response in contest.students]
    fresh = first_pairs(pairs, len(responses))
    group_ids = torch.arange(len(groups)).repeat_interleave(config.group_size)
    verdicts = verdicts_of(groups, responses)
    scored = without_length(fresh, responses, group_ids) if config.length_correction else fresh
    advantages = align_advantages(scored, group_ids, config.advantage, verdicts)
    return Round(demonstrations, groups, responses, fresh, verdicts, advantages)


def first_pairs(pairs: ContestScores, count: int) -> ContestScores:
    """The pairs of the first `count` rollouts."""
    views = dict(pairs.views)
    for view, found in pairs.views.items():
        views[view] = ViewScores(found.teacher[:count], found.student[:count])
    return ContestScores(views, pairs.is_valid[:count])


def by_prompt_id(demonstrations: Sequence[Demonstration]) -> dict[str, Demonstration]:
    """Raises DataError where several have one id, and replay could not tell whose rollouts it kept."""
    found = {demonstration.prompt.id: demonstration for demonstration in demonstrations}
    if len(found) < len(demonstrations):
        raise DataError(
            f"alignment data: {len(demonstrations) - len(found)} rows have the prompt id of another row; make the ids "
            "unique, or take the replay out of align.control.reactions, which finds the teacher's response by its id"
        )
    return found


def replayed_contests(
    control: Control, step: int, contests: Sequence[Contest], teachers: Mapping[str, Demonstration]
) -> list[Contest]:
    """Rollouts of earlier steps against the teacher's response to the same prompt, as many as were decided beside
    the valid ones of `contests`; none in a step in which the discriminator does not learn."""
    if not control.decision.discriminator_updates:
        return []
    num_fresh = sum(response.is_valid for contest in contests for response in contest.students)
    return [
        Contest(teachers[prompt_id].prompt, teachers[prompt_id].response, tuple(map(parse_response, texts)))
        for prompt_id, texts in control.replayed(step, num_fresh).items()
    ]


def discriminator_metrics(pairs: ContestScores, config: AlignConfig) -> dict[str, float | None]:
    """The discriminator's loss on fresh pairs as the paper has it, whatever a reaction makes of it, and its parts."""
    loss = game_loss(pairs, regularization=config.score_regularization)
    metrics: dict[str, float | None] = {
        "loss/discriminator": float(loss.loss),
        "loss/score_regularisation": float(loss.score_regularization),
    }
    return metrics | {f"loss/{view}": float(value) if loss.num_pairs else None for view, value in loss.views.items()}


def answer_metrics(verdicts: Sequence[Verdict | None]) -> dict[str, float | None]:
    """What the game sees only in its hybrid forms: whether the answers are right."""
    found = [verdict for verdict in verdicts if verdict is not None]
    return {
        "reward/accuracy": mean([float(verdict == "correct") for verdict in found]),
        "reward/unverifiable": sum(verdict == "unverifiable" for verdict in found),
    }


def teacher_metrics(demonstrations: Sequence[Demonstration], encoder: PromptEncoder) -> dict[str, float | None]:
    """Means over the step's demonstrations; the length in tokens, as that of rollouts."""
    responses = [demonstration.response for demonstration in demonstrations]
    return {
        "teacher/length": mean([len(encoder.completion_ids(response.text)) for response in responses]),
        "teacher/num_steps": mean([num_reasoning_steps(response.think or "") for response in responses]),
        "teacher/num_items": mean([num_description_items(response.caption or "") for response in responses]),
    }


def drift_metrics(demonstrations: Sequence[Demonstration], responses: Sequence[Response]) -> dict[str, float | None]:
    """How far the step's rollouts are from the teacher's responses to the same prompts, of which each has one.
    `responses` holds as many to each demonstration's prompt, in their order."""
    size = len(responses) // len(demonstrations)
    # By place: a batch that goes over the end of the data may hold a prompt twice.
    students = {str(place): responses[place * size : (place + 1) * size] for place in range(len(demonstrations))}
    teacher = {str(place): [demonstration.response] for place, demonstration in enumerate(demonstrations)}
    return {f"drift/{name}": distance for name, distance in plug_in_distances(students, teacher).items()}
