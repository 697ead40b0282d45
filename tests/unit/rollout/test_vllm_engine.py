"""What the engine asks of vLLM and makes of its answers, with a stand-in; tests/real_vllm has the real one."""

import dataclasses
import importlib
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prism.config import VllmRollout
from prism.errors import ConfigError, DataError, NumericsError, RolloutError
from prism.models import PromptEncoder, checkpoint_weights, load_policy
from prism.models.policy import save_policy
from prism.records import Prompt, RolloutGroup
from prism.rollout import engine as rollout_engine
from prism.rollout import vllm_engine
from prism.rollout.sampling import Sampling
from prism.rollout.vllm_engine import VllmEngine
from prism.runtime import distributed
from prism.runtime.seeding import derive_seed
from prism.stages.workspace import SHIPPED_BASE


class Llm:
    """Says `script` whatever the prompt, and notes what it was asked in `calls`."""

    def __init__(self, path: str, **arguments: Any) -> None:
        self.path, self.arguments = path, arguments
        self.calls: list[str] = []
        self.requests: list[tuple[dict[str, Any], Any]] = []
        self.loaded: list[str] = []
        self.llm_engine = types.SimpleNamespace(
            reset_encoder_cache=lambda: self.calls.append("encoder cache"),
            engine_core=types.SimpleNamespace(shutdown=lambda: self.calls.append("shut down")),
        )
        self.script: tuple[int, ...] = (300, 301)
        self.logprobs: tuple[float, ...] = (-0.5, -1.5)
        self.finish_reason, self.extra_tokens, self.is_idle = "length", 0, True
        self.length = len

    def generate(self, inputs: Sequence[dict[str, Any]], parameters: Sequence[Any], *, use_tqdm: bool) -> list[Any]:
        self.requests += zip(inputs, parameters, strict=True)
        return [self._answer(request) for request in inputs]

    def _answer(self, request: Mapping[str, Any]) -> Any:
        reported = [
            {token: types.SimpleNamespace(logprob=logprob)}
            for token, logprob in zip(self.script, self.logprobs, strict=True)
        ]
        completion = types.SimpleNamespace(
            token_ids=list(self.script), logprobs=reported, finish_reason=self.finish_reason
        )
        length = self.length(request["prompt_token_ids"]) + self.extra_tokens
        return types.SimpleNamespace(prompt_token_ids=[0] * length, outputs=[completion])

    def collective_rpc(self, method: str, *, kwargs: Mapping[str, Iterator[tuple[str, Any]]]) -> None:
        self.calls.append(method)
        self.loaded = [name for name, _ in kwargs["weights_iterator"]]

    def reset_prefix_cache(self) -> bool:
        self.calls.append("prefix cache")
        return self.is_idle

    def reset_mm_cache(self) -> None:
        self.calls.append("processor cache")

    def sleep(self, *, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self) -> None:
        self.calls.append("wake up")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """In place of the module vllm."""
    module = types.SimpleNamespace(
        LLM=Llm,
        SamplingParams=types.SimpleNamespace,
        closed=[],
        platforms=types.SimpleNamespace(
            current_platform=types.SimpleNamespace(is_sleep_mode_available=lambda: module.can_sleep)
        ),
        distributed=types.SimpleNamespace(
            cleanup_dist_env_and_memory=lambda: module.closed.append(True),
            parallel_state=types.SimpleNamespace(destroy_distributed_environment=lambda: module.closed.append(True)),
        ),
        can_sleep=False,
    )
    monkeypatch.setattr(vllm_engine, "_import_vllm", lambda: module)
    return module


@pytest.fixture
def make_engine(fake: types.SimpleNamespace, encoder: PromptEncoder) -> Callable[..., tuple[VllmEngine, Llm]]:
    def make(directory: Path = SHIPPED_BASE, **settings: Any) -> tuple[VllmEngine, Llm]:
        engine = VllmEngine(directory, encoder, VllmRollout(**settings), max_length=120)
        return engine, engine._llm

    return make


Make = Callable[..., tuple[VllmEngine, Llm]]
SAMPLING = Sampling(0.7, 20)


def test_every_sample_is_a_request_with_its_own_seed(make_engine: Make, prompts: list[Prompt]) -> None:
    """Derived like the transformers engine's: from the seed, the prompt's name, its occurrence and the sample."""
    engine, llm = make_engine()
    twice = [prompts[0], prompts[0]]
    groups = engine.generate(twice, num_samples=2, sampling=SAMPLING, seed=5)
    seeds = [parameters.seed for _, parameters in llm.requests]
    assert seeds == [derive_seed(5, "none", occurrence, sample) for occurrence in (0, 1) for sample in (0, 1)]
    assert [[rollout.sample for rollout in group.rollouts] for group in groups] == [[0, 1], [0, 1]]
    assert max(seeds) < 2**63


def test_sampling_is_from_the_policy_and_nothing_else(
    make_engine: Make, prompts: list[Prompt], encoder: PromptEncoder
) -> None:
    engine, llm = make_engine()
    engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)
    [(_, asked)] = llm.requests
    assert (asked.temperature, asked.max_tokens, asked.ignore_eos) == (0.7, 20, True)
    assert asked.stop_token_ids == [encoder.end_token_id]
    assert asked.logit_bias == dict.fromkeys(encoder.banned_token_ids, -math.inf)
    assert not {"top_k", "top_p", "min_p", "repetition_penalty"} & vars(asked).keys()
    assert llm.arguments["generation_config"] == "vllm"
    assert llm.arguments["logprobs_mode"] == "processed_logprobs"


def test_images_go_in_their_final_size_with_one_placeholder_each(
    make_engine: Make, prompts: list[Prompt], encoder: PromptEncoder
) -> None:
    engine, llm = make_engine()
    llm.length = lambda ids: encoder.prompt_length(prompts[2])
    engine.generate(prompts[2:3], num_samples=1, sampling=SAMPLING, seed=0)
    [(request, _)] = llm.requests
    assert request["prompt_token_ids"].count(encoder.image_token_id) == 2
    sizes = [image.size for image in request["multi_modal_data"]["image"]]
    assert sizes == [image.size for image in encoder.fitted_images(prompts[2])] and len(set(sizes)) == 2
    assert llm.arguments["mm_processor_kwargs"] == {"do_resize": False}


def test_a_prompt_of_another_length_there_is_an_error(make_engine: Make, prompts: list[Prompt]) -> None:
    engine, llm = make_engine()
    llm.extra_tokens = 3
    with pytest.raises(RolloutError, match=r"prompt 'none' has \d+ tokens there and \d+ in training"):
        engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)


def test_rollouts_carry_tokens_text_and_logprobs(
    make_engine: Make, prompts: list[Prompt], encoder: PromptEncoder
) -> None:
    engine, llm = make_engine()
    llm.script, llm.finish_reason = (300, encoder.end_token_id), "stop"
    [group] = engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)
    [rollout] = group.rollouts
    assert rollout.token_ids == (300, encoder.end_token_id) and rollout.is_finished
    assert rollout.text == encoder.tokenizer.decode([300])
    assert rollout.logprobs == (-0.5, -1.5)
    llm.script, llm.finish_reason = (300, 301), "length"
    [group] = engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)
    assert not group.rollouts[0].is_finished


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_broken_weights_are_an_error_and_not_a_rollout(make_engine: Make, prompts: list[Prompt], value: float) -> None:
    engine, llm = make_engine()
    llm.logprobs = (-0.5, value)
    with pytest.raises(NumericsError, match="prompt 'none': the policy's logits are NaN or infinite"):
        engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)


def test_a_request_that_was_given_up_is_an_error(make_engine: Make, prompts: list[Prompt]) -> None:
    engine, llm = make_engine()
    llm.finish_reason = "abort"
    with pytest.raises(RolloutError, match="prompt 'none': gave up with 'abort'"):
        engine.generate(prompts[:1], num_samples=1, sampling=SAMPLING, seed=0)


def test_limits_are_checked_before_vllm_is_asked(make_engine: Make, prompts: list[Prompt]) -> None:
    engine, llm = make_engine(max_images=1)
    with pytest.raises(DataError, match=r"'two' has 2 images, more than rollout\.max_images \(1\)"):
        engine.generate(prompts, num_samples=1, sampling=SAMPLING, seed=0)
    with pytest.raises(DataError, match=r"'none' has \d+ tokens and its completion may have 110, .* more than 120"):
        engine.generate(prompts[:1], num_samples=1, sampling=Sampling(1.0, 110), seed=0)
    assert not llm.requests


def test_an_update_gives_every_weight_and_empties_every_cache(make_engine: Make) -> None:
    """The shipped policy's output layer is tied to its embedding: vLLM is given it under both names."""
    engine, llm = make_engine()
    weights = dict(checkpoint_weights(load_policy(SHIPPED_BASE)))
    assert "lm_head.weight" not in weights
    engine.update_weights(iter(weights.items()))
    assert sorted(llm.loaded) == sorted([*weights, "lm_head.weight"])
    assert llm.calls == ["reload_weights", "prefix cache", "processor cache", "encoder cache"]


def test_an_output_layer_of_its_own_is_given_once(
    make_engine: Make, make_policy: Callable[..., Any], encoder: PromptEncoder, tmp_path: Path
) -> None:
    policy = make_policy()
    policy.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.detach().clone())
    policy.config.tie_word_embeddings = policy.config.text_config.tie_word_embeddings = False
    save_policy(policy, encoder, tmp_path / "untied")
    engine, llm = make_engine(tmp_path / "untied")
    engine.update_weights(checkpoint_weights(load_policy(tmp_path / "untied")))
    assert llm.loaded.count("lm_head.weight") == 1


def test_a_wrong_a_missing_and_a_misshapen_weight_are_refused(make_engine: Make) -> None:
    weights = dict(checkpoint_weights(load_policy(SHIPPED_BASE)))
    name = "model.visual.pos_embed.weight"
    for given, message in (
        ({f"module.{name}": weights[name]}, rf"no weight module\.{name}; give weights the checkpoint's names"),
        ({key: weights[key] for key in weights if key != name}, rf"1 of {len(weights)} weights .* {name} the first"),
        ({}, f"{len(weights)} of {len(weights)} weights were not updated"),
        (weights | {name: weights[name].T[:3]}, rf"{name} has shape \(3, 64\), \(64, 64\) in the checkpoint"),
    ):
        engine, llm = make_engine()
        with pytest.raises(RolloutError, match=message):
            engine.update_weights(given.items())
        assert "encoder cache" not in llm.calls


def test_an_update_while_rollouts_are_sampled_is_refused(make_engine: Make) -> None:
    engine, llm = make_engine()
    llm.is_idle = False
    with pytest.raises(RolloutError, match="while rollouts were being sampled"):
        engine.update_weights(checkpoint_weights(load_policy(SHIPPED_BASE)))


def test_it_sleeps_once_and_an_update_wakes_it(make_engine: Make, fake: types.SimpleNamespace) -> None:
    fake.can_sleep = True
    engine, llm = make_engine(sleep=True)
    assert llm.arguments["enable_sleep_mode"]
    engine.sleep()
    engine.sleep()
    engine.update_weights(checkpoint_weights(load_policy(SHIPPED_BASE)))
    assert llm.calls[:3] == ["sleep 1", "wake up", "reload_weights"]


def test_closing_wakes_it_first(make_engine: Make, fake: types.SimpleNamespace) -> None:
    fake.can_sleep = True
    engine, llm = make_engine(sleep=True)
    engine.sleep()
    engine.close()
    assert llm.calls == ["sleep 1", "wake up", "shut down"] and fake.closed == [True]


def test_closing_leaves_a_process_group_alone_that_was_there_before(
    make_engine: Make, fake: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's own shutdown would end it."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    engine, llm = make_engine()
    state = fake.distributed.parallel_state
    llm.llm_engine.engine_core.shutdown = lambda: state.destroy_distributed_environment()
    engine.close()
    assert fake.closed == []
    state.destroy_distributed_environment()
    assert fake.closed == [True]


def test_processes_have_an_engine_each_for_their_share_of_the_prompts(
    make_engine: Make, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [prompts[0], dataclasses.replace(prompts[0], id="other"), prompts[0]]

    def sample() -> tuple[list[RolloutGroup], Llm]:
        engine, llm = make_engine()
        return engine.generate(asked, num_samples=2, sampling=SAMPLING, seed=7), llm

    alone, llm = sample()
    assert llm.arguments["distributed_executor_backend"] is None
    seeds = [parameters.seed for _, parameters in llm.requests]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for module in (distributed, rollout_engine):
        monkeypatch.setattr(module, "num_processes", lambda: 2)
    drawn: list[Any] = []
    monkeypatch.setattr(rollout_engine, "gather", lambda values: drawn.extend(values) or drawn)
    monkeypatch.setattr(distributed, "process_index", lambda: 0)
    with pytest.raises(KeyError):  # what the other process drew is missing
        sample()
    monkeypatch.setattr(distributed, "process_index", lambda: 1)
    together, llm = sample()
    assert together == alone and [place for place, _ in drawn] == [0, 1, 2]
    assert llm.arguments["distributed_executor_backend"] == "external_launcher"
    # The third prompt is the first once more: its stream is that of a second occurrence.
    assert [parameters.seed for _, parameters in llm.requests] == seeds[4:]


def test_sleep_is_not_promised_where_there_is_none(make_engine: Make, fake: types.SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.sleep: vLLM cannot free memory on this kind of device"):
        make_engine(sleep=True)
    engine, llm = make_engine()
    engine.sleep()
    engine.close()
    assert llm.calls == ["shut down"] and fake.closed == [True]


@pytest.mark.parametrize("has_directory", [False, True])
def test_without_vllm_the_error_names_the_extra(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_directory: bool
) -> None:
    """A directory called vllm on the path is no vLLM."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if has_directory:
        (tmp_path / "vllm").mkdir()
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r'pip install -e "\.\[vllm\]"'):
        VllmEngine(SHIPPED_BASE, encoder, VllmRollout(), max_length=100)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_what_vllm_refuses_to_start_with_is_said_in_a_line(
    make_engine: Make, fake: types.SimpleNamespace, kind: type[Exception]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise kind("Free memory is less than desired\nmore about it")

    fake.LLM = refuse
    with pytest.raises(ConfigError, match=r"Free memory is less than desired; .*rollout\.memory_fraction"):
        make_engine()
