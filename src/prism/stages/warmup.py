"""Discriminator warm-up on (teacher, policy rollout) pairs, so that the game neither starts blind nor saturated."""

import json
from collections.abc import Sequence

from prism.config import SAMPLES_PER_PROMPT, PlannedStage, policy_before_alignment
from prism.errors import ConfigError, DataError
from prism.models import Discriminator, PromptEncoder, checkpoint_weights
from prism.records import Demonstration
from prism.rewards import parse_response
from prism.rollout.sampling import Sampling
from prism.runtime.atomic import write_json
from prism.runtime.distributed import from_first
from prism.runtime.optimizer import make_optimizer, make_schedule
from prism.runtime.seeding import derive_seed, python_random
from prism.runtime.stage import StageRun
from prism.stages.datasets import read_alignment
from prism.stages.discriminators import make_discriminator, open_game
from prism.stages.engines import open_engine
from prism.stages.game import game_loss, game_metrics, record_routing, update_discriminator
from prism.stages.imitation import draw_batch, num_tokens
from prism.stages.rollouts import parse_rollout
from prism.stages.scoring import Contest, ContestBatch, score
from prism.stages.workspace import Workspace

ROLLOUTS = "rollouts.json"
"""In the stage's directory: prompt id → the text of the policy's rollout that the demonstration is set against."""


def run(workspace: Workspace, planned: PlannedStage) -> None:
    config = workspace.recipe.warmup
    if config is None:
        raise ConfigError("warmup: the recipe has no [warmup] table")
    run = open_game(workspace, planned, config, "loss/{}", "heldout/{}_accuracy")
    if run.is_complete:
        return
    pool = read_pool(workspace)
    if (missing := config.num_prompts - len(pool)) > 0:
        run.say(
            f"{len(pool)} prompts, where {config.num_prompts} are asked for: {SAMPLES_PER_PROMPT * missing} rollouts "
            "fewer than a baseline of as many rollouts is given for it"
        )
    contests, encoder = make_pairs(workspace, run, pool)
    heldout, training = contests[: config.num_heldout], contests[config.num_heldout :]
    if not training:
        raise DataError(
            f"warmup: {len(contests)} of the prompts drew a valid rollout, none left beside the held-out ones"
        )
    discriminator = workspace.to_train(make_discriminator(workspace), "discriminator")
    optimizer = make_optimizer(discriminator, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    schedule = make_schedule(
        optimizer, kind=config.schedule, num_steps=config.num_steps, warmup_fraction=config.warmup_fraction
    )
    run.attach(
        modules={"discriminator": discriminator},
        optimizers={"discriminator": optimizer},
        schedulers={"discriminator": schedule},
    )
    mode = discriminator.mode
    for step in run.steps():
        pairs = draw_batch(training, (step - 1) * config.batch_size, config.batch_size, workspace.seed, "warmup")
        batch = ContestBatch(encoder, pairs, config.token_budget, mode)
        scores, learned = update_discriminator(
            discriminator,
            optimizer,
            batch,
            step=step,
            max_grad_norm=config.max_grad_norm,
            balance_coefficient=config.balance_coefficient,
        )
        losses = game_loss(batch.pair_scores(scores)).views
        metrics: dict[str, float | None] = {f"loss/{view}": float(loss) for view, loss in losses.items()} | learned
        schedule.step()
        metrics |= record_routing(run, step, discriminator, batch)
        if step % config.evaluate_every == 0 or step == config.num_steps:
            metrics |= measure_heldout(discriminator, ContestBatch(encoder, heldout, config.token_budget, mode))
        run.record(step, metrics, tokens=num_tokens(batch.packs))
    workspace.save_models(run, {"model": discriminator}, encoder)


def read_pool(workspace: Workspace) -> list[Demonstration]:
    """The demonstrations within the warm-up's own limit of tokens, in the order in which it takes them."""
    config = workspace.recipe.warmup
    assert config is not None
    return shuffled(workspace, read_alignment(workspace, config.max_response_tokens))


def shuffled(workspace: Workspace, demonstrations: Sequence[Demonstration]) -> list[Demonstration]:
    """The warm-up's order. One row more or less gives another order of all: what the warm-up takes is told from
    `read_pool` alone."""
    pool = list(demonstrations)
    python_random(workspace.seed, "warmup", "pool").shuffle(pool)
    return pool


def make_pairs(
    workspace: Workspace, run: StageRun, pool: Sequence[Demonstration]
) -> tuple[list[Contest], PromptEncoder]:
    """`sample_pairs`, or those that this very stage sampled before it was cut off: rollouts of a large policy cost more
    than the steps, and an engine that samples on a GPU need not draw the same ones again."""
    path = run.directory / ROLLOUTS
    kept: dict[str, str] | None = from_first(
        lambda: json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    )
    if kept is None:
        contests, encoder = sample_pairs(workspace, pool)
        write_json(path, {contest.prompt.id: contest.students[0].text for contest in contests})
        return contests, encoder
    teachers = {demonstration.prompt.id: demonstration for demonstration in pool}
    contests = [
        Contest(teachers[name].prompt, teachers[name].response, (parse_response(text),)) for name, text in kept.items()
    ]
    return contests, workspace.load_encoder(policy_before_alignment(workspace.recipe))


def sample_pairs(workspace: Workspace, pool: Sequence[Demonstration]) -> tuple[list[Contest], PromptEncoder]:
    """For each prompt the warm-up needs of its pool, the demonstration against one valid rollout of the policy."""
    recipe = workspace.recipe
    config = recipe.warmup
    assert config is not None
    policy, encoder = workspace.load_policy(policy_before_alignment(recipe))
    pool = pool[: config.num_prompts]
    limit = config.max_response_tokens
    with open_engine(workspace, policy, encoder, max_response_tokens=limit, is_checked=True) as engine:
        engine.update_weights(checkpoint_weights(policy))
        groups = engine.generate(
            [demonstration.prompt for demonstration in pool],
            num_samples=SAMPLES_PER_PROMPT,
            sampling=Sampling(config.temperature, limit),
            seed=derive_seed(workspace.seed, "warmup", "rollouts"),
        )
    contests = []
    for demonstration, group in zip(pool, groups, strict=True):
        valid = [response for response in map(parse_rollout, group.rollouts) if response.is_valid]
        if valid:
            contests.append(Contest(demonstration.prompt, demonstration.response, (valid[0],)))
    return contests, encoder


def measure_heldout(discriminator: Discriminator, batch: ContestBatch) -> dict[str, float | None]:
    """Pair accuracy and gap per view on prompts the warm-up never trains on."""
    measured = game_metrics(batch.pair_scores(score(discriminator, batch, is_last_pass=True)))
    count = measured.pop("accuracy/count")
    names = {name: "heldout/{1}_{0}".format(*name.split("/")) for name in measured}
    return {names[name]: value for name, value in measured.items()} | {"heldout/count": count}
