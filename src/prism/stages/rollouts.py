"""Fresh rollouts of a step: sampled, parsed, counted."""

from collections.abc import Sequence

from torch import Tensor

from prism.data.world.datasets import described_fraction
from prism.evals.shape import shape
from prism.records import Response, Rollout, RolloutGroup
from prism.rewards import num_description_items, num_reasoning_steps, parse_response
from prism.runtime.stage import StageRun
from prism.stages.scoring import ContestScores
from prism.stages.workspace import Workspace

SAMPLE_EVERY = 10
"""Steps between the rollouts kept for the report."""

TRUNCATED = "truncated"
"""The reason a response is invalid when it has no end token, whatever its text holds so far."""


def parse_rollout(rollout: Rollout) -> Response:
    """The rollout's response; one that was cut off by the token limit is invalid."""
    if not rollout.is_finished:
        return Response(rollout.text, is_valid=False, reason=TRUNCATED)
    return parse_response(rollout.text)


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return sum(values) / len(values) if values else None


def rollout_metrics(groups: Sequence[RolloutGroup], responses: Sequence[Response]) -> dict[str, float | None]:
    """Counts and shapes of the step's rollouts, in the order of `responses`.

    Repetition and variety are those of the whole texts, valid or not (`evals.shape.shape`).
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    valid = [response for response in responses if response.is_valid]
    texts = shape(responses)["whole"]
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    return {
        "rollout/count": len(responses),
        "rollout/valid_count": len(valid),
        "rollout/valid_fraction": len(valid) / len(responses),
        "rollout/truncated_count": sum(not rollout.is_finished for rollout in rollouts),
        "rollout/length": mean(lengths),
        "rollout/longest": max(lengths),
        "rollout/num_steps": mean([num_reasoning_steps(response.think or "") for response in valid]),
        "rollout/num_items": mean([num_description_items(response.caption or "") for response in valid]),
        "rollout/repetition": texts["repetition"].mean,
        "rollout/distinct_2": texts["distinct_2"].mean,
    }


def description_metrics(groups: Sequence[RolloutGroup], responses: Sequence[Response]) -> dict[str, float | None]:
    """How right the valid rollouts' descriptions are; None outside the built-in world, where nobody knows."""
    prompts = [group.prompt for group in groups for _ in group.rollouts]
    fractions = [
        fraction
        for prompt, response in zip(prompts, responses, strict=True)
        if response.caption is not None and (fraction := described_fraction(prompt, response.caption)) is not None
    ]
    return {
        "reward/caption_exact": mean([float(fraction == 1) for fraction in fractions]),
        "reward/caption_fraction": mean(fractions),
    }


def is_sampled(run: StageRun, step: int) -> bool:
    """Whether rollouts of this step are kept for the report."""
    return step % SAMPLE_EVERY == 0 or step == run.num_steps


def record_samples(
    workspace: Workspace,
    run: StageRun,
    step: int,
    groups: Sequence[RolloutGroup],
    responses: Sequence[Response],
    *,
    advantages: Tensor,
    rewards: Tensor | None = None,
    pairs: ContestScores | None = None,
) -> None:
    """Keeps the first and last rollout of the step's first prompt, every tenth step and at the end."""
    if not is_sampled(run, step):
        return
    group = groups[0]
    for index in (0, len(group.rollouts) - 1):
        scores = None
        if pairs is not None and bool(pairs.is_valid[index]):
            scores = {view: float(found.student[index]) for view, found in pairs.views.items()}
        run.sample(
            step,
            {
                "prompt_id": group.prompt.id,
                "question": group.prompt.question,
                "image": workspace.keep_image(group.prompt),
                "answer": group.prompt.answer,
                "response": responses[index].text,
                "reward": None if rewards is None else float(rewards[index]),
                "advantage": float(advantages[index]),
                "scores": scores,
                "is_valid": responses[index].is_valid,
            },
        )
