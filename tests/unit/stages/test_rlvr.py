"""Which prompts and groups a step trains on, and their rewards, by hand."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch

from prism.config import Dapo, Grpo, Gspo, RlvrConfig
from prism.models import PromptEncoder
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rewards import Reward, mix_reward
from prism.rollout.sampling import Sampling
from prism.runtime import distributed
from prism.stages.imitation import draw_batch
from prism.stages.rlvr import (
    PromptSampler,
    RewardedGroup,
    collect,
    pack_mini_batches,
    reward_metrics,
    total_rewards,
)
from prism.stages.rollouts import parse_rollout

RIGHT = "<caption>a</caption><think>1. x</think><answer>5</answer>"
WRONG = RIGHT.replace("5", "6")
PROMPTS = {f"p{index}": Prompt(f"p{index}", "How many?", answer="5") for index in range(12)}


def make_config(**fields: Any) -> RlvrConfig:
    settings = {"num_steps": 5, "prompts_per_step": 2, "group_size": 3, "max_response_tokens": 20} | fields
    return RlvrConfig.model_validate(settings | {"algorithms": ({"type": "grpo"},)})


def make_sampler(prompts: Mapping[str, Prompt] = PROMPTS, seed: int = 1) -> tuple[PromptSampler, dict[str, Any]]:
    state: dict[str, Any] = {"position": 0, "leftover": []}
    return PromptSampler(dict(prompts), state, seed), state


def ids(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


def test_an_epoch_hands_out_every_prompt_once() -> None:
    sampler, _ = make_sampler()
    first, second = ([name for _ in range(3) for name in ids(sampler.take(4))] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(PROMPTS)
    assert first != second


def test_prompts_given_back_come_first_and_the_stream_goes_on_where_it_was() -> None:
    sampler, state = make_sampler()
    stream = draw_batch(sorted(PROMPTS), 0, 12, 1, "rlvr")
    assert ids(sampler.take(4)) == stream[:4]
    sampler.give_back([PROMPTS["p7"], PROMPTS["p3"]])
    sampler.give_back([PROMPTS["p9"]])
    assert sampler.num_leftover == 3
    assert ids(sampler.take(2)) == ["p9", "p7"]
    assert ids(sampler.take(3)) == ["p3", *stream[4:6]]
    assert (state, sampler.num_leftover) == ({"position": 6, "leftover": []}, 0)


def test_the_state_says_it_all() -> None:
    """A sampler made from a checkpoint's copy of the state goes on alike."""
    sampler, state = make_sampler()
    sampler.take(5)
    sampler.give_back([PROMPTS["p2"]])
    copy = {"position": state["position"], "leftover": list(state["leftover"])}
    resumed = PromptSampler(dict(PROMPTS), copy, 1)
    assert ids(resumed.take(9)) == ids(sampler.take(9))
    assert copy == state


def test_the_order_of_the_file_does_not_matter() -> None:
    shuffled = dict(reversed(PROMPTS.items()))
    assert ids(make_sampler(shuffled)[0].take(12)) == ids(make_sampler()[0].take(12))


class Engine:
    """Answers each prompt as `right` says: how many of its rollouts are right, by prompt or for all."""

    def __init__(self, right: Mapping[str, int] | int) -> None:
        self.right = right
        self.calls: list[tuple[list[str], int, Sampling, int]] = []

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        self.calls.append((ids(prompts), num_samples, sampling, seed))
        groups = []
        for prompt in prompts:
            right = self.right if isinstance(self.right, int) else self.right.get(prompt.id, 0)
            texts = [RIGHT] * right + [WRONG] * (num_samples - right)
            groups.append(RolloutGroup(prompt, tuple(Rollout(i, (1,) * 5, text, True) for i, text in enumerate(texts))))
        return groups


@pytest.mark.parametrize("algorithm", [Grpo(), Gspo()])
def test_without_dynamic_sampling_every_group_counts(algorithm: Grpo | Gspo) -> None:
    engine = Engine(3)
    kept, metrics = collect(engine, make_sampler()[0], make_config(temperature=0.9), algorithm, seed=4)
    assert metrics == {}
    [(asked, num_samples, sampling, seed)] = engine.calls
    assert [group.group.prompt.id for group in kept] == asked and len(asked) == 2
    assert (num_samples, sampling, seed) == (3, Sampling(0.9, 20), 4)
    assert all(group.accuracies.tolist() == [1, 1, 1] for group in kept)


def things_in(value: Any) -> Iterator[Any]:
    """`value` and all that it holds."""
    yield value
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from things_in(item)


def test_processes_exchange_no_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may hold megabytes of images, and are everywhere."""
    own = {place: collect(Engine(2), make_sampler()[0], make_config(), Grpo(), seed=4)[0][place] for place in (0, 1)}
    exchanged: list[Any] = []

    def gather(values: Sequence[Any]) -> list[Any]:
        exchanged.extend(values)
        return [*values, (1, (own[1].responses, own[1].rewards))]

    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    monkeypatch.setattr(distributed, "gather", gather)
    kept, _ = collect(Engine(2), make_sampler()[0], make_config(), Grpo(), seed=4)
    assert kept == [own[0], own[1]]
    found = [thing for value in exchanged for thing in things_in(value)]
    assert sum(isinstance(thing, Reward) for thing in found) == 3  # of one group
    assert not any(isinstance(thing, Prompt | RolloutGroup | bytes) for thing in found)


DAPO = Dapo(overlong_buffer=4, oversampling=2, max_refills=2)


def test_dapo_keeps_mixed_groups_and_gives_the_surplus_back() -> None:
    sampler, state = make_sampler()
    stream = draw_batch(sorted(PROMPTS), 0, 12, 1, "rlvr")
    right = {stream[0]: 3, stream[1]: 1, stream[2]: 2, stream[3]: 1}
    engine = Engine(right)
    kept, metrics = collect(engine, sampler, make_config(), DAPO, seed=4)
    assert [call[0] for call in engine.calls] == [stream[:4]]
    assert [group.group.prompt.id for group in kept] == stream[1:3]
    assert [group.accuracies.tolist() for group in kept] == [[1, 0, 0], [1, 1, 0]]
    assert metrics == {"dapo/generated_prompts": 4, "dapo/kept_prompts": 3, "dapo/leftover_prompts": 1}
    assert state == {"position": 4, "leftover": [stream[3]]}
    assert ids(sampler.take(2)) == [stream[3], stream[4]]


def test_dapo_refills_with_new_prompts_and_new_seeds_until_there_are_enough() -> None:
    sampler, _ = make_sampler()
    stream = draw_batch(sorted(PROMPTS), 0, 12, 1, "rlvr")
    engine = Engine({stream[2]: 1, stream[5]: 2, stream[9]: 1})
    kept, metrics = collect(engine, sampler, make_config(), DAPO, seed=4)
    assert [call[0] for call in engine.calls] == [stream[:4], stream[4:8]]
    assert len({call[3] for call in engine.calls}) == 2
    assert [group.group.prompt.id for group in kept] == [stream[2], stream[5]]
    assert metrics == {"dapo/generated_prompts": 8, "dapo/kept_prompts": 2, "dapo/leftover_prompts": 0}


def test_dapo_stops_after_its_refills_and_trains_on_what_it_has() -> None:
    sampler, _ = make_sampler()
    stream = draw_batch(sorted(PROMPTS), 0, 12, 1, "rlvr")
    engine = Engine({stream[9]: 2})
    kept, metrics = collect(engine, sampler, make_config(), DAPO, seed=4)
    assert len(engine.calls) == 1 + DAPO.max_refills
    assert [group.group.prompt.id for group in kept] == [stream[9]]
    assert metrics == {"dapo/generated_prompts": 12, "dapo/kept_prompts": 1, "dapo/leftover_prompts": 0}


@pytest.mark.parametrize("right", [0, 3])
def test_dapo_falls_back_to_the_first_groups_where_none_is_mixed(right: int) -> None:
    engine = Engine(right)
    kept, metrics = collect(engine, make_sampler()[0], make_config(), DAPO, seed=4)
    assert len(engine.calls) == 3
    assert [group.group.prompt.id for group in kept] == engine.calls[0][0][:2]
    assert metrics["dapo/kept_prompts"] == 0


def test_dapo_differs_in_accuracy_alone() -> None:
    """Groups whose rollouts differ in format but are all wrong teach no accuracy and are not kept."""

    class FormatEngine(Engine):
        def generate(self, prompts: Sequence[Prompt], **arguments: Any) -> list[RolloutGroup]:
            return [
                RolloutGroup(
                    group.prompt, (Rollout(0, (1,), "5", True), Rollout(1, (1,), RIGHT, False), group.rollouts[2])
                )
                for group in super().generate(prompts, **arguments)
            ]

    kept, metrics = collect(FormatEngine(0), make_sampler()[0], make_config(), DAPO, seed=4)
    assert metrics["dapo/kept_prompts"] == 0
    assert [reward.total for reward in kept[0].rewards] == pytest.approx([0, 0, 0.2])


def rewarded(texts_and_lengths: Sequence[tuple[str, int]], prompt: Prompt) -> RewardedGroup:
    rollouts = tuple(
        Rollout(index, (1,) * length, text, length < 20) for index, (text, length) in enumerate(texts_and_lengths)
    )
    responses = tuple(map(parse_rollout, rollouts))
    rewards = tuple(mix_reward(response, prompt) for response in responses)
    return RewardedGroup(RolloutGroup(prompt, rollouts), responses, rewards)


@pytest.fixture
def step() -> list[RewardedGroup]:
    return [
        rewarded([(RIGHT, 5), (WRONG, 16), (RIGHT, 17)], PROMPTS["p1"]),
        rewarded([("5", 19), (RIGHT, 20), (RIGHT, 18)], PROMPTS["p2"]),
    ]


def test_rewards_weigh_accuracy_and_format_and_a_truncated_answer_earns_nothing(step: list[RewardedGroup]) -> None:
    torch.testing.assert_close(total_rewards(step, make_config(), Grpo()), torch.tensor([1.0, 0.2, 1.0, 0.0, 0.0, 1.0]))


def test_dapo_takes_off_for_the_last_tokens_before_the_limit(step: list[RewardedGroup]) -> None:
    """Limit 20, buffer 4: one quarter of the factor for every token beyond 16."""
    algorithm = Dapo(overlong_buffer=4, overlong_factor=0.8)
    torch.testing.assert_close(
        total_rewards(step, make_config(), algorithm), torch.tensor([1.0, 0.2, 0.8, -0.6, -0.8, 0.6])
    )


def test_reward_metrics_by_hand(step: list[RewardedGroup]) -> None:
    metrics = reward_metrics(step, total_rewards(step, make_config(), Grpo()))
    assert metrics["reward/total"] == pytest.approx(3.2 / 6)
    assert metrics["reward/accuracy"] == pytest.approx(3 / 6)
    assert metrics["reward/format"] == pytest.approx(4 / 6)
    assert metrics["reward/unverifiable"] == 0


@pytest.mark.parametrize(
    ("num_groups", "num_mini_batches", "sizes"),
    [(6, 1, [6]), (6, 2, [3, 3]), (5, 2, [2, 3]), (7, 3, [2, 2, 3]), (2, 4, [1, 1])],
)
def test_mini_batches_hold_whole_groups_with_their_own_advantages(
    encoder: PromptEncoder,
    make_prompt: Any,
    make_rollout: Any,
    num_groups: int,
    num_mini_batches: int,
    sizes: list[int],
) -> None:
    """Every rollout carries its advantage in its text: no mini-batch may part the two."""
    groups = [
        RolloutGroup(make_prompt(group, with_image=False), tuple(make_rollout(f"{10 * group + i}") for i in range(3)))
        for group in range(num_groups)
    ]
    advantages = torch.tensor([float(rollout.text) for group in groups for rollout in group.rollouts])
    config = make_config(num_mini_batches=num_mini_batches, token_budget=40)
    parts = pack_mini_batches(encoder, groups, advantages, config)
    assert [len(part.advantages) for part in parts] == [3 * size for size in sizes]
    seen = []
    for part in parts:
        for packed in part.packs:
            for row, advantage in zip(packed.rows, part.advantages[packed.rows], strict=True):
                assert encoder.decode(packed.target_ids[packed.target_rows == row].tolist()) == f"{int(advantage)}"
                seen.append(float(advantage))
    assert sorted(seen) == sorted(advantages.tolist())
