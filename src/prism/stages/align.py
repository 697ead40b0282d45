"""Distribution alignment: a response-level adversarial game between the policy and the discriminator.

Each step samples fresh rollouts, scores them and the teacher's responses on both branches, moves the
discriminator by Bradley-Terry (Eq. 2) and the policy by the group-normalised scores (Eqs. 1, 3, 4).
Both learn from the same scores, those before the discriminator's update; accuracies are on rollouts it
has never seen. The discriminator goes first since its scores and its gradient come from one pass.
With `align.control` a step is played as `stages.control` has decided, and a game that has failed stops; with
`audit.every` it stops past a flag of an audit (`stages.game_audit`).
One that was played to its end is looked back upon, with or without control (`stages.hindsight`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from prism.config import AlignConfig, PlannedStage, RolloutConfig
from prism.errors import ConfigError
from prism.models import Discriminator, PromptEncoder, checkpoint_weights
from prism.rollout.sampling import Sampling
from prism.runtime.distributed import from_first
from prism.runtime.jsonl import read_jsonl
from prism.runtime.optimizer import clip_gradients, descend, make_optimizer
from prism.runtime.seeding import derive_seed
from prism.runtime.stage import METRICS, StageRun
from prism.stages.control import Control, Decision, scaled_rates
from prism.stages.credit import check_answers
from prism.stages.datasets import read_alignment
from prism.stages.discriminators import load_discriminator_for_alignment, open_game
from prism.stages.engines import open_engine
from prism.stages.game import record_routing, update_discriminator
from prism.stages.game_audit import GameAudits
from prism.stages.hindsight import look_back
from prism.stages.imitation import draw_batch, num_tokens
from prism.stages.mismatch import check_sampler, importance_of, mismatch_metrics, sampler_logprobs
from prism.stages.policy_update import PolicyObjective, UpdateMetrics, accumulate_policy_gradient, pack_groups
from prism.stages.rollouts import record_samples
from prism.stages.round import Round, by_prompt_id, make_contest, make_round, replayed_contests
from prism.stages.scoring import Contest, ContestBatch
from prism.stages.workspace import Workspace

EVENTS = "events.jsonl"
"""What collapse control changed, when and why, and what there is to warn of in hindsight."""


@dataclass(frozen=True, slots=True, eq=False)
class Players:
    """Both sides of the game with their optimizers; `reference` is the policy that a KL term refers to."""

    encoder: PromptEncoder
    policy: Any
    policy_optimizer: Optimizer
    reference: Any | None
    discriminator: Discriminator
    discriminator_optimizer: Optimizer


def run(workspace: Workspace, planned: PlannedStage) -> None:
    config = workspace.recipe.align
    if config is None:
        raise ConfigError("align: the recipe has no [align] table")
    run = open_game(workspace, planned, config, "gap/{}", "accuracy/{}", "rollout/length")
    if run.is_complete:
        return
    demonstrations = read_alignment(workspace, config.max_response_tokens)
    check_answers(config.advantage, (demonstration.prompt for demonstration in demonstrations))
    players = _load_players(workspace, planned.start, config)
    discriminator, encoder = players.discriminator, players.encoder
    control, audits = _attach(workspace, run, players, config)
    control.check()
    audits.check()
    teachers = by_prompt_id(demonstrations) if config.control and config.control.replay else {}
    sampling = Sampling(config.temperature, config.max_response_tokens)
    with open_engine(workspace, players.policy, encoder, max_response_tokens=sampling.max_tokens) as engine:
        for step in run.steps():
            decision = control.decision
            batch = draw_batch(
                demonstrations, (step - 1) * config.prompts_per_step, config.prompts_per_step, workspace.seed, "align"
            )
            engine.update_weights(checkpoint_weights(players.policy))
            groups = engine.generate(
                [demonstration.prompt for demonstration in batch],
                num_samples=config.group_size,
                sampling=sampling,
                seed=derive_seed(workspace.seed, "align", step),
            )
            engine.sleep()
            contests = [make_contest(demonstration, group) for demonstration, group in zip(batch, groups, strict=True)]
            replayed = replayed_contests(control, step, contests, teachers)
            game = ContestBatch(encoder, [*contests, *replayed], config.token_budget, discriminator.mode)
            scores, learned = _update_discriminator(players, game, config, decision, step)
            played = make_round(batch, groups, contests, game.pair_scores(scores), config)
            metrics = played.metrics(config, encoder)

            rollout = workspace.recipe.rollout
            update, policy_norm = update_policy(players, played, config, decision, rollout, step)
            metrics |= update.named() | {"policy/grad_norm": policy_norm} | mismatch_metrics(update.mismatch, rollout)
            metrics |= learned | record_routing(run, step, discriminator, game)
            control.remember(step, played.valid_texts)
            metrics |= _observe(control, run, step, metrics, replayed)
            run.record(step, metrics, tokens=update.num_tokens + num_tokens(game.packs))
            record_samples(
                workspace, run, step, groups, played.responses, advantages=played.advantages, pairs=played.pairs
            )
            if control.has_collapsed:
                run.save(step)
            control.check()
            audits.audit_if_due(step, demonstrations, engine)
    _warn(run)
    workspace.save_models(run, {"model": players.policy, "discriminator": discriminator}, encoder)


def _load_players(workspace: Workspace, start: str, config: AlignConfig) -> Players:
    policy, encoder = workspace.load_policy_to_train(start)
    discriminator = workspace.to_train(load_discriminator_for_alignment(workspace), "discriminator")
    return Players(
        encoder=encoder,
        policy=policy,
        policy_optimizer=make_optimizer(
            policy, learning_rate=config.policy_learning_rate, weight_decay=config.weight_decay
        ),
        reference=workspace.load_reference(start) if config.kl else None,
        discriminator=discriminator,
        discriminator_optimizer=make_optimizer(
            discriminator, learning_rate=config.discriminator_learning_rate, weight_decay=config.weight_decay
        ),
    )


def _attach(workspace: Workspace, run: StageRun, players: Players, config: AlignConfig) -> tuple[Control, GameAudits]:
    """Restores both sides and what watches over them from the newest checkpoint, if there is one."""
    state: dict[str, Any] = {}
    run.attach(
        modules={"policy": players.policy, "discriminator": players.discriminator},
        optimizers={"policy": players.policy_optimizer, "discriminator": players.discriminator_optimizer},
        state=state,
    )
    models = (players.policy, players.encoder, players.discriminator)
    return Control(config.control, state, seed=run.seed), GameAudits(workspace, run, models, state)


def update_policy(
    players: Players, played: Round, config: AlignConfig, decision: Decision, rollout: RolloutConfig, step: int
) -> tuple[UpdateMetrics, float]:
    """The policy's step and the norm of its gradient, which a policy that is held has without taking the step.

    Raises RolloutError where the rollouts are not the policy's.
    """
    objective = PolicyObjective(
        level="token",
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=None,
        aggregation=config.aggregation,
        temperature=config.temperature,
        banned_token_ids=players.encoder.banned_token_ids,
        kl=config.kl,
        importance=importance_of(rollout),
    )
    packs = pack_groups(players.encoder, played.groups, config.token_budget)
    update = accumulate_policy_gradient(
        players.policy,
        packs,
        played.advantages,
        objective,
        sampler_logprobs=sampler_logprobs(played.groups, packs),
        reference=players.reference,
    )
    check_sampler(update.mismatch, rollout, f"step {step}")
    if decision.policy_updates:
        with scaled_rates(players.policy_optimizer, decision.policy_rate):
            norm = descend(players.policy, players.policy_optimizer, config.max_grad_norm, name="policy", step=step)
    else:
        norm = clip_gradients(players.policy, math.inf, name="policy", step=step)
        players.policy_optimizer.zero_grad()
    return update, norm


def _update_discriminator(
    players: Players, game: ContestBatch, config: AlignConfig, decision: Decision, step: int
) -> tuple[Tensor, dict[str, float | None]]:
    return update_discriminator(
        players.discriminator,
        players.discriminator_optimizer,
        game,
        step=step,
        max_grad_norm=config.max_grad_norm,
        balance_coefficient=config.balance_coefficient,
        regularization=config.score_regularization,
        label_smoothing=decision.label_smoothing,
        num_updates=decision.discriminator_updates,
        rate=decision.discriminator_rate,
    )


def _observe(
    control: Control, run: StageRun, step: int, metrics: Mapping[str, float | None], replayed: Sequence[Contest]
) -> dict[str, float | None]:
    """Lets collapse control see the step and logs what happens; what to record of it, nothing without control."""
    named, events = control.observe(step, metrics)
    for event in events:
        _log_event(run, event)
    return named | {"control/replayed": sum(len(contest.students) for contest in replayed)} if named else {}


def _warn(run: StageRun) -> None:
    """Shows and records what the game's metrics, all steps done, say against its result."""
    for warning in from_first(lambda: look_back(read_jsonl(run.directory / METRICS))):
        _log_event(run, warning.event(run.num_steps))


def _log_event(run: StageRun, event: Mapping[str, Any]) -> None:
    if event["event"] == "warning":
        run.say(f"warning: {event['diagnosis']}: {event['reason']}")
    run.log(EVENTS).append(event)
