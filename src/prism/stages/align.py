"""Distribution alignment: a response-level adversarial game between the policy and the discriminator.

Each step samples fresh rollouts, scores them and the teacher's responses on both branches, moves the
policy by the group-normalised scores (paper Eqs. 1, 3, 4) and the discriminator by Bradley-Terry
(Eq. 2). Accuracies are those before the discriminator's update, on rollouts it has never seen.
"""

from collections.abc import Sequence

import torch

from prism.config import AlignConfig, PlannedStage
from prism.errors import ConfigError
from prism.records import Demonstration, RolloutGroup
from prism.rewards import Verdict, num_description_items, num_reasoning_steps
from prism.rollout import Sampling, TransformersEngine
from prism.runtime.optimizer import descend, make_optimizer
from prism.runtime.seeding import derive_seed
from prism.stages.credit import align_advantages, verdicts_of
from prism.stages.datasets import read_alignment
from prism.stages.discriminators import load_discriminator_for_alignment, outside_directories, shown_metrics
from prism.stages.game import game_loss, game_metrics, measure_routing, train_discriminator
from prism.stages.imitation import draw_batch, num_tokens
from prism.stages.policy_update import PolicyObjective, accumulate_policy_gradient, pack_groups
from prism.stages.rollouts import description_metrics, is_sampled, mean, parse_rollout, record_samples, rollout_metrics
from prism.stages.scoring import Contest, ContestBatch, ContestScores, score
from prism.stages.workspace import Workspace

ROUTER = "router.jsonl"
"""The experts' load per layer and view, as often as samples are kept."""


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
        show=(*shown_metrics(workspace.recipe, "gap/{}", "accuracy/{}"), "rollout/length"),
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
        game = ContestBatch(encoder, contests, config.token_budget, discriminator.mode)
        scores = score(discriminator, game)
        pairs = game.pair_scores(scores)
        group_ids = torch.arange(len(groups)).repeat_interleave(config.group_size)
        responses = [response for contest in contests for response in contest.students]
        verdicts = verdicts_of(groups, responses)
        advantages = align_advantages(pairs, group_ids, config.advantage, verdicts)

        packs = pack_groups(encoder, groups, config.token_budget)
        update = accumulate_policy_gradient(policy, packs, advantages, _objective(config), reference=reference)
        policy_norm = descend(policy, policy_optimizer, config.max_grad_norm, name="policy", step=step)

        balance = train_discriminator(
            discriminator,
            game,
            scores,
            regularization=config.score_regularization,
            balance_coefficient=config.balance_coefficient,
        )
        discriminator_norm = descend(
            discriminator, discriminator_optimizer, config.max_grad_norm, name="discriminator", step=step
        )

        metrics = rollout_metrics(groups, responses) | update.named() | game_metrics(pairs)
        metrics |= discriminator_metrics(pairs, config, balance)
        metrics |= answer_metrics(verdicts) | description_metrics(groups, responses) | teacher_metrics(batch)
        metrics |= {"policy/grad_norm": policy_norm, "discriminator/grad_norm": discriminator_norm}
        if is_sampled(run, step):
            routing = measure_routing(discriminator, game.packs, game)
            if routing is not None:
                metrics |= routing.metrics()
                run.log(ROUTER).append({"step": step, **routing.row()})
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


def discriminator_metrics(pairs: ContestScores, config: AlignConfig, balance: float | None) -> dict[str, float | None]:
    """The loss of the discriminator as it was before its update, and its parts."""
    loss = game_loss(pairs, regularization=config.score_regularization)
    metrics: dict[str, float | None] = {
        "loss/discriminator": float(loss.loss),
        "loss/score_regularisation": float(loss.score_regularization),
        "loss/balance": balance,
    }
    return metrics | {f"loss/{view}": float(value) if loss.num_pairs else None for view, value in loss.views.items()}


def answer_metrics(verdicts: Sequence[Verdict | None]) -> dict[str, float | None]:
    """What the game sees only in its hybrid forms: whether the answers are right."""
    found = [verdict for verdict in verdicts if verdict is not None]
    return {
        "reward/accuracy": mean([float(verdict == "correct") for verdict in found]),
        "reward/unverifiable": sum(verdict == "unverifiable" for verdict in found),
    }


def teacher_metrics(demonstrations: Sequence[Demonstration]) -> dict[str, float | None]:
    responses = [demonstration.response for demonstration in demonstrations]
    return {
        "teacher/num_steps": mean([num_reasoning_steps(response.think or "") for response in responses]),
        "teacher/num_items": mean([num_description_items(response.caption or "") for response in responses]),
    }
