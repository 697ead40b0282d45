"""A GRPO step and its policy update: prompt trees against TRL's GRPOTrainer.

    python benchmarks/grpo_step.py [--prompts 1] [--group-size 16] [--image-tokens 576] [--micro-batch 8] [--pairs 5]

Both train the same model on the same completions of the same prompts in one process, in turn, and sample with the same
engine, ours, which decodes given completions. TRL's step is timed inside its training loop. `update` is what comes
after completions, rewards and inputs are there: forward, backward, clipping, optimizer. Before anything counts, TRL's
loss, log-probabilities and gradients of the first step must equal ours. See `trl_rival.py` for how to install TRL.
"""

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from side_by_side import (
    GRPO,
    Pairs,
    Script,
    Writer,
    assert_same_gradients,
    clock,
    make_encoder,
    make_policy,
    memory_growth,
    parse_arguments,
)
from transformers import Qwen3VLForConditionalGeneration
from trl_rival import BeforeFirstStep, InTurn, TimedGrpoTrainer, make_grpo_trainer

from prism.models import PromptEncoder
from prism.objectives import grpo_advantages
from prism.records import Prompt, RolloutGroup
from prism.rewards import mix_reward, parse_response
from prism.runtime.optimizer import clip_gradients, descend, make_optimizer
from prism.stages.policy_update import accumulate_policy_gradient, pack_groups

EPS = 1e-4
"""What TRL adds to the standard deviation of a group's rewards."""


def reward(text: str) -> float:
    prompt = Prompt("", "", answer="5")
    return mix_reward(parse_response(text), prompt, accuracy_weight=0.8, format_weight=0.2).total


class Ours:
    """One step at a time; `update_seconds` are those of the last one's update."""

    def __init__(self, policy: Qwen3VLForConditionalGeneration, encoder: PromptEncoder, token_budget: int) -> None:
        self.policy, self.encoder, self._token_budget = policy, encoder, token_budget
        self._optimizer = make_optimizer(policy, learning_rate=1e-6, weight_decay=0.01)
        self.update_seconds = 0.0

    def gradient(self, groups: Sequence[RolloutGroup]) -> float:
        """Adds the gradient; returns the loss."""
        rewards = torch.tensor([reward(rollout.text) for group in groups for rollout in group.rollouts])
        group_ids = torch.arange(len(groups)).repeat_interleave(len(groups[0].rollouts))
        advantages = grpo_advantages(rewards, group_ids, eps=EPS)
        started = clock()
        packs = pack_groups(self.encoder, groups, self._token_budget)
        loss = accumulate_policy_gradient(self.policy, packs, advantages, GRPO).loss
        self.update_seconds = clock() - started
        return loss

    def step(self, groups: Sequence[RolloutGroup]) -> None:
        self.gradient(groups)
        started = clock()
        descend(self.policy, self._optimizer, 1.0, name="policy", step=1)
        self.update_seconds += clock() - started


class SameResults:
    """Compares what TRL has before its first optimizer step with ours."""

    def __init__(self, trainer: TimedGrpoTrainer, ours: Ours, groups: Sequence[RolloutGroup]) -> None:
        self._trainer, self._ours, self._groups = trainer, ours, groups

    def __call__(self) -> None:
        loss = self._ours.gradient(self._groups)
        clip_gradients(self._ours.policy, 1.0)
        assert_same_gradients(self._ours.policy, self._trainer.model)
        assert abs(loss - self._trainer.step_loss) < 1e-5, (loss, self._trainer.step_loss)
        self._compare_logprobs()
        self._ours.policy.zero_grad()
        print(f"same loss ({loss:.5f}), log-probabilities and gradients")

    @torch.no_grad()
    def _compare_logprobs(self) -> None:
        packs = pack_groups(self._ours.encoder, self._groups, 2**20)
        own = GRPO.logprobs(self._ours.policy, packs[0]).logprobs
        rows = [rollout.token_ids for group in self._groups for rollout in group.rollouts]
        for batch in self._trainer._buffered_inputs:
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
            mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
            images = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images")}
            theirs, _, _ = self._trainer._get_per_token_logps_and_entropies(
                self._trainer.model,
                ids,
                mask,
                batch["completion_ids"].shape[1],
                mm_token_type_ids=batch["mm_token_type_ids"],
                **images,
            )
            tokens = zip(batch["completion_ids"], batch["completion_mask"].bool(), theirs, strict=True)
            for completion, is_token, found in tokens:
                row = rows.index(tuple(completion[is_token].tolist()))
                torch.testing.assert_close(own[packs[0].target_rows == row], found[is_token], atol=1e-4, rtol=0)


def build(arguments: argparse.Namespace) -> tuple[Ours, list[RolloutGroup]]:
    encoder = make_encoder()
    writer = Writer(encoder)
    groups = [
        writer.group(writer.prompt(f"p{number}", arguments.image_tokens), arguments.group_size)
        for number in range((arguments.pairs + 1) * arguments.prompts)
    ]
    return Ours(make_policy(encoder), encoder, arguments.token_budget), groups


def build_trainer(
    arguments: argparse.Namespace,
    ours: Ours,
    groups: Sequence[RolloutGroup],
    rollouts: Callable[[Sequence[Prompt]], Sequence[RolloutGroup]],
    policy: Qwen3VLForConditionalGeneration,
    num_steps: int,
) -> TimedGrpoTrainer:
    def rewards(completions: list[Any], **_: Any) -> list[float]:
        return [reward(message["content"]) for [message] in completions]

    return make_grpo_trainer(
        policy,
        ours.encoder,
        [group.prompt for group in groups],
        rollouts,
        rewards,
        group_size=arguments.group_size,
        prompts_per_step=arguments.prompts,
        micro_batch=arguments.micro_batch,
        num_steps=num_steps,
    )


def compare(arguments: argparse.Namespace) -> tuple[Pairs, Pairs]:
    """The pairs of full steps and of updates."""
    ours, groups = build(arguments)
    policy = deepcopy(ours.policy)
    own_engine, their_engine = (Script(model, ours.encoder, groups) for model in (ours.policy, policy))
    trainer = build_trainer(arguments, ours, groups, their_engine.rollouts, policy, arguments.pairs + 1)
    seconds: list[tuple[float, float, float, float]] = []

    def our_turn(full: float, update: float) -> None:
        first = len(seconds) * arguments.prompts
        started = clock()
        ours.step(own_engine.rollouts([group.prompt for group in groups[first : first + arguments.prompts]]))
        seconds.append((clock() - started, full, ours.update_seconds, update))

    trainer.add_callback(BeforeFirstStep(SameResults(trainer, ours, groups[: arguments.prompts])))
    trainer.add_callback(InTurn(our_turn, lambda: trainer.prepare_seconds))
    trainer.train()
    own_full, their_full, own_update, their_update = zip(*seconds[1:], strict=True)
    return Pairs(own_full, their_full), Pairs(own_update, their_update)


def our_update(arguments: argparse.Namespace) -> Callable[[], object]:
    ours, groups = build(arguments)
    return lambda: ours.step(groups[: arguments.prompts])


def their_update(arguments: argparse.Namespace) -> Callable[[], object]:
    ours, groups = build(arguments)
    trainer = build_trainer(arguments, ours, groups, lambda prompts: groups[: len(prompts)], ours.policy, num_steps=1)
    return trainer.train


def main() -> None:
    sizes = {"prompts": 1, "group_size": 16, "image_tokens": 576, "micro_batch": 8, "token_budget": 8192, "pairs": 5}
    arguments = parse_arguments(__doc__, **sizes)
    full, update = compare(arguments)
    print(update.describe("policy update"), flush=True)
    print(full.describe("full GRPO step"))
    own, theirs = memory_growth(our_update, arguments), memory_growth(their_update, arguments)
    print(f"peak memory of the update: ours {own:.0f} MiB, rival {theirs:.0f} MiB")


if __name__ == "__main__":
    main()
