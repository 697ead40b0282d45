"""Rollouts with the training model itself: the prompt is read once and shared by its samples."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from prism.config import Precision
from prism.errors import NumericsError
from prism.models.device import own_device
from prism.models.policy import load_policy, take_weights
from prism.models.processor import PromptEncoder
from prism.packing import EncodedPrompt
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.decoding import SampleCache, SharedPrompts, decoding_attention
from prism.rollout.engine import share_out
from prism.rollout.sampling import Sampling, Stream, streams
from prism.runtime.generators import generator

_COMPACT_BELOW = 0.75
"""Finished rows leave the batch once fewer than this share of it is still growing."""


class TransformersEngine:
    """Decodes in batches of at most `batch_size` samples, with the training model or, where that is sharded, with a
    copy of it (`is_copy`) that `update_weights` brings up to date. Processes that run together share out the batches
    that one would draw, and all have all rollouts.

    `generate` of transformers would encode each image once per sample and draws all samples from
    one random stream; here a prompt's keys and values are computed and stored once, and every
    sample has its own stream.
    """

    def __init__(self, policy: Any, encoder: PromptEncoder, *, batch_size: int = 64, is_copy: bool = False) -> None:
        self._policy = policy
        self._is_copy = is_copy
        self._encoder = encoder
        self._batch_size = batch_size
        self._banned = torch.tensor(sorted(encoder.banned_token_ids), dtype=torch.long)

    @classmethod
    def of_checkpoint(
        cls,
        directory: Path,
        *,
        batch_size: int = 64,
        max_pixels: int | None = None,
        precision: Precision = "float32",
    ) -> "TransformersEngine":
        """Of the policy in `directory`, on this process's device. `update_weights` replaces its weights."""
        policy = load_policy(directory, dtype=precision, device=own_device())
        encoder = PromptEncoder.from_pretrained(directory, max_pixels=max_pixels)
        return cls(policy, encoder, batch_size=batch_size, is_copy=True)

    @property
    def _device(self) -> torch.device:
        return next(self._policy.parameters()).device

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        sources = streams(prompts, seed)

        def sample(piece: slice) -> list[list[Rollout]]:
            return self.sample(prompts[piece], sources[piece], num_samples=num_samples, sampling=sampling)

        return share_out(prompts, self._prompts_per_batch(num_samples), sample)

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], sources: Sequence[Stream], *, num_samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        was_training = self._policy.training
        self._policy.eval()
        rollouts: list[list[Rollout]] = [[] for _ in prompts]
        per_batch = self._prompts_per_batch(num_samples)
        for start in range(0, len(prompts), per_batch):
            piece = slice(start, start + per_batch)
            # A group larger than the batch size is sampled in several passes.
            for first in range(0, num_samples, self._batch_size):
                samples = range(first, min(first + self._batch_size, num_samples))
                parts = self._sample(prompts[piece], sources[piece], samples, sampling)
                for group, part in zip(rollouts[piece], parts, strict=True):
                    group += part
        self._policy.train(was_training)
        return rollouts

    def _prompts_per_batch(self, num_samples: int) -> int:
        return max(1, self._batch_size // num_samples)

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Nothing to do where the policy that trains is the one that samples."""
        if self._is_copy:
            take_weights(self._policy, weights)

    def sleep(self) -> None:
        """Nothing to do: no memory is held between calls."""

    def close(self) -> None:
        """Nothing to do."""

    def _sample(
        self, prompts: Sequence[Prompt], sources: Sequence[Stream], samples: range, sampling: Sampling
    ) -> list[list[Rollout]]:
        """For each prompt those of its rollouts that `samples` names."""
        encoded = [self._encoder.encode(prompt) for prompt in prompts]
        draws = torch.stack(
            [
                torch.rand(sampling.max_tokens, generator=generator(*stream, sample), dtype=torch.float64)
                for stream in sources
                for sample in samples
            ]
        )
        rows = iter(self._decode(encoded, len(samples), draws.to(self._device), sampling))
        return [[self._rollout(sample, next(rows)) for sample in samples] for _ in prompts]

    def _rollout(self, sample: int, ids: list[int]) -> Rollout:
        is_finished = bool(ids) and ids[-1] == self._encoder.end_token_id
        text = self._encoder.decode(ids[:-1] if is_finished else ids)
        return Rollout(sample, tuple(ids), text, is_finished)

    def _decode(
        self, encoded: list[EncodedPrompt], num_samples: int, draws: Tensor, sampling: Sampling
    ) -> list[list[int]]:
        prompts, logits = self._read_prompts(encoded, num_samples)
        cache = SampleCache(len(prompts.layers))
        logits = logits.repeat_interleave(num_samples, dim=0)
        starts = torch.tensor([prompt.next_position for prompt in encoded], device=self._device)
        positions = starts.repeat_interleave(num_samples)
        growing = torch.arange(len(encoded) * num_samples, device=self._device)
        is_open = torch.ones_like(growing, dtype=torch.bool)
        tokens: list[list[int]] = [[] for _ in growing]
        for step in range(sampling.max_tokens):
            chosen = self._choose(logits, draws[growing, step], sampling.temperature)
            for row, is_row_open, token in zip(growing.tolist(), is_open.tolist(), chosen.tolist(), strict=True):
                if is_row_open:
                    tokens[row].append(token)
            is_open = is_open & (chosen != self._encoder.end_token_id)
            num_open = int(is_open.sum())
            if num_open == 0 or step + 1 == sampling.max_tokens:
                break
            if num_open < _COMPACT_BELOW * is_open.numel():
                keep = is_open.nonzero().flatten()
                prompts.keep(keep)
                cache.batch_select_indices(keep)
                growing, positions, chosen, is_open = (tensor[keep] for tensor in (growing, positions, chosen, is_open))
            logits = self._next_logits(chosen, positions + step, prompts, cache)
        return tokens

    def _read_prompts(self, encoded: list[EncodedPrompt], num_samples: int) -> tuple[SharedPrompts, Tensor]:
        """The prompts, from each of which `num_samples` rows are to go on, and the logits of the first new token."""
        longest = max(len(prompt) for prompt in encoded)
        input_ids = torch.zeros(len(encoded), longest, dtype=torch.long)
        position_ids = torch.zeros(3, len(encoded), longest, dtype=torch.long)
        is_key = torch.zeros(len(encoded), longest, dtype=torch.bool)
        for row, prompt in enumerate(encoded):
            real = slice(longest - len(prompt), longest)
            input_ids[row, real] = prompt.token_ids
            position_ids[:, row, real] = prompt.position_ids
            is_key[row, real] = True
        # A padding query looks at itself: a row without any key would be NaN.
        mask = (torch.ones(longest, longest, dtype=torch.bool).tril() & is_key[:, None, :]) | torch.eye(
            longest, dtype=torch.bool
        )
        pixels = [prompt.pixel_values for prompt in encoded if prompt.pixel_values is not None]
        grids = [prompt.image_grid_thw for prompt in encoded if prompt.image_grid_thw is not None]
        cache = DynamicCache(config=self._policy.config.get_text_config())
        output = self._policy(
            input_ids=input_ids.to(self._device),
            position_ids=position_ids.to(self._device),
            attention_mask=mask[:, None].to(self._device),
            pixel_values=torch.cat(pixels).to(self._device) if pixels else None,
            image_grid_thw=torch.cat(grids).to(self._device) if grids else None,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return SharedPrompts.of(cache, is_key.to(self._device), num_samples), output.logits[:, -1]

    def _next_logits(self, tokens: Tensor, positions: Tensor, prompts: SharedPrompts, cache: SampleCache) -> Tensor:
        with decoding_attention(self._policy):
            output = self._policy(
                input_ids=tokens[:, None],
                position_ids=positions.expand(3, -1)[:, :, None],
                past_key_values=cache,
                use_cache=True,
                prompts=prompts,
            )
        return output.logits[:, -1]

    def _choose(self, logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
        """The next token per row: the arg max, or the one at which the cumulative probability passes
        the row's uniform draw."""
        logits = logits.double().index_fill(-1, self._banned.to(logits.device), -torch.inf)
        if not torch.isfinite(logits.amax(-1)).all():
            raise NumericsError("the policy's logits are NaN or infinite while sampling: lower the learning rate")
        if temperature == 0:
            return logits.argmax(-1)
        cumulative = (logits / temperature).softmax(-1).cumsum(-1)
        chosen = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True).squeeze(-1)
        # A draw at the very end of the last token's share would land one past it.
        last = logits.shape[-1] - 1 - (logits > -torch.inf).flip(-1).int().argmax(-1)
        return torch.minimum(chosen, last)
