"""A full alignment step: PRISM's against the same method built on TRL's GRPOTrainer.

    python benchmarks/alignment_step.py [--prompts 1] [--group-size 16] [--image-tokens 576] [--pairs 5]

Sample, score description and reasoning of all rollouts, move the policy by the group-normalised sum of both scores
(paper Eqs. 1 and 3), update the discriminator (Eq. 2). On TRL that is a reward function: it scores separate padded
sequences, prompt and teacher repeated per rollout, and takes the discriminator's step; the rest is GRPOTrainer's. Both
start from the same models, see the same prompts and completions, and sample with the same engine, ours, which decodes
given completions. Before anything counts, rewards and both gradients of the first step must be the same.
See `trl_rival.py` for how to install TRL.
"""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from discriminator_update import Padded, Trees
from grpo_step import EPS
from side_by_side import (
    GRPO,
    Pairs,
    Script,
    Writer,
    assert_same_gradients,
    clock,
    make_discriminator,
    make_encoder,
    make_policy,
    parse_arguments,
)
from torch import Tensor
from trl_rival import BeforeFirstStep, InTurn, TimedGrpoTrainer, make_grpo_trainer

from prism.models import Discriminator, PromptEncoder
from prism.objectives import mixed_advantages
from prism.records import Prompt, Response, RolloutGroup
from prism.rewards import parse_response
from prism.runtime.optimizer import clip_gradients, descend, make_optimizer
from prism.stages.policy_update import accumulate_policy_gradient, pack_groups
from prism.stages.scoring import Contest


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    return make_optimizer(model, learning_rate=1e-6, weight_decay=0.01)


def contests_of(groups: Sequence[RolloutGroup], teachers: dict[str, Response]) -> list[Contest]:
    return [
        Contest(group.prompt, teachers[group.prompt.id], tuple(parse_response(r.text) for r in group.rollouts))
        for group in groups
    ]


class Ours:
    def __init__(self, policy: Any, trees: Trees, encoder: PromptEncoder, teachers: dict[str, Response], budget: int):
        self.policy, self.trees, self._encoder, self._teachers, self._budget = policy, trees, encoder, teachers, budget
        self._optimizers = {model: optimizer_of(model) for model in (policy, trees.discriminator)}

    def gradients(self, groups: Sequence[RolloutGroup]) -> Tensor:
        """Adds both players' gradients; returns the rollouts' scores, a row for each view."""
        scores = self.trees.step(contests_of(groups, self._teachers))
        group_ids = torch.arange(len(groups)).repeat_interleave(len(groups[0].rollouts))
        advantages = mixed_advantages(*scores, group_ids, eps=EPS)
        packs = pack_groups(self._encoder, groups, self._budget)
        accumulate_policy_gradient(self.policy, packs, advantages, GRPO)
        return scores

    def step(self, groups: Sequence[RolloutGroup]) -> None:
        self.gradients(groups)
        for model, optimizer in self._optimizers.items():
            descend(model, optimizer, 1.0, name="model", step=1)


class PaddedReward:
    """The reward function of the rival. The discriminator's gradient of its first call is kept, to be compared."""

    __name__ = "discriminator"

    def __init__(self, padded: Padded, prompts: Sequence[Prompt], teachers: dict[str, Response], group_size: int):
        self.padded, self._teachers, self._group_size = padded, teachers, group_size
        self._prompts = {prompt.question: prompt for prompt in prompts}
        self._optimizer = optimizer_of(padded.discriminator)
        self.first: tuple[Tensor, Discriminator] | None = None

    def __call__(self, prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        responses = [parse_response(message["content"]) for [message] in completions]
        contests = []
        for start in range(0, len(prompts), self._group_size):
            prompt = self._prompts[prompts[start][-1]["content"][-1]["text"]]
            students = tuple(responses[start : start + self._group_size])
            contests.append(Contest(prompt, self._teachers[prompt.id], students))
        scores = self.padded.step(contests)
        clip_gradients(self.padded.discriminator, 1.0)
        if self.first is None:
            self.first = scores, deepcopy(self.padded.discriminator)
            for own, copy in zip(self.padded.discriminator.parameters(), self.first[1].parameters(), strict=True):
                copy.grad = None if own.grad is None else own.grad.clone()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return scores.mean(0).tolist()


class SameResults:
    """Compares TRL's first step, before the policy's optimizer takes it, with ours."""

    def __init__(
        self, trainer: TimedGrpoTrainer, rewards: PaddedReward, ours: Ours, groups: Sequence[RolloutGroup]
    ) -> None:
        self._trainer, self._rewards, self._ours, self._groups = trainer, rewards, ours, groups

    def __call__(self) -> None:
        assert self._rewards.first is not None
        scores, discriminator = self._rewards.first
        torch.testing.assert_close(self._ours.gradients(self._groups), scores, atol=1e-4, rtol=0)
        for own, other in (
            (self._ours.policy, self._trainer.model),
            (self._ours.trees.discriminator, discriminator),
        ):
            clip_gradients(own, 1.0)
            assert_same_gradients(own, other)
            own.zero_grad()
        print("same scores, and gradients of both players", flush=True)


def compare(arguments: argparse.Namespace) -> Pairs:
    encoder = make_encoder()
    writer = Writer(encoder)
    count = (arguments.pairs + 1) * arguments.prompts
    prompts = [writer.prompt(f"p{number}", arguments.image_tokens) for number in range(count)]
    groups = [writer.group(prompt, arguments.group_size) for prompt in prompts]
    teachers = {prompt.id: parse_response(writer.response(writer.length())) for prompt in prompts}

    policy, discriminator = make_policy(encoder), make_discriminator(encoder)
    rewards = PaddedReward(
        Padded(encoder, deepcopy(discriminator), arguments.micro_batch), prompts, teachers, arguments.group_size
    )
    ours = Ours(
        deepcopy(policy),
        Trees(encoder, discriminator, arguments.token_budget),
        encoder,
        teachers,
        arguments.token_budget,
    )
    own_engine, their_engine = (Script(model, encoder, groups) for model in (ours.policy, policy))
    trainer = make_grpo_trainer(
        policy,
        encoder,
        prompts,
        their_engine.rollouts,
        rewards,
        group_size=arguments.group_size,
        prompts_per_step=arguments.prompts,
        micro_batch=arguments.micro_batch,
        num_steps=arguments.pairs + 1,
    )
    seconds: list[tuple[float, float]] = []

    def our_turn(full: float, _: float) -> None:
        first = len(seconds) * arguments.prompts
        started = clock()
        ours.step(own_engine.rollouts(prompts[first : first + arguments.prompts]))
        seconds.append((clock() - started, full))

    trainer.add_callback(BeforeFirstStep(SameResults(trainer, rewards, ours, groups[: arguments.prompts])))
    trainer.add_callback(InTurn(our_turn))
    trainer.train()
    return Pairs(*zip(*seconds[1:], strict=True))


def main() -> None:
    sizes = {"prompts": 1, "group_size": 16, "image_tokens": 576, "micro_batch": 8, "token_budget": 8192, "pairs": 5}
    print(compare(parse_arguments(__doc__, **sizes)).describe("full alignment step"))


if __name__ == "__main__":
    main()
