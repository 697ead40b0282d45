"""Rollouts against transformers' own decoding, against the packed forward that trains on them, and each other."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from prism.config import Precision
from prism.errors import NumericsError
from prism.models.policy import save_policy
from prism.models.processor import PromptEncoder
from prism.packing import Branch, PromptTree, branch_logprobs, pack_trees
from prism.records import Prompt, RolloutGroup
from prism.rollout import engine as rollout_engine
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.runtime import distributed

Make = Callable[..., Any]


def tokens_of(groups: Sequence[RolloutGroup]) -> dict[str, list[tuple[int, ...]]]:
    return {group.prompt.id: [rollout.token_ids for rollout in group.rollouts] for group in groups}


@pytest.mark.parametrize("index", range(4))
def test_greedy_equals_generate(make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt], index: int) -> None:
    """All prompts in one batch of ours, one after the other in transformers', which builds its own positions."""
    policy = make_policy({encoder.end_token_id: 2.0})
    encoded = encoder.encode(prompts[index])
    ids = encoded.token_ids[None]
    images = {"pixel_values": encoded.pixel_values, "image_grid_thw": encoded.image_grid_thw}
    expected = policy.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == encoder.image_token_id).int(),
        **(images if encoded.pixel_values is not None else {}),
        do_sample=False,
        max_new_tokens=14,
        suppress_tokens=list(encoder.banned_token_ids),
        eos_token_id=encoder.end_token_id,
        pad_token_id=0,
    )
    groups = TransformersEngine(policy, encoder).generate(prompts, num_samples=1, sampling=Sampling(0.0, 14), seed=0)
    assert groups[index].rollouts[0].token_ids == tuple(expected[0, ids.shape[1] :].tolist())


def test_greedy_ignores_the_seed_and_gives_equal_samples(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    engine = TransformersEngine(make_policy(), encoder)
    first = engine.generate(prompts[:2], num_samples=3, sampling=Sampling(0.0, 5), seed=1)
    assert first == engine.generate(prompts[:2], num_samples=3, sampling=Sampling(0.0, 5), seed=2)
    assert all(len({rollout.token_ids for rollout in group.rollouts}) == 1 for group in first)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_first_tokens_are_distributed_as_the_softmax_of_the_packed_forward(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt], temperature: float
) -> None:
    """Pearson's statistic over the eight likeliest tokens and the rest, at the 99.9% point of χ²(8) = 26.1."""
    total, num_bins = 1500, 8
    policy = make_policy(dict.fromkeys(range(300, 312), 3.0))
    encoded = encoder.encode(prompts[0])
    num_tokens = policy.config.get_text_config().vocab_size
    branches = tuple(Branch.of([token]) for token in range(num_tokens))
    [packed] = pack_trees([PromptTree(encoded, branches)], token_budget=1000)
    banned = torch.tensor(encoder.banned_token_ids)
    probabilities = {}
    for assumed in (temperature, 2 * temperature):
        with torch.no_grad():
            logprobs = branch_logprobs(policy, packed, temperature=assumed, banned_ids=banned).logprobs.double()
        probabilities[assumed] = logprobs.exp()
        assert probabilities[assumed].sum() == pytest.approx(1)
    likeliest = probabilities[temperature].topk(num_bins).indices.tolist()

    [group] = TransformersEngine(policy, encoder, batch_size=total).generate(
        prompts[:1], num_samples=total, sampling=Sampling(temperature, 1), seed=11
    )
    counts = Counter(rollout.token_ids[0] for rollout in group.rollouts)
    observed = [counts[token] for token in likeliest]
    observed.append(total - sum(observed))

    def statistic(assumed: float) -> float:
        expected = [total * float(probabilities[assumed][token]) for token in likeliest]
        expected.append(total - sum(expected))
        return sum((seen - mean) ** 2 / mean for seen, mean in zip(observed, expected, strict=True))

    assert statistic(temperature) < 26.1
    assert statistic(2 * temperature) > 100


@pytest.fixture
def sampled(make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt]) -> tuple[Any, list[RolloutGroup]]:
    """Six samples of each prompt, of very different lengths: about one token in seven ends its row."""
    policy = make_policy({encoder.end_token_id: 4.5})
    groups = TransformersEngine(policy, encoder).generate(prompts, num_samples=6, sampling=Sampling(1.0, 16), seed=3)
    lengths = {len(rollout.token_ids) for group in groups for rollout in group.rollouts}
    assert len(lengths) > 6
    return policy, groups


@pytest.mark.parametrize("batch_size", [1, 4, 7, 12])
def test_samples_do_not_depend_on_the_batch_size(
    sampled: tuple[Any, list[RolloutGroup]], encoder: PromptEncoder, prompts: list[Prompt], batch_size: int
) -> None:
    policy, groups = sampled
    rows: list[int] = []
    handle = policy.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    engine = TransformersEngine(policy, encoder, batch_size=batch_size)
    assert engine.generate(prompts, num_samples=6, sampling=Sampling(1.0, 16), seed=3) == groups
    handle.remove()
    assert max(rows) <= batch_size


def test_samples_do_not_depend_on_the_other_prompts_their_order_or_the_number_of_samples(
    sampled: tuple[Any, list[RolloutGroup]], encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    """One sample alone has no finished neighbours that leave the batch."""
    policy, groups = sampled
    engine = TransformersEngine(policy, encoder)
    reversed_groups = engine.generate(prompts[::-1], num_samples=6, sampling=Sampling(1.0, 16), seed=3)
    assert tokens_of(reversed_groups) == tokens_of(groups)
    for index in (0, 2):
        [alone] = engine.generate([prompts[index]], num_samples=1, sampling=Sampling(1.0, 16), seed=3)
        assert alone.rollouts == groups[index].rollouts[:1]


def test_a_lower_limit_cuts_the_same_samples(
    sampled: tuple[Any, list[RolloutGroup]], encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    policy, groups = sampled
    cut = TransformersEngine(policy, encoder).generate(prompts, num_samples=6, sampling=Sampling(1.0, 5), seed=3)
    assert tokens_of(cut) == {name: [ids[:5] for ids in group] for name, group in tokens_of(groups).items()}


def test_samples_of_a_prompt_differ_and_so_do_seeds_and_prompt_names(
    sampled: tuple[Any, list[RolloutGroup]], encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    policy, groups = sampled
    engine = TransformersEngine(policy, encoder)
    assert all(len(set(group)) > 3 for group in tokens_of(groups).values())
    other = engine.generate(prompts, num_samples=6, sampling=Sampling(1.0, 16), seed=4)
    assert all(tokens_of(other)[name] != group for name, group in tokens_of(groups).items())
    twins = [Prompt("a", "Hello"), Prompt("b", "Hello")]
    first, second = engine.generate(twins, num_samples=6, sampling=Sampling(1.0, 16), seed=3)
    assert tokens_of([first])["a"] != tokens_of([second])["b"]


def test_a_sample_ends_with_its_first_end_token_or_is_flagged(
    sampled: tuple[Any, list[RolloutGroup]], encoder: PromptEncoder
) -> None:
    _, groups = sampled
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert {rollout.is_finished for rollout in rollouts} == {False, True}
    for rollout in rollouts:
        *body, last = rollout.token_ids
        assert encoder.end_token_id not in body
        assert rollout.is_finished == (last == encoder.end_token_id)
        assert rollout.is_finished or len(rollout.token_ids) == 16
        assert rollout.text == encoder.tokenizer.decode(body if rollout.is_finished else [*body, last])
    assert [rollout.sample for rollout in groups[0].rollouts] == list(range(6))


def test_an_end_token_as_the_last_one_allowed_finishes(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    engine = TransformersEngine(make_policy({encoder.end_token_id: 100.0}), encoder)
    [group] = engine.generate(prompts[:1], num_samples=2, sampling=Sampling(1.0, 1), seed=0)
    assert all(rollout.is_finished and rollout.text == "" for rollout in group.rollouts)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_tokens_never_appear(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt], temperature: float
) -> None:
    """Their logits are by far the largest; what the policy would say without the ban shows it."""
    policy = make_policy(dict.fromkeys(encoder.banned_token_ids, 50.0))
    encoded = encoder.encode(prompts[0])
    with torch.no_grad():
        favourite = int(policy(input_ids=encoded.token_ids[None]).logits[0, -1].argmax())
    assert favourite in encoder.banned_token_ids
    groups = TransformersEngine(policy, encoder).generate(
        prompts, num_samples=4, sampling=Sampling(temperature, 10), seed=5
    )
    seen = {token for group in tokens_of(groups).values() for ids in group for token in ids}
    assert not seen & set(encoder.banned_token_ids)
    assert len(seen) > 3


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_training_sees_the_logprobs_that_sampling_used(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt], temperature: float
) -> None:
    """Step-by-step logits with a cache against one packed forward over all prompts and samples."""
    policy = make_policy({encoder.end_token_id: -100.0})
    steps: list[torch.Tensor] = []
    handle = policy.register_forward_hook(lambda module, args, output: steps.append(output.logits[:, -1]))
    groups = TransformersEngine(policy, encoder).generate(
        prompts, num_samples=3, sampling=Sampling(temperature, 8), seed=6
    )
    handle.remove()
    trees = [
        PromptTree(encoder.encode(group.prompt), tuple(Branch.of(rollout.token_ids) for rollout in group.rollouts))
        for group in groups
    ]
    assert len(steps) == 8 and steps[1].shape[0] == 12
    steps[0] = steps[0].repeat_interleave(3, dim=0)
    ids = torch.tensor([rollout.token_ids for group in groups for rollout in group.rollouts])
    stepwise = (torch.stack(steps, dim=1) / temperature).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    with torch.no_grad():
        for packed in pack_trees(trees, token_budget=120):
            together = branch_logprobs(policy, packed, temperature=temperature).logprobs
            expected = stepwise[packed.target_rows, packed.target_columns]
            torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_training", [True, False])
def test_mode_of_the_policy_is_given_back(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt], is_training: bool
) -> None:
    policy = make_policy().train(is_training)
    seen: list[bool] = []
    policy.register_forward_pre_hook(lambda module, args: seen.append(module.training))
    TransformersEngine(policy, encoder).generate(prompts[:1], num_samples=1, sampling=Sampling(1.0, 2), seed=0)
    assert policy.training is is_training and not any(seen)


def test_broken_weights_are_an_error_and_not_a_rollout(
    make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    for value in (torch.nan, torch.inf):
        policy = make_policy({5: value})
        policy.lm_head.shift[:] = value
        with pytest.raises(NumericsError, match="NaN or infinite"):
            TransformersEngine(policy, encoder).generate(prompts[:1], num_samples=1, sampling=Sampling(1.0, 2), seed=0)


@pytest.mark.parametrize(("batch_size", "places"), [(4, [0, 1, 4, 2, 3]), (64, [0, 1, 2, 3, 4])])
def test_processes_share_out_the_batches_that_one_would_draw(
    make_policy: Make,
    encoder: PromptEncoder,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    places: list[int],
) -> None:
    """The same prompt a second time keeps the stream it has among all prompts. One batch with room for all of them is
    halved, so that neither process waits for the other."""
    asked = [*prompts[:3], prompts[0], prompts[3]]
    engine = TransformersEngine(make_policy(), encoder, batch_size=batch_size)

    def sample() -> list[RolloutGroup]:
        return engine.generate(asked, num_samples=2, sampling=Sampling(1.0, 6), seed=7)

    alone = sample()
    for module in (distributed, rollout_engine):
        monkeypatch.setattr(module, "num_processes", lambda: 2)
    drawn: list[Any] = []
    for index in (0, 1):
        monkeypatch.setattr(distributed, "process_index", lambda index=index: index)
        monkeypatch.setattr(rollout_engine, "gather", lambda values: drawn.extend(values) or values)
        with pytest.raises(KeyError):  # what the other process drew is missing
            sample()
    assert [place for place, _ in drawn] == places
    monkeypatch.setattr(rollout_engine, "gather", lambda values: drawn)
    assert sample() == alone


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_checkpoint_is_loaded_in_the_precision_asked_for(
    make_policy: Make, encoder: PromptEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    save_policy(make_policy(), encoder, tmp_path)
    loaded = []
    monkeypatch.setattr(TransformersEngine, "__init__", lambda self, policy, *_, **__: loaded.append(policy))
    TransformersEngine.of_checkpoint(tmp_path, precision=precision)
    assert {weights.dtype for policy in loaded for weights in policy.parameters()} == {getattr(torch, precision)}


def test_a_policy_in_bfloat16_samples(make_policy: Make, encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    engine = TransformersEngine(make_policy().bfloat16(), encoder)
    groups = engine.generate(prompts, num_samples=2, sampling=Sampling(1.0, 8), seed=0)
    assert all(rollout.token_ids for group in groups for rollout in group.rollouts)
