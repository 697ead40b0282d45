"""Rollouts by vLLM in the training process, from a copy of the policy's weights.

vLLM expands image placeholders itself, so it is given one per image, and images in their final size. What it says
of a token's log-probability is that of the distribution it drew from: at the sampling temperature, without the
banned tokens. `stages.mismatch` compares it with the training forward.

A copy can be wrong without a sign: vLLM only logs a weight that it did not get, and keeps what it computed of
prompts and images with earlier weights. Here a missing weight is an error, and an update empties every cache.
"""

import importlib
import importlib.util
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prism.config import VllmRollout
from prism.errors import ConfigError, DataError, NumericsError, RolloutError
from prism.models import PromptEncoder
from prism.models.checkpoint import INPUT_WEIGHT, OUTPUT_WEIGHT, first_line, read_weight_shapes
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.engine import share_out
from prism.rollout.sampling import Sampling, Stream, streams
from prism.runtime.launch import was_started_with_others
from prism.runtime.seeding import derive_seed

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker must be in this process to take tensors from it
    "VLLM_NO_USAGE_STATS": "1",
}
_ENVIRONMENT_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # on a CPU the training forward needs the threads as well
}


class VllmEngine:
    """One request per sample, each with a seed of its own.

    `directory` holds a checkpoint of the policy's architecture; which weights are in it does not matter once
    `update_weights` has been called. `max_length` counts the tokens of a prompt and its completion.
    Processes that run together have an engine each, which samples for its share of the prompts; all have all rollouts.
    Raises ConfigError without vLLM, and where the settings ask for what it cannot do on this machine.
    """

    def __init__(self, directory: Path, encoder: PromptEncoder, settings: VllmRollout, *, max_length: int) -> None:
        self._encoder = encoder
        self._settings = settings
        self._max_length = max_length
        self._shapes = read_weight_shapes(directory)
        self._vllm = _import_vllm()
        self._owns_group = not torch.distributed.is_initialized()
        if settings.sleep and not self._vllm.platforms.current_platform.is_sleep_mode_available():
            raise ConfigError("rollout.sleep: vLLM cannot free memory on this kind of device; set rollout.sleep=false")
        self._is_asleep = False
        self._llm: Any = self._start(directory)

    def _start(self, directory: Path) -> Any:
        settings = self._settings
        try:
            return self._vllm.LLM(
                str(directory),
                dtype=settings.dtype,
                max_model_len=self._max_length,
                max_num_seqs=settings.batch_size,
                gpu_memory_utilization=settings.memory_fraction,
                kv_cache_memory_bytes=settings.kv_cache_bytes,
                enforce_eager=settings.eager,
                enable_sleep_mode=settings.sleep,
                limit_mm_per_prompt={"image": settings.max_images, "video": 0},
                mm_processor_kwargs={"do_resize": False},
                skip_mm_profiling=settings.kv_cache_bytes is not None,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",  # not the checkpoint's, which may limit sampling to the likeliest tokens
                # Joins the processes of torchrun in place of starting its own.
                distributed_executor_backend="external_launcher" if was_started_with_others() else None,
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"rollout: vLLM does not start: {first_line(error)}; where it is about memory, lower "
                "rollout.memory_fraction or set rollout.kv_cache_bytes"
            ) from error

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        """Raises DataError for a prompt that is too long or has too many images, RolloutError where vLLM does not
        read a prompt as the policy does or gives up, and NumericsError for NaN."""
        sources = streams(prompts, seed)

        def sample(piece: slice) -> list[list[Rollout]]:
            return self.sample(prompts[piece], sources[piece], num_samples=num_samples, sampling=sampling)

        return share_out(prompts, len(prompts), sample)

    def sample(
        self, prompts: Sequence[Prompt], sources: Sequence[Stream], *, num_samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """Raises what `generate` raises."""
        lengths, inputs, parameters = [], [], []
        for prompt, stream in zip(prompts, sources, strict=True):
            lengths.append(self._length(prompt, sampling))
            inputs += [self._input(prompt)] * num_samples
            parameters += [self._parameters(sampling, derive_seed(*stream, sample)) for sample in range(num_samples)]
        outputs = iter(self._llm.generate(inputs, parameters, use_tqdm=False))
        rollouts = []
        for prompt, length in zip(prompts, lengths, strict=True):
            own = [next(outputs) for _ in range(num_samples)]
            _check_prompts(prompt, length, own)
            rollouts.append([self._rollout(prompt, place, output) for place, output in enumerate(own)])
        return rollouts

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Raises RolloutError unless `weights` are exactly those of the checkpoint, by name and shape."""
        self._wake()
        seen: set[str] = set()
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._known(weights, seen)})
        missing = [name for name in self._shapes if name not in seen]
        if missing:
            raise RolloutError(
                f"vLLM: {len(missing)} of {len(self._shapes)} weights were not updated, {missing[0]} the first; "
                "give it all weights under the names of the checkpoint (prism.models.checkpoint_weights)"
            )
        self._empty_caches()

    def sleep(self) -> None:
        """Does nothing unless `settings.sleep`, which needs a device whose memory vLLM can give back."""
        if self._settings.sleep and not self._is_asleep:
            self._llm.sleep(level=1)
            self._is_asleep = True

    def close(self) -> None:
        """Wakes vLLM before it goes: what it put away while asleep would stay where it is."""
        self._wake()
        with nullcontext() if self._owns_group else self._process_group_kept():
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
        if self._owns_group:
            self._vllm.distributed.cleanup_dist_env_and_memory()

    @contextmanager
    def _process_group_kept(self) -> Iterator[None]:
        """vLLM ends with the default process group, whoever made it."""
        state = self._vllm.distributed.parallel_state
        destroy = state.destroy_distributed_environment
        state.destroy_distributed_environment = lambda: None
        try:
            yield
        finally:
            state.destroy_distributed_environment = destroy

    def _wake(self) -> None:
        if self._is_asleep:
            self._llm.wake_up()
            self._is_asleep = False

    def _known(self, weights: Iterable[tuple[str, Tensor]], seen: set[str]) -> Iterator[tuple[str, Tensor]]:
        """`weights`, their names added to `seen`; RolloutError at the first that the checkpoint does not have."""
        for name, tensor in weights:
            expected = self._shapes.get(name)
            if expected is None:
                raise RolloutError(f"vLLM: the checkpoint has no weight {name}; give weights the checkpoint's names")
            if tuple(tensor.shape) != expected:
                raise RolloutError(f"vLLM: {name} has shape {tuple(tensor.shape)}, {expected} in the checkpoint")
            seen.add(name)
            yield name, tensor
            if name == INPUT_WEIGHT and OUTPUT_WEIGHT not in self._shapes:
                # vLLM may keep a tied output layer in another layout (it does on a CPU), to be made anew.
                yield OUTPUT_WEIGHT, tensor

    def _empty_caches(self) -> None:
        """Keys and values of prompts, processed images, image embeddings: all but the second are of old weights."""
        if not self._llm.reset_prefix_cache():
            raise RolloutError("vLLM: weights were updated while rollouts were being sampled; wait for them first")
        self._llm.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()

    def _length(self, prompt: Prompt, sampling: Sampling) -> int:
        """Tokens of the prompt as the policy reads it; DataError where it is beyond a limit."""
        if len(prompt.images) > self._settings.max_images:
            raise DataError(
                f"prompt {prompt.id!r} has {len(prompt.images)} images, more than rollout.max_images "
                f"({self._settings.max_images}); raise it or drop the row"
            )
        length = self._encoder.prompt_length(prompt)
        if length + sampling.max_tokens > self._max_length:
            raise DataError(
                f"prompt {prompt.id!r} has {length} tokens and its completion may have {sampling.max_tokens}, together "
                f"more than {self._max_length}; raise max_prompt_tokens or drop the row"
            )
        return length

    def _input(self, prompt: Prompt) -> dict[str, Any]:
        images = self._encoder.fitted_images(prompt)
        return {
            "prompt_token_ids": self._encoder.unexpanded_ids(prompt),
            **({"multi_modal_data": {"image": images}} if images else {}),
        }

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=seed,
            logprobs=0,  # of the sampled token alone
            logit_bias=dict.fromkeys(self._encoder.banned_token_ids, -math.inf),
            stop_token_ids=[self._encoder.end_token_id],
            ignore_eos=True,  # the end token is ours to say; vLLM would add those of the checkpoint
            detokenize=False,
        )

    def _rollout(self, prompt: Prompt, sample: int, output: Any) -> Rollout:
        [completion] = output.outputs
        if completion.finish_reason not in ("stop", "length"):
            raise RolloutError(f"vLLM: prompt {prompt.id!r}: gave up with {completion.finish_reason!r}; see its log")
        ids = tuple(completion.token_ids)
        logprobs = _sampled_logprobs(prompt, ids, completion.logprobs)
        is_finished = bool(ids) and ids[-1] == self._encoder.end_token_id
        return Rollout(sample, ids, self._encoder.decode(ids), is_finished, logprobs=logprobs)


def _check_prompts(prompt: Prompt, length: int, outputs: Sequence[Any]) -> None:
    for output in outputs:
        if len(output.prompt_token_ids) != length:
            raise RolloutError(
                f"vLLM: prompt {prompt.id!r} has {len(output.prompt_token_ids)} tokens there and {length} in training; "
                "the image processor must be that of the checkpoint (patch size, merge size)"
            )


def _sampled_logprobs(
    prompt: Prompt, token_ids: Sequence[int], reported: Sequence[Mapping[int, Any]]
) -> tuple[float, ...]:
    found = tuple(given[token].logprob for token, given in zip(token_ids, reported, strict=True))
    if not all(map(math.isfinite, found)):
        raise NumericsError(
            f"prompt {prompt.id!r}: the policy's logits are NaN or infinite while sampling: lower the learning rate"
        )
    return found


def require_vllm() -> None:
    """Raises ConfigError where vLLM is not installed; does not import it."""
    found = importlib.util.find_spec("vllm")
    # A directory of that name on the path is found as well, but has no file to load.
    if found is None or found.origin is None:
        raise ConfigError(
            'rollout.type = "vllm": vLLM is not installed: pip install -e ".[vllm]" in PRISM\'s directory, or leave '
            "rollout.type out"
        )


def _import_vllm() -> Any:
    """The module; its first import reads the environment."""
    require_vllm()
    os.environ |= _ENVIRONMENT
    for name, value in _ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for submodule in ("distributed", "platforms"):
        importlib.import_module(f"vllm.{submodule}")
    return importlib.import_module("vllm")
