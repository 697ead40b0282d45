"""What packed updates and scoring reach of a GPU's speed, and whether logits ever exist for all tokens at once.

    python benchmarks/gpu_update.py [--size 4b|2b|tiny] [--layers N] [--device cuda|cpu] [--runs 5] [--checkpointing]
        [--group-size 16] [--branch-tokens 400] [--image-tokens 256]

The policy has the shape of Qwen3-VL-4B (or 2B), the discriminator that of 2B upcycled to four experts, of which a token
sees two; both have random weights, so nothing is downloaded. `--layers` cuts the language layers of both. One group of
completions is one pack. On a GPU models are held as the stages hold them with `precision = "bfloat16"` and
`attention = "flex"`: weights, gradients and AdamW's two moments in float32, 16 bytes a parameter, and the layers
computed with weights that FSDP2 rounds to bfloat16 for each pass. By the formulas of `prism plan` that needs 120
GiB, and 66 GiB with `--size 2b`; where less is free, nothing starts. `--device cpu` computes in float32 with sdpa.

FLOPs are `prism.planning.work.forward`'s: matrix products of the language layers (two of the four experts), the vision
tower and the output layer over tokens that are targets, and attention over the pairs of tokens that may look at each
other. Each token of the pack counts once. The gradient costs twice as much, except that pixels have none. Norms,
activations, softmax, the optimizer and whatever is computed a second time (layers with `--checkpointing`, logits of
long packs, attention scores in the backward pass) count as nothing, but their time does. The update is
`accumulate_policy_gradient` and `descend`, as in the stages; encoding images and packing come before it. With one pack
a step the optimizer weighs more than in recipes with several, so the gradient is timed alone, too.

Utilisation is FLOPs over seconds, as a share of what large matrix products reach on this device, and of its data sheet
where `prism plan` knows it. Asked are 40% for the update and at most 1.3 times the products' own time for scoring.

Memory is compared between a pack of so many branches that a chunk of logits is full and a pack of all branches. How far
it rises above what is there when the output layer is first called must not grow with the targets by anything near their
logits in float32.
"""

import argparse
import gc
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from gpu_figures import GIB, LogitMemory, Report, Timing, nominal_rate
from gpu_models import SIZES, Settings, make_config, make_dense, make_discriminator, to_train, to_use
from machine import describe_machine
from plan_check import LiveBytes
from side_by_side import GRPO, Writer, make_encoder, timed

import prism.packing.forward as packed_forward
from prism.models import PromptEncoder
from prism.packing import PackedTrees
from prism.planning import memory as planned
from prism.planning.packs import Pack, Tree, pack_lengths
from prism.planning.shapes import ModelShape, read_shape, with_experts
from prism.planning.work import FLOAT, Model, forward
from prism.records import Response, RolloutGroup
from prism.rewards import parse_response
from prism.runtime.distributed import processes
from prism.runtime.optimizer import descend, make_optimizer
from prism.runtime.threads import choose_threads
from prism.stages.policy_update import accumulate_policy_gradient, pack_groups, rollout_logprobs
from prism.stages.scoring import Contest, ContestBatch, score

TOKEN_BUDGET = 2**20
WARMUP_RUNS = {"cuda": 3, "cpu": 1}
PRODUCTS = {"cuda": (8192, 20), "cpu": (1024, 2)}
"""Rows and columns of the matrices whose products are timed, and how many together."""

ASKED_OF_UPDATE, ASKED_OF_SCORING = "≥ 40%", "≤ 1.3 times"


class Meter:
    """Times and weighs functions on one device."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._is_cuda = settings, settings.device == "cuda"

    def now(self) -> float:
        if self._is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, function: Callable[[], object]) -> list[float]:
        for _ in range(WARMUP_RUNS[self._settings.device]):
            function()
        return [timed(function, self.now) for _ in range(self._settings.runs)]

    def product_rate(self) -> float:
        """FLOPs a second of products of large matrices in the layers' precision."""
        side, count = PRODUCTS[self._settings.device]
        place = {"device": self._settings.device, "dtype": getattr(torch, self._settings.precision)}
        left, right = torch.randn(side, side, **place), torch.randn(side, side, **place)
        product = torch.empty_like(left)

        def multiply() -> None:
            for _ in range(count):
                torch.mm(left, right, out=product)

        return count * 2 * side**3 / statistics.median(self.seconds(multiply))

    def peaks(self, function: Callable[[], object], policy: Any) -> tuple[int, int]:
        """Bytes that memory rises by in `function`: in all, and from the first call of the policy's output layer on."""
        # Leaves gradients, compiled kernels and libraries' workspaces behind, which all stay.
        function()
        gc.collect()
        before_logits: list[tuple[int, int]] = []

        def note(*_: object) -> None:
            if not before_logits:
                before_logits.append((memory.live, memory.peak))
                memory.restart()

        with self._memory_of(policy) as memory, policy.lm_head.register_forward_pre_hook(note):
            started = memory.live
            memory.restart()
            function()
        [(live, peak)] = before_logits
        return max(peak, memory.peak) - started, memory.peak - live

    def _memory_of(self, model: torch.nn.Module) -> "GpuMemory | LiveBytes":
        """On a CPU that of all tensors that operations read or write, those of `model` being there."""
        if self._is_cuda:
            return GpuMemory()
        live = LiveBytes()
        live.add(tensor for one in model.parameters() for tensor in (one, one.grad) if tensor is not None)
        return live


class GpuMemory(AbstractContextManager["GpuMemory"]):
    """Bytes of all tensors on the GPU, as `LiveBytes` tells them."""

    @property
    def live(self) -> int:
        return torch.cuda.memory_allocated()

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()

    def restart(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


def pack_numbers(packed: PackedTrees) -> Pack:
    """What the plan would know of a pack of one tree."""
    [(prompt, *branches)] = packed.runs
    images = () if packed.image_grid_thw is None else tuple(packed.image_grid_thw.prod(-1).tolist())
    [pack] = pack_lengths([Tree(prompt, tuple(branches), images)], TOKEN_BUDGET)
    assert pack.tokens == len(packed), (pack.tokens, len(packed))
    return pack


def training_flops(model: Model, pack: Pack) -> float:
    """Forward and backward pass, nothing computed twice: 3 · forward − 2 · patch projection · patches."""
    return 3 * forward(model, pack).flops - 2.0 * model.shape.patch_matrix * pack.patches


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt, the teacher's response to it and a policy's, all of one length."""

    encoder: PromptEncoder
    teacher: Response
    group: RolloutGroup


def make_task(settings: Settings) -> Task:
    encoder = make_encoder()
    writer, length = Writer(encoder), settings.branch_tokens
    teacher = parse_response(writer.response(length))
    group = writer.group(writer.prompt("prompt", settings.image_tokens), settings.group_size, (length, length))
    return Task(encoder, teacher, group)


class PolicyBench:
    """The rollouts of a task under a policy."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self._settings, self._meter = settings, Meter(settings)
        self._config = make_config(task.encoder, SIZES[settings.size][0], settings.layers)
        self.shape = read_shape(self._config)
        self._model = plan_model(self.shape, settings, has_logits=True)
        [self._packed] = pack_groups(task.encoder, [task.group], TOKEN_BUDGET)
        [self._smaller] = pack_groups(task.encoder, [one_chunk(task.group)], TOKEN_BUDGET)
        self._pack = pack_numbers(self._packed)
        self._advantages = torch.linspace(-1, 1, settings.group_size)

    def check_room(self) -> None:
        """Raises SystemExit where the plan needs more memory than the GPU has free."""
        needed, free = planned_bytes(self._model, self._pack), torch.cuda.mem_get_info()[0]
        if needed > free:
            raise SystemExit(
                f"the update is planned to take {needed / GIB:.0f} GiB of {free / GIB:.0f} GiB that are free: "
                "add --checkpointing, or take --size 2b or fewer --layers"
            )

    def trainee(self) -> Any:
        """A policy as the stages train it."""
        return to_train(make_dense(self._config, self._settings), self._settings)

    def trained(self) -> tuple[list[Timing], list[LogitMemory]]:
        """The update, its gradient alone, which several packs of a step each need, and log-probabilities of a policy
        that trains."""
        policy = self.trainee()
        optimizer = make_optimizer(policy, learning_rate=1e-6, weight_decay=0.01)

        def update() -> None:
            self._accumulate(policy, self._packed)
            descend(policy, optimizer, 1.0, name="policy", step=1)

        passes = {"policy update": update, "policy gradient": partial(self._accumulate, policy, self._packed)}
        tokens, flops = len(self._packed), training_flops(self._model, self._pack)
        timings = [
            Timing(name, tokens, flops, self._meter.seconds(run), ASKED_OF_UPDATE) for name, run in passes.items()
        ]
        timings.append(self._score(policy, "log-probabilities, policy that trains"))
        return timings, list(self.weigh(policy))

    def used(self) -> Timing:
        """Log-probabilities of a policy that does not train."""
        policy = to_use(make_dense(self._config, self._settings), self._settings)
        return self._score(policy, "log-probabilities, rounded policy")

    def weigh(self, policy: Any) -> Iterator[LogitMemory]:
        """What logits take of memory, without a gradient and with one."""
        targets = [packed.target_ids.numel() for packed in (self._smaller, self._packed)]
        for name, run in (("log-probabilities", self._logprobs), ("gradient", self._accumulate)):
            small, large = (
                self._meter.peaks(partial(run, policy, packed), policy) for packed in (self._smaller, self._packed)
            )
            yield LogitMemory(name, self.shape.vocab, targets, *zip(small, large, strict=True))

    def _score(self, policy: Any, name: str) -> Timing:
        seconds = self._meter.seconds(lambda: self._logprobs(policy, self._packed))
        return Timing(name, len(self._packed), forward(self._model, self._pack).flops, seconds, ASKED_OF_SCORING)

    def _logprobs(self, policy: Any, packed: PackedTrees) -> None:
        rollout_logprobs(policy, [packed], GRPO)

    def _accumulate(self, policy: Any, packed: PackedTrees) -> None:
        accumulate_policy_gradient(policy, [packed], self._advantages, GRPO)


class DiscriminatorBench:
    """All responses of a task, every view of each a branch, under a discriminator."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self._settings, self._meter = settings, Meter(settings)
        self._config = make_config(task.encoder, SIZES[settings.size][1], settings.layers)
        shape = with_experts(read_shape(self._config), num_experts=4, top_k=2)
        self._model = plan_model(shape, settings, has_logits=False)
        students = tuple(parse_response(rollout.text) for rollout in task.group.rollouts)
        contest = Contest(task.group.prompt, task.teacher, students)
        self._batch = ContestBatch(task.encoder, [contest], TOKEN_BUDGET, "moe")

    def trained(self) -> Timing:
        return self._score(to_train, "scores, discriminator that trains")

    def used(self) -> Timing:
        return self._score(to_use, "scores, rounded discriminator")

    def _score(self, hold: Callable[[Any, Settings], Any], name: str) -> Timing:
        discriminator = hold(make_discriminator(self._config, self._settings), self._settings)
        seconds = self._meter.seconds(lambda: score(discriminator, self._batch))
        [packed] = self._batch.packs
        return Timing(name, len(packed), forward(self._model, pack_numbers(packed)).flops, seconds, ASKED_OF_SCORING)


def plan_model(shape: ModelShape, settings: Settings, *, has_logits: bool) -> Model:
    """One that attends to visible pairs alone, whatever the device's attention computes besides."""
    return Model(
        shape,
        settings.precision,
        has_logits,
        shards=1,
        is_checkpointing=settings.is_checkpointing,
        attends_by_branch=False,
    )


def planned_bytes(model: Model, pack: Pack) -> float:
    """What stays, and a pass or, where that is more, the optimizer's step, which has AdamW's denominators of all
    parameters at one time."""
    stays = planned.weights(model) + planned.gradients(model) + planned.optimizer_states(model)
    passing = planned.gathered(model) + sum(planned.training_pass(model, pack, with_entropy=True).values())
    return stays + max(passing, FLOAT * model.shape.total)


def one_chunk(group: RolloutGroup) -> RolloutGroup:
    """The first rollouts of `group`, as few as fill a chunk of logits."""
    lengths = [len(rollout.token_ids) for rollout in group.rollouts]
    count = next((n for n in range(2, len(lengths)) if sum(lengths[:n]) >= packed_forward.LOGIT_CHUNK), None)
    if count is None:
        raise SystemExit(
            f"a group of {sum(lengths)} tokens fills no chunk of {packed_forward.LOGIT_CHUNK} logits without its last "
            "completion: raise --group-size or --branch-tokens"
        )
    return replace(group, rollouts=group.rollouts[:count])


def measure(task: Task, settings: Settings) -> Report:
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if settings.device == "cuda" else ""
    policy, discriminator = PolicyBench(task, settings), DiscriminatorBench(task, settings)
    if settings.device == "cuda":
        policy.check_room()
    rate = Meter(settings).product_rate()
    timings, logits = policy.trained()
    steps = [discriminator.trained]
    if settings.precision == "bfloat16":
        # In float32 nothing is rounded, and these would be the same again.
        steps += [policy.used, discriminator.used]
    for step in steps:
        release()
        timings.append(step())
    return Report(rate, nominal_rate(name), policy.shape.total, timings, logits)


def release() -> None:
    """Gives back the memory of models that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    parser.add_argument("--size", choices=SIZES, default=default.size)
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default.device)
    parser.add_argument("--checkpointing", action="store_true", dest="is_checkpointing")
    for name in ("layers", "runs", "group_size", "branch_tokens", "image_tokens"):
        value = getattr(default, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=value, metavar="N", help=f"{value or 'all'}"
        )
    settings = Settings(**vars(parser.parse_args(arguments)))
    if settings.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; on a CPU: --device cpu --size tiny")
    return settings


def main() -> None:
    settings = parse_settings()
    choose_threads()
    print(f"{describe_machine()}\n{settings.describe()}\npython {shlex.join(sys.argv)}", flush=True)
    with processes(also_alone=settings.precision == "bfloat16"):
        report = measure(make_task(settings), settings)
    print(report.table())
    if problems := report.problems():
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
