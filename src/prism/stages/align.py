"""Distribution alignment: a response-level adversarial game between the policy and the discriminator.

Each step samples fresh rollouts, scores them and the teacher's responses on both branches, moves the
policy by the group-normalised scores (paper Eqs. 1, 3, 4) and the discriminator by Bradley-Terry
(Eq. 2). Accuracies are those before the discriminator's update, on rollouts it has never seen.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prism.config import AlignConfig, BranchAdvantage, PlannedStage
from prism.errors import ConfigError
from prism.objectives import (
    branch_advantages,
    discriminator_accuracy,
    discriminator_loss,
    fill_invalid_scores,
    mixed_advantages,
)
from prism.records import Demonstration, Response, RolloutGroup
from prism.rewards import Verdict, num_description_items, num_reasoning_steps, verdict_of
from prism.rollout import Sampling, TransformersEngine
from prism.runtime.optimizer import clip_gradients, make_optimizer
from prism.runtime.seeding import derive_seed
from prism.stages.datasets import read_alignment
from prism.stages.discriminators import load_discriminator_for_alignment, outside_directories
from prism.stages.imitation import draw_batch, num_tokens
from prism.stages.policy_update import PolicyObjective, accumulate_policy_gradient, pack_groups
from prism.stages.rollouts import description_metrics, mean, parse_rollout, record_samples, rollout_metrics
from prism.stages.scoring import Contest, ContestBatch, ContestScores, backpropagate, score
from prism.stages.workspace import Workspace


def run(workspace: Workspace, planned: PlannedStage) -> None:
    config = workspace.recipe.align
    if config is None:
        raise ConfigError("align: the recipe has no [align] table")
    demonstrations = read_alignment(workspace, config.max_response_tokens)
    run = workspace.open_stage(
        planned,
        [config, workspace.recipe.discriminator],
        num_steps=config.num_steps,
        checkpoint_every=config.checkpoint_every,
        data=("alignment",),
        directories=outside_directories(workspace.recipe),
        show=("gap/perception", "gap/reasoning", "accuracy/perception", "accuracy/reasoning", "rollout/length"),
    )
    if run.is_complete:
        return
    policy, encoder = workspace.load_policy(planned.start)
    reference = workspace.load_policy(planned.start)[0].eval() if config.kl else None
    discriminator = load_discriminator_for_alignment(workspace)
    policy_optimizer = make_optimizer(
        policy, learning_rate=config.policy_learning_rate, weight_decay=config.weight_decay
    )
    discriminator_optimizer = make_optimizer(
        discriminator, learning_rate=config.discriminator_learning_rate, weight_decay=config.weight_decay
    )
    run.attach(
        modules={"policy": policy, "discriminator": discriminator},
        optimizers={"policy": policy_optimizer, "discriminator": discriminator_optimizer},
    )
    engine = TransformersEngine(policy, encoder, batch_size=workspace.recipe.rollout.batch_size)
    sampling = Sampling(config.temperature, config.max_response_tokens)
    for step in run.steps():
        batch = draw_batch(
            demonstrations, (step - 1) * config.prompts_per_step, config.prompts_per_step, workspace.seed, "align"
        )
        groups = engine.generate(
            [demonstration.prompt for demonstration in batch],
            num_samples=config.group_size,
            sampling=sampling,
            seed=derive_seed(workspace.seed, "align", step),
        )
        contests = [_contest(demonstration, group) for demonstration, group in zip(batch, groups, strict=True)]
        game = ContestBatch(encoder, contests, config.token_budget)
        scores = score(discriminator, game)
        pairs = game.pair_scores(scores)
        group_ids = torch.arange(len(groups)).repeat_interleave(config.group_size)
        advantages = align_advantages(pairs, group_ids, config)

        packs = pack_groups(encoder, groups, config.token_budget)
        update = accumulate_policy_gradient(policy, packs, advantages, _objective(config), reference=reference)
        policy_norm = clip_gradients(policy, config.max_grad_norm, name="policy", step=step)
        policy_optimizer.step()
        policy_optimizer.zero_grad()

        backpropagate(discriminator, game, scores, lambda fresh: _discriminator_loss(fresh, config).loss)
        discriminator_norm = clip_gradients(discriminator, config.max_grad_norm, name="discriminator", step=step)
        discriminator_optimizer.step()
        discriminator_optimizer.zero_grad()

        responses = [response for contest in contests for response in contest.students]
        metrics = rollout_metrics(groups, responses) | update.named() | game_metrics(pairs, config)
        metrics |= answer_metrics(groups, responses) | teacher_metrics(batch)
        metrics |= {"policy/grad_norm": policy_norm, "discriminator/grad_norm": discriminator_norm}
        run.record(step, metrics, tokens=update.num_tokens + num_tokens(game.packs))
        record_samples(workspace, run, step, groups, responses, advantages=advantages, pairs=pairs)
    workspace.save_aligned(run, policy, discriminator, encoder)


def _contest(demonstration: Demonstration, group: RolloutGroup) -> Contest:
    return Contest(demonstration.prompt, demonstration.response, tuple(map(parse_rollout, group.rollouts)))


def _objective(config: AlignConfig) -> PolicyObjective:
    return PolicyObjective(
        level="token",
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=None,
        aggregation=config.aggregation,
        temperature=config.temperature,
        kl=config.kl,
    )


def align_advantages(pairs: ContestScores, group_ids: Tensor, config: AlignConfig) -> Tensor:
    """Advantages from the scores of fresh rollouts, in the configured form."""
    form = config.advantage
    if isinstance(form, BranchAdvantage):
        return branch_advantages(
            pairs.perception,
            pairs.reasoning,
            pairs.is_valid,
            group_ids,
            alpha=form.alpha,
            format_penalty=form.format_penalty,
            eps=form.eps,
        )
    # The paper does not say what an unparseable rollout scores: it ranks below every valid one of its group.
    perception = fill_invalid_scores(pairs.perception, pairs.is_valid, group_ids)
    reasoning = fill_invalid_scores(pairs.reasoning, pairs.is_valid, group_ids)
    return mixed_advantages(perception, reasoning, group_ids, alpha=form.alpha, eps=form.eps)


def _discriminator_loss(pairs: ContestScores, config: AlignConfig) -> Any:
    return discriminator_loss(
        pairs.teacher_perception,
        pairs.perception,
        pairs.teacher_reasoning,
        pairs.reasoning,
        weights=pairs.is_valid,
        regularization=config.score_regularization,
    )


def game_metrics(pairs: ContestScores, config: AlignConfig) -> dict[str, float | None]:
    """How far apart teacher and rollouts are for the discriminator as it was before its update."""
    loss = _discriminator_loss(pairs, config)
    metrics: dict[str, float | None] = {
        "loss/discriminator": float(loss.loss),
        "loss/perception": float(loss.perception) if loss.num_pairs else None,
        "loss/reasoning": float(loss.reasoning) if loss.num_pairs else None,
        "loss/score_regularisation": float(loss.score_regularization),
        "accuracy/count": int(pairs.is_valid.sum()),
    }
    for name, teacher, student in (
        ("perception", pairs.teacher_perception, pairs.perception),
        ("reasoning", pairs.teacher_reasoning, pairs.reasoning),
    ):
        metrics[f"accuracy/{name}"] = discriminator_accuracy(teacher, student, pairs.is_valid)[0]
        gaps = (teacher - student)[pairs.is_valid]
        metrics[f"gap/{name}"] = float(gaps.mean()) if gaps.numel() else None
    return metrics


def answer_metrics(groups: Sequence[RolloutGroup], responses: Sequence[Response]) -> dict[str, float | None]:
    """What the game never sees: whether answers and, in the built-in world, descriptions are right."""
    prompts = [group.prompt for group in groups for _ in group.rollouts]
    verdicts = [
        verdict_of(response, prompt) for prompt, response in zip(prompts, responses, strict=True) if prompt.answer
    ]
    return {
        "reward/accuracy": mean([float(verdict is Verdict.CORRECT) for verdict in verdicts]),
        **description_metrics(groups, responses),
    }


def teacher_metrics(demonstrations: Sequence[Demonstration]) -> dict[str, float | None]:
    responses = [demonstration.response for demonstration in demonstrations]
    return {
        "teacher/num_steps": mean([num_reasoning_steps(response.think or "") for response in responses]),
        "teacher/num_items": mean([num_description_items(response.caption or "") for response in responses]),
    }
