"""Reinforcement learning with verifiable rewards: GRPO, DAPO and GSPO as special cases of one loop."""

import itertools
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from prism.config import Dapo, Grpo, Gspo, PlannedStage, RlvrConfig, RolloutConfig
from prism.errors import ConfigError
from prism.models import PromptEncoder, checkpoint_weights
from prism.objectives import grpo_advantages, has_signal, overlong_penalty
from prism.packing import PackedTrees
from prism.records import Prompt, Response, RolloutGroup
from prism.rewards import Reward, mix_reward
from prism.rollout.sampling import RolloutEngine, Sampling
from prism.runtime.distributed import spread_out
from prism.runtime.optimizer import descend, make_optimizer
from prism.runtime.seeding import derive_seed
from prism.stages.datasets import read_rl
from prism.stages.engines import open_engine
from prism.stages.imitation import draw_batch, num_tokens
from prism.stages.mismatch import check_sampler, importance_of, join, mismatch_metrics, sampler_logprobs
from prism.stages.policy_update import PolicyObjective, accumulate_policy_gradient, pack_groups, rollout_logprobs
from prism.stages.rollouts import description_metrics, mean, parse_rollout, record_samples, rollout_metrics
from prism.stages.workspace import Workspace

Algorithm = Grpo | Dapo | Gspo


@dataclass(frozen=True, slots=True)
class RewardedGroup:
    """A rollout group with its parsed responses and their rewards, in the order of its rollouts."""

    group: RolloutGroup
    responses: tuple[Response, ...]
    rewards: tuple[Reward, ...]

    @property
    def accuracies(self) -> Tensor:
        return torch.tensor([reward.accuracy for reward in self.rewards])


def run(workspace: Workspace, planned: PlannedStage) -> None:
    config, algorithm = workspace.recipe.rlvr, planned.algorithm
    if config is None or algorithm is None or planned.num_steps is None:
        raise ConfigError("rlvr: the recipe has no [rlvr] table")
    # What the recipe asks of its other stages of RLVR, a baseline of other steps among them, is no part of this one.
    own = config.model_copy(update={"algorithms": (algorithm,), "baselines": None, "num_steps": planned.num_steps})
    run = workspace.open_stage(
        planned,
        [own, *workspace.sampling_settings],
        num_steps=planned.num_steps,
        checkpoint_every=config.checkpoint_every,
        data=("rl",),
        show=("reward/total", "reward/accuracy", "reward/format", "rollout/length", "rollout/entropy"),
    )
    if run.is_complete:
        return
    prompts = {prompt.id: prompt for prompt in read_rl(workspace)}
    policy, encoder = workspace.load_policy_to_train(planned.start)
    optimizer = make_optimizer(policy, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    state: dict[str, Any] = {"position": 0, "leftover": []}
    run.attach(modules={"policy": policy}, optimizers={"policy": optimizer}, state=state)
    objective = _objective(config, algorithm, encoder, workspace.recipe.rollout)
    sampler = PromptSampler(prompts, state, workspace.seed)
    with open_engine(workspace, policy, encoder, max_response_tokens=config.max_response_tokens) as engine:
        for step in run.steps():
            engine.update_weights(checkpoint_weights(policy))
            kept, metrics = collect(engine, sampler, config, algorithm, seed=derive_seed(workspace.seed, "rlvr", step))
            engine.sleep()
            groups = [rewarded.group for rewarded in kept]
            responses = [response for rewarded in kept for response in rewarded.responses]
            rewards = total_rewards(kept, config, algorithm)
            metrics |= rollout_metrics(groups, responses) | reward_metrics(kept, rewards)
            metrics |= description_metrics(groups, responses)
            advantages = grpo_advantages(rewards, torch.arange(len(kept)).repeat_interleave(config.group_size))

            parts = pack_mini_batches(encoder, groups, advantages, config)
            metrics |= update_policy(policy, optimizer, parts, objective, config, workspace.recipe.rollout, step)
            run.record(step, metrics, tokens=sum(num_tokens(part.packs) for part in parts))
            record_samples(workspace, run, step, groups, responses, advantages=advantages, rewards=rewards)
    workspace.save_models(run, {"model": policy}, encoder)


@dataclass(frozen=True, slots=True, eq=False)
class MiniBatch:
    """The packed rollouts of one optimizer step and their advantages, in the order of the packs' rows.

    `sampler_logprobs` (per pack) are what the engine reported of them, if it did."""

    packs: list[PackedTrees]
    advantages: Tensor
    sampler_logprobs: list[Tensor] | None


def pack_mini_batches(
    encoder: PromptEncoder, groups: Sequence[RolloutGroup], advantages: Tensor, config: RlvrConfig
) -> list[MiniBatch]:
    """`num_mini_batches` parts of whole groups (fewer if there are fewer groups), sizes as even as can be."""
    num_parts = min(config.num_mini_batches, len(groups))
    bounds = [len(groups) * part // num_parts for part in range(num_parts + 1)]
    parts = []
    for start, end in itertools.pairwise(bounds):
        packs = pack_groups(encoder, groups[start:end], config.token_budget)
        own = advantages[start * config.group_size : end * config.group_size]
        parts.append(MiniBatch(packs, own, sampler_logprobs(groups[start:end], packs)))
    return parts


def update_policy(
    policy: Any,
    optimizer: Optimizer,
    parts: Sequence[MiniBatch],
    objective: PolicyObjective,
    config: RlvrConfig,
    rollout: RolloutConfig,
    step: int,
) -> dict[str, float | None]:
    """One optimizer step per part; means over the parts.

    Raises RolloutError where the rollouts are not the policy's.
    """
    # Updates after the first are off-policy: their ratios refer to the policy that sampled.
    old = [None, *(rollout_logprobs(policy, part.packs, objective) for part in parts[1:])]
    updates, mismatches = [], []
    for part, old_logprobs in zip(parts, old, strict=True):
        update = accumulate_policy_gradient(
            policy,
            part.packs,
            part.advantages,
            objective,
            old_logprobs=old_logprobs,
            sampler_logprobs=part.sampler_logprobs,
        )
        check_sampler(update.mismatch, rollout, f"step {step}")
        norm = descend(policy, optimizer, config.max_grad_norm, name="policy", step=step)
        updates.append(update.named() | {"policy/grad_norm": norm})
        mismatches.append(update.mismatch)
    means = {name: mean([value for update in updates if (value := update[name]) is not None]) for name in updates[0]}
    return means | mismatch_metrics(join(mismatches), rollout)


class PromptSampler:
    """Hands out prompts: those left over from earlier steps first, then an endless shuffled stream.

    `state` (position in the stream, ids left over) belongs to the checkpoint.
    """

    def __init__(self, prompts: dict[str, Prompt], state: MutableMapping[str, Any], seed: int) -> None:
        self._prompts = prompts
        self._ids = sorted(prompts)
        self._state = state
        self._seed = seed

    def take(self, count: int) -> list[Prompt]:
        leftover = self._state["leftover"]
        ids, self._state["leftover"] = leftover[:count], leftover[count:]
        missing = count - len(ids)
        ids = ids + draw_batch(self._ids, self._state["position"], missing, self._seed, "rlvr")
        self._state["position"] += missing
        return [self._prompts[name] for name in ids]

    def give_back(self, prompts: Sequence[Prompt]) -> None:
        """Prompts that taught something but found no room: the next step samples them afresh."""
        self._state["leftover"] = [prompt.id for prompt in prompts] + self._state["leftover"]

    @property
    def num_leftover(self) -> int:
        return len(self._state["leftover"])


def collect(
    engine: RolloutEngine, sampler: PromptSampler, config: RlvrConfig, algorithm: Algorithm, *, seed: int
) -> tuple[list[RewardedGroup], dict[str, float | None]]:
    """Rewarded groups for one step: `prompts_per_step` of them.

    With DAPO's dynamic sampling only groups whose rollouts differ in accuracy count; it refills until
    there are enough or `max_refills` is reached. If no group differs at all the step falls back to
    the first groups, whose advantages come from format and length alone or are 0.
    """
    sampling = Sampling(config.temperature, config.max_response_tokens)
    if not isinstance(algorithm, Dapo):
        return _sample(engine, sampler.take(config.prompts_per_step), config, sampling, seed), {}
    one_group = torch.zeros(config.group_size, dtype=torch.long)
    kept: list[RewardedGroup] = []
    fallback: list[RewardedGroup] = []
    num_generated = num_refills = 0
    while len(kept) < config.prompts_per_step and num_refills <= algorithm.max_refills:
        prompts = sampler.take(algorithm.oversampling * config.prompts_per_step)
        fresh = _sample(engine, prompts, config, sampling, derive_seed(seed, "refill", num_refills))
        num_generated += len(fresh)
        num_refills += 1
        fallback = fallback or fresh[: config.prompts_per_step]
        kept += [rewarded for rewarded in fresh if bool(has_signal(rewarded.accuracies, one_group).all())]
    sampler.give_back([group.group.prompt for group in kept[config.prompts_per_step :]])
    metrics: dict[str, float | None] = {
        "dapo/generated_prompts": num_generated,
        "dapo/kept_prompts": len(kept),
        "dapo/leftover_prompts": sampler.num_leftover,
    }
    return kept[: config.prompts_per_step] or fallback, metrics


def _sample(
    engine: RolloutEngine, prompts: Sequence[Prompt], config: RlvrConfig, sampling: Sampling, seed: int
) -> list[RewardedGroup]:
    groups = engine.generate(prompts, num_samples=config.group_size, sampling=sampling, seed=seed)

    def reward(group: RolloutGroup) -> tuple[tuple[Response, ...], tuple[Reward, ...]]:
        responses = tuple(map(parse_rollout, group.rollouts))
        rewards = tuple(
            mix_reward(
                response,
                group.prompt,
                accuracy_weight=config.accuracy_weight,
                format_weight=config.format_weight,
            )
            for response in responses
        )
        return responses, rewards

    # Every process has the groups, whose prompts may hold images: only what is found of them is exchanged.
    found = spread_out(reward, groups)
    return [RewardedGroup(group, responses, rewards) for group, (responses, rewards) in zip(groups, found, strict=True)]


def total_rewards(groups: Sequence[RewardedGroup], config: RlvrConfig, algorithm: Algorithm) -> Tensor:
    """Accuracy and format, and DAPO's penalty for overlong responses."""
    rewards = torch.tensor([reward.total for rewarded in groups for reward in rewarded.rewards])
    if not isinstance(algorithm, Dapo):
        return rewards
    lengths = torch.tensor([len(rollout.token_ids) for rewarded in groups for rollout in rewarded.group.rollouts])
    return rewards + overlong_penalty(
        lengths,
        max_length=config.max_response_tokens,
        buffer=algorithm.overlong_buffer,
        factor=algorithm.overlong_factor,
    )


def _objective(
    config: RlvrConfig, algorithm: Algorithm, encoder: PromptEncoder, rollout: RolloutConfig
) -> PolicyObjective:
    return PolicyObjective(
        level=algorithm.level,
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        dual_clip=algorithm.dual_clip,
        aggregation=algorithm.aggregation,
        temperature=config.temperature,
        banned_token_ids=encoder.banned_token_ids,
        importance=importance_of(rollout),
    )


def reward_metrics(groups: Sequence[RewardedGroup], rewards: Tensor) -> dict[str, float | None]:
    parts = [reward for rewarded in groups for reward in rewarded.rewards]
    return {
        "reward/total": float(rewards.mean()),
        "reward/accuracy": mean([reward.accuracy for reward in parts]),
        "reward/format": mean([reward.format for reward in parts]),
        "reward/unverifiable": sum(reward.is_unverifiable for reward in parts),
    }
