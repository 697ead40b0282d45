"""Rollouts by a real vLLM against the training forward of the policy whose weights it was given."""

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prism.config import VllmRollout
from prism.errors import DataError, RolloutError
from prism.models import PromptEncoder, checkpoint_weights
from prism.records import Prompt, RolloutGroup
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.rollout.vllm_engine import VllmEngine
from prism.stages.mismatch import Mismatch, check_sampler, sampler_logprobs
from prism.stages.policy_update import PolicyObjective, accumulate_policy_gradient, pack_groups, rollout_logprobs
from prism.stages.workspace import SHIPPED_BASE

pytestmark = pytest.mark.vllm

SAMPLING = Sampling(1.0, 24)


def objective_of(encoder: PromptEncoder, temperature: float = 1.0) -> PolicyObjective:
    return PolicyObjective("token", 0.2, 0.2, None, "token-mean", temperature, encoder.banned_token_ids)


def measure(policy: Any, encoder: PromptEncoder, groups: Sequence[RolloutGroup], temperature: float = 1.0) -> Mismatch:
    packs = pack_groups(encoder, groups, 2000)
    trained = torch.cat(rollout_logprobs(policy, packs, objective_of(encoder, temperature)))
    sampled = sampler_logprobs(groups, packs)
    assert sampled is not None and trained.numel() > 20
    return Mismatch((trained - torch.cat(sampled)).abs())


def largest(mismatch: Mismatch) -> float:
    return float(mismatch.differences.max())


def disturb(policy: Any, part: str, scale: float, seed: int = 0) -> None:
    """Noise on all parameters whose names contain `part`."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if part in name:
                parameter += scale * torch.randn(parameter.shape, generator=source)


def tokens_of(groups: Sequence[RolloutGroup]) -> dict[str, list[tuple[int, ...]]]:
    return {group.prompt.id: [rollout.token_ids for rollout in group.rollouts] for group in groups}


def test_200_rollouts_follow_a_policy_that_trains(
    engine: VllmEngine, policy: Any, encoder: PromptEncoder, settings: VllmRollout, make_prompts: Callable[..., Any]
) -> None:
    """Ten optimizer steps on twenty rollouts each, with advantages at random; they move every weight."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-4)
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    num_rollouts, worst, stale, previous = 0, 0.0, [], None
    for step in range(10):
        engine.update_weights(checkpoint_weights(policy))
        groups = engine.generate(make_prompts(5, step), num_samples=4, sampling=SAMPLING, seed=step)
        num_rollouts += sum(len(group.rollouts) for group in groups)
        packs = pack_groups(encoder, groups, 2000)
        update = accumulate_policy_gradient(
            policy,
            packs,
            torch.randn(20, generator=torch.Generator().manual_seed(step)),
            objective_of(encoder),
            sampler_logprobs=sampler_logprobs(groups, packs),
        )
        check_sampler(update.mismatch, settings, f"step {step}")
        assert update.mismatch is not None
        worst = max(worst, largest(update.mismatch))
        if previous is not None:
            stale.append(measure(previous, encoder, groups).mean)
        previous = copy.deepcopy(policy)
        optimizer.step()
        optimizer.zero_grad()
    assert num_rollouts == 200
    assert worst < 1e-3
    assert min(stale) > 1e-3
    moved = {name for name, parameter in policy.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == before.keys()
    print(f"\n200 rollouts: largest difference {worst:.2g} nats; to the policy one step earlier {min(stale):.2g}")


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_reported_logprobs_are_those_of_the_distribution_drawn_from(
    engine: VllmEngine, policy: Any, encoder: PromptEncoder, prompts: list[Prompt], temperature: float
) -> None:
    """No, one and several images; without the banned tokens, at the temperature."""
    disturb(policy, "", 0.05)
    engine.update_weights(checkpoint_weights(policy))
    groups = engine.generate(prompts, num_samples=4, sampling=Sampling(temperature, 24), seed=1)
    assert largest(measure(policy, encoder, groups, temperature)) < 1e-3
    assert measure(policy, encoder, groups, 1.6 - temperature).mean > 1e-2


def test_each_weight_arrives(engine: VllmEngine, policy: Any, encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    """One kind of weight after the other is changed alone, so that none can hide behind the others."""
    original = copy.deepcopy(policy.state_dict())
    parts = ("visual.patch_embed", "visual.pos_embed", "visual.blocks", "visual.merger", "visual.deepstack")
    for part in (*parts, "embed_tokens", "self_attn", "mlp.", "layernorm", "language_model.norm"):
        policy.load_state_dict(original)
        engine.update_weights(checkpoint_weights(policy))
        groups = engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=2)
        disturb(policy, part, 1.0)
        assert largest(measure(policy, encoder, groups)) > 1e-2, part
        engine.update_weights(checkpoint_weights(policy))
        groups = engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=2)
        assert largest(measure(policy, encoder, groups)) < 1e-4, part


def runner_of(engine: VllmEngine) -> Any:
    return engine._llm.llm_engine.model_executor.driver_worker.worker.model_runner


@pytest.mark.parametrize("cache", ["images", "prompts"])
def test_what_was_computed_with_earlier_weights_is_noticed(
    engine: VllmEngine,
    policy: Any,
    encoder: PromptEncoder,
    settings: VllmRollout,
    make_prompts: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    cache: str,
) -> None:
    """The vision tower changes and a cache is kept: image embeddings, or keys and values of prompts."""
    prompts = make_prompts(4, 99)
    # A prompt of several blocks, since vLLM keeps whole ones only.
    prompts = [Prompt(item.id, item.question + " row 1:" * 60, item.images) for item in prompts]
    engine.update_weights(checkpoint_weights(policy))
    engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=3)
    disturb(policy, "visual", 0.1)
    with monkeypatch.context() as patch:
        if cache == "images":
            patch.setattr(engine._llm.llm_engine, "reset_encoder_cache", lambda: None)
            patch.setattr(runner_of(engine), "reset_encoder_cache", lambda: None)
        else:
            patch.setattr(engine._llm, "reset_prefix_cache", lambda: True)
        engine.update_weights(checkpoint_weights(policy))
    groups = engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=3)
    with pytest.raises(RolloutError, match="step 7: the engine samples from another policy"):
        check_sampler(measure(policy, encoder, groups), settings, "step 7")
    engine.update_weights(checkpoint_weights(policy))
    groups = engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=3)
    check_sampler(measure(policy, encoder, groups), settings, "step 7")


def test_a_wrong_a_missing_and_a_misshapen_weight_are_refused(
    engine: VllmEngine, policy: Any, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    weights = dict(checkpoint_weights(policy))
    name = "model.language_model.layers.1.self_attn.q_proj.weight"
    renamed = {key.replace("layers.1.", "layer.1."): tensor for key, tensor in weights.items()}
    with pytest.raises(RolloutError, match=r"no weight model\.language_model\.layer\.1\."):
        engine.update_weights(renamed.items())
    with pytest.raises(RolloutError, match=f"1 of {len(weights)} weights were not updated, {name} the first"):
        engine.update_weights((key, tensor) for key, tensor in weights.items() if key != name)
    with pytest.raises(RolloutError, match=rf"{name} has shape \(127, 128\), \(128, 128\) in the checkpoint"):
        engine.update_weights((key, tensor[:-1] if key == name else tensor) for key, tensor in weights.items())
    engine.update_weights(weights.items())
    assert largest(measure(policy, encoder, engine.generate(prompts, num_samples=2, sampling=SAMPLING, seed=4))) < 1e-3


@pytest.fixture
def talkative(engine: VllmEngine, policy: Any, prompts: list[Prompt]) -> list[RolloutGroup]:
    """Six samples of each prompt by a policy that says anything, of many lengths."""
    disturb(policy, "language_model.layers", 0.1)
    engine.update_weights(checkpoint_weights(policy))
    groups = engine.generate(prompts, num_samples=6, sampling=Sampling(1.0, 40), seed=5)
    assert len({len(rollout.token_ids) for group in groups for rollout in group.rollouts}) > 3
    return groups


def test_samples_do_not_depend_on_what_else_is_in_the_batch(
    engine: VllmEngine, talkative: list[RolloutGroup], prompts: list[Prompt]
) -> None:
    reversed_groups = engine.generate(prompts[::-1], num_samples=6, sampling=Sampling(1.0, 40), seed=5)
    assert tokens_of(reversed_groups) == tokens_of(talkative)
    for group in talkative:
        [alone] = engine.generate([group.prompt], num_samples=1, sampling=Sampling(1.0, 40), seed=5)
        assert alone.rollouts[0].token_ids == group.rollouts[0].token_ids


def test_samples_differ_among_themselves_and_by_seed_name_and_occurrence(
    engine: VllmEngine, talkative: list[RolloutGroup], prompts: list[Prompt]
) -> None:
    assert all(len(set(group)) > 3 for group in tokens_of(talkative).values())
    other = engine.generate(prompts, num_samples=6, sampling=Sampling(1.0, 40), seed=6)
    assert all(tokens_of(other)[name] != group for name, group in tokens_of(talkative).items())
    twins = [prompts[1], prompts[1], Prompt("other name", prompts[1].question, prompts[1].images)]
    first, second, third = engine.generate(twins, num_samples=3, sampling=Sampling(1.0, 40), seed=5)
    assert len({*tokens_of([first])["one"], *tokens_of([second])["one"], *tokens_of([third])["other name"]}) > 6
    assert tokens_of([first])["one"] == tokens_of(talkative)["one"][:3]


def test_banned_tokens_never_appear(
    engine: VllmEngine, policy: Any, encoder: PromptEncoder, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says anything says them in one of twenty tokens, but for the ban."""
    disturb(policy, "language_model.layers", 1.0)
    engine.update_weights(checkpoint_weights(policy))

    def banned() -> int:
        groups = engine.generate(prompts, num_samples=6, sampling=Sampling(2.0, 40), seed=7)
        said = [token for ids in tokens_of(groups).values() for sample in ids for token in sample]
        assert len(said) > 200
        return sum(token in encoder.banned_token_ids for token in said)

    assert banned() == 0
    allow = engine._parameters

    def without_ban(sampling: Sampling, seed: int) -> Any:
        parameters = allow(sampling, seed)
        parameters.logit_bias = None
        return parameters

    monkeypatch.setattr(engine, "_parameters", without_ban)
    assert banned() > 0


def test_a_sample_ends_with_its_first_end_token_or_is_flagged(
    talkative: list[RolloutGroup], encoder: PromptEncoder
) -> None:
    rollouts = [rollout for group in talkative for rollout in group.rollouts]
    assert {rollout.is_finished for rollout in rollouts} == {False, True}
    for rollout in rollouts:
        *body, last = rollout.token_ids
        assert encoder.end_token_id not in body
        assert rollout.is_finished == (last == encoder.end_token_id)
        assert rollout.is_finished or len(rollout.token_ids) == 40
        assert rollout.text == encoder.tokenizer.decode(body if rollout.is_finished else [*body, last])
        assert rollout.logprobs is not None and len(rollout.logprobs) == len(rollout.token_ids)
    assert [rollout.sample for rollout in talkative[0].rollouts] == list(range(6))


def test_greedy_equals_that_of_the_training_model(
    engine: VllmEngine, policy: Any, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    engine.update_weights(checkpoint_weights(policy))
    ours = TransformersEngine(policy, encoder).generate(prompts, num_samples=1, sampling=Sampling(0.0, 30), seed=0)
    theirs = engine.generate(prompts, num_samples=1, sampling=Sampling(0.0, 30), seed=0)
    assert tokens_of(theirs) == tokens_of(ours)


def test_prompts_are_the_tokens_that_training_sees(
    engine: VllmEngine, encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    outputs = engine._llm.generate(
        [engine._input(prompt) for prompt in prompts],
        [engine._parameters(Sampling(1.0, 1), 0) for _ in prompts],
        use_tqdm=False,
    )
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.prompt_token_ids == encoder.encode(prompt).token_ids.tolist()
        assert len(output.prompt_token_ids) == encoder.prompt_length(prompt)
    assert len({encoder.encode(prompt).token_ids.tolist().count(encoder.image_token_id) for prompt in prompts}) == 5


def test_prompts_beyond_the_limits_are_refused(engine: VllmEngine, prompts: list[Prompt]) -> None:
    many = Prompt("many", "<image>" * 9, prompts[1].images * 9)
    with pytest.raises(DataError, match=r"'many' has 9 images, more than rollout\.max_images \(8\)"):
        engine.generate([many], num_samples=1, sampling=SAMPLING, seed=0)
    with pytest.raises(DataError, match=r"'none' has \d+ tokens and its completion may have 290, together more than"):
        engine.generate(prompts[:1], num_samples=1, sampling=Sampling(1.0, 290), seed=0)


def test_what_the_checkpoint_says_about_sampling_is_ignored(
    engine: VllmEngine,
    policy: Any,
    encoder: PromptEncoder,
    settings: VllmRollout,
    talkative: list[RolloutGroup],
    prompts: list[Prompt],
    tmp_path: Path,
) -> None:
    directory = tmp_path / "base"
    shutil.copytree(SHIPPED_BASE, directory)
    (directory / "generation_config.json").write_text(
        '{"do_sample": true, "top_k": 1, "top_p": 0.1, "temperature": 0.1, "repetition_penalty": 9.0}'
    )
    other = VllmEngine(directory, encoder, settings, max_length=300)
    other.update_weights(checkpoint_weights(policy))
    groups = other.generate(prompts, num_samples=6, sampling=Sampling(1.0, 40), seed=5)
    assert tokens_of(groups) == tokens_of(talkative)
