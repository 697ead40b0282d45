"""What the speed benchmarks share: a model, prompts and completions, runs in pairs, and the peak of memory.

The models are real Qwen3-VLs of `transformers` with random weights, in the proportions of Qwen3-VL-4B (the policy) and
of Qwen3-VL-2B (the discriminator, upcycled) at a tenth of the widths and a quarter of the depths. Their 11 and 11
million parameters are enough for matrix products and attention to take nine tenths of a CPU's time.
"""

import argparse
import gc
import os
import random
import shlex
import statistics
import string
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from prism.data.world.lessons import tokenizer_texts
from prism.models import Discriminator, PromptEncoder, upcycle
from prism.models.tiny import CHAT_TEMPLATE, build_tiny, tiny_config, train_tokenizer
from prism.packing import EncodedPrompt
from prism.records import ImageSource, Prompt, Rollout, RolloutGroup
from prism.rewards import parse_response
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages.policy_update import PolicyObjective

PIXELS_PER_TOKEN = 32 * 32
RESPONSE_TOKENS = (150, 400)
"""Shortest and longest completion: description, reasoning and answer, the end token included."""

GRPO = PolicyObjective(
    level="token",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
    aggregation="seq-mean-token-mean",
    temperature=1.0,
    banned_token_ids=(),
)
"""The loss of every policy update here: GRPO's, without a KL term."""


@dataclass(frozen=True, slots=True)
class Vision:
    hidden: int
    layers: int
    heads: int
    mlp: int
    taps: tuple[int, ...]
    """Layers whose features also enter the first layers of the language model."""


@dataclass(frozen=True, slots=True)
class Size:
    hidden: int
    layers: int
    heads: int
    key_heads: int
    mlp: int
    vision: Vision
    head: int = 32
    rope: tuple[int, int, int] = (6, 5, 5)


VISION = Vision(hidden=96, layers=6, heads=3, mlp=384, taps=(1, 2, 4))
"""Qwen3-VL-4B and 2B: 1024, 24, 16, 4096."""

POLICY = Size(hidden=256, layers=9, heads=12, key_heads=3, mlp=960, vision=VISION)
"""Qwen3-VL-4B: 2560, 36, 32, 8, 9728. Heads are 32 wide here and 128 there."""

DISCRIMINATOR = Size(hidden=192, layers=7, heads=6, key_heads=3, mlp=576, vision=VISION)
"""Qwen3-VL-2B: 2048, 28, 16, 8, 6144. Its MLPs become four experts, of which a token sees two."""

POLICY_SLICE = Size(2560, 3, 32, 8, 9728, Vision(1024, 2, 16, 4096, taps=(0,)), head=128, rope=(24, 20, 20))
DISCRIMINATOR_SLICE = Size(2048, 3, 16, 8, 6144, Vision(1024, 2, 16, 4096, taps=(0,)), head=128, rope=(24, 20, 20))
"""A twelfth of the layers of 4B and a ninth of 2B's 28, a twelfth of the vision tower's 24 in both, at their true
widths: attention has its true share of the time, and in a model a tenth as wide ten times that. What is there once
whatever the layers are (patch embedding, last merger) weighs more than in truth."""


def model_config(encoder: PromptEncoder, size: Size) -> Qwen3VLConfig:
    config: Any = tiny_config(encoder.tokenizer, hidden_size=size.hidden, num_layers=size.layers)
    text, vision = config.text_config, config.vision_config
    text.num_attention_heads, text.num_key_value_heads, text.intermediate_size = size.heads, size.key_heads, size.mlp
    text.head_dim, text.rope_parameters["mrope_section"] = size.head, list(size.rope)
    of = size.vision
    vision.hidden_size, vision.num_heads, vision.intermediate_size = of.hidden, of.heads, of.mlp
    vision.depth, vision.deepstack_visual_indexes = of.layers, list(of.taps)
    vision.num_position_embeddings = 48 * 48
    return config


def make_encoder() -> PromptEncoder:
    """Chat template, tokenizer and image settings of the tiny model, for images of any size."""
    tokenizer = train_tokenizer(tokenizer_texts())
    images = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": PIXELS_PER_TOKEN, "longest_edge": 4096 * PIXELS_PER_TOKEN},
    )
    config: Any = tiny_config(tokenizer)
    return PromptEncoder(tokenizer, images, CHAT_TEMPLATE, vocab_size=config.text_config.vocab_size)


def make_policy(encoder: PromptEncoder, size: Size = POLICY) -> Qwen3VLForConditionalGeneration:
    return build_tiny(model_config(encoder, size), seed=0).train()


def make_discriminator(encoder: PromptEncoder, size: Size = DISCRIMINATOR) -> Discriminator:
    body = upcycle(build_tiny(model_config(encoder, size), seed=1), num_experts=4, top_k=2).model
    discriminator = Discriminator(body, mode="moe").train()
    torch.nn.init.normal_(discriminator.head.weight, std=0.1)
    return discriminator


class Writer:
    """Prompts and responses of random content, one after the other from `seed`."""

    def __init__(self, encoder: PromptEncoder, *, seed: int = 0) -> None:
        self._encoder = encoder
        self._random = random.Random(seed)
        words = {word for text in tokenizer_texts() for word in text.split() if set(word) <= set(string.ascii_letters)}
        # A word is one token, with the space before it.
        self._words = sorted(word for word in words if len(encoder.completion_ids(f" {word}")) == 2)

    def words(self, count: int) -> str:
        return " ".join(self._random.choices(self._words, k=count))

    def prompt(self, name: str, image_tokens: int) -> Prompt:
        """A question about an image of noise, nearly square, in `image_tokens` merged tokens."""
        rows = max(n for n in range(1, int(image_tokens**0.5) + 1) if image_tokens % n == 0)
        size = (32 * image_tokens // rows, 32 * rows)
        data = BytesIO()
        Image.frombytes("RGB", size, self._random.randbytes(3 * size[0] * size[1])).save(data, "PNG")
        return Prompt(name, f"{self.words(24)}?", (ImageSource(data=data.getvalue()),), answer="5")

    def response(self, num_tokens: int) -> str:
        """A valid response of `num_tokens` tokens with the end token, right or wrong by chance; two fifths of it are
        the description."""

        answer = self._random.choice("56")

        def text(size: int) -> str:
            caption, think = self.words(2 * size // 5), self.words(size - 2 * size // 5)
            return f"<caption>{caption}</caption><think>1. {think}.</think><answer>{answer}</answer>"

        size = num_tokens - len(self._encoder.completion_ids(text(0)))
        while True:
            found = text(size)
            missing = num_tokens - len(self._encoder.completion_ids(found))
            if not missing:
                assert parse_response(found).is_valid
                return found
            size += missing

    def length(self, bounds: tuple[int, int] = RESPONSE_TOKENS) -> int:
        return self._random.randint(*bounds)

    def group(self, prompt: Prompt, group_size: int, bounds: tuple[int, int] = RESPONSE_TOKENS) -> RolloutGroup:
        texts = [self.response(self.length(bounds)) for _ in range(group_size)]
        rollouts = [
            Rollout(sample, tuple(self._encoder.completion_ids(text)), text, True) for sample, text in enumerate(texts)
        ]
        return RolloutGroup(prompt, tuple(rollouts))


class Script(TransformersEngine):
    """Our engine, decoding completions that are given, at the cost of sampling them.

    A model with random weights would write no valid response, and never the same length twice.
    """

    def __init__(self, policy: Any, encoder: PromptEncoder, groups: Sequence[RolloutGroup]) -> None:
        super().__init__(policy, encoder)
        self._script = {group.prompt.id: group for group in groups}

    def rollouts(self, prompts: Sequence[Prompt]) -> list[RolloutGroup]:
        """As `generate` draws them at temperature 1."""
        groups = [self._script[prompt.id] for prompt in prompts]
        longest = max(len(rollout.token_ids) for group in groups for rollout in group.rollouts)
        return self.generate(prompts, num_samples=len(groups[0].rollouts), sampling=Sampling(1.0, longest), seed=0)

    def _decode(
        self, encoded: list[EncodedPrompt], num_samples: int, draws: Tensor, sampling: Sampling
    ) -> list[list[int]]:
        return super()._decode(encoded, num_samples, self._next_tokens, sampling)

    def _sample(self, prompts: Sequence[Prompt], *arguments: Any) -> list[list[Rollout]]:
        scripts = [rollout.token_ids for prompt in prompts for rollout in self._script[prompt.id].rollouts]
        self._next_tokens = pad_sequence([torch.tensor(ids) for ids in scripts], batch_first=True)
        return super()._sample(prompts, *arguments)

    def _choose(self, logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
        super()._choose(logits, torch.full(draws.shape, 0.5, dtype=torch.float64), temperature)
        return draws


def clock() -> float:
    """Seconds of processor time of this process, which has one thread: what a clock shows on an idle machine, and
    hardly different on a busy one."""
    return time.process_time()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of our way and of the rival's, run in turn."""

    ours: Sequence[float]
    rival: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        return [rival / ours for ours, rival in zip(self.ours, self.rival, strict=True)]

    def describe(self, name: str) -> str:
        ratios = self.ratios
        return (
            f"{name}: ours {statistics.median(self.ours):.2f} s, rival {statistics.median(self.rival):.2f} s, "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)"
        )


def timed(function: Callable[[], object], now: Callable[[], float] = clock) -> float:
    gc.collect()
    started = now()
    function()
    return now() - started


def run_pairs(
    ours: Callable[[], object],
    rival: Callable[[], object],
    num_pairs: int,
    now: Callable[[], float] = clock,
) -> Pairs:
    """Runs both in turn; the first pair warms up and does not count."""
    seconds = [(timed(ours, now), timed(rival, now)) for _ in range(num_pairs + 1)]
    return Pairs(*zip(*seconds[1:], strict=True))


def assert_same_gradients(ours: torch.nn.Module, rival: torch.nn.Module, *, tolerance: float = 1e-3) -> None:
    """Every gradient of both models, which have the same parameters, within `tolerance` of its largest element."""
    theirs = dict(rival.named_parameters())
    for name, parameter in ours.named_parameters():
        own, other = parameter.grad, theirs[name].grad
        assert own is not None and other is not None, f"{name} has no gradient"
        difference = float((own - other).abs().max() / other.abs().max())
        assert difference <= tolerance, f"the gradients of {name} differ by {difference:.1e} of the largest"


def _send_growth(prepare: Callable[..., Callable[[], object]], arguments: argparse.Namespace, connection: Any) -> None:
    torch.set_num_threads(1)
    step = prepare(arguments)
    gc.collect()
    # Makes the peak so far what is resident now; `ru_maxrss` would go on from the parent's.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    step()
    connection.send(_peak() - before)


def _peak() -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def memory_growth(prepare: Callable[..., Callable[[], object]], arguments: argparse.Namespace) -> float:
    """What the peak of a process of its own grows by, in MiB, in the step that `prepare(arguments)` returns. Linux."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_growth, args=(prepare, arguments, sender))
    process.start()
    sender.close()
    grown = receiver.recv()
    process.join()
    return grown


def parse_arguments(description: str | None, **defaults: int) -> argparse.Namespace:
    """An option per default; prints the machine and how to repeat this run. Sets one thread."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, metavar="N", help=f"{value}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe_machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"python {shlex.join(sys.argv)}", flush=True)
    return arguments
