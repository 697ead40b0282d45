"""`prism plan` against real steps: planned over measured seconds a step and planned over measured memory.

    OMP_NUM_THREADS=1 python benchmarks/plan_check.py [--steps 5] [--model tiny --model wide --model sizes]

`tiny` runs SFT, warm-up, alignment and RLVR of `recipes/tiny/demo.toml` with the shipped base; `wide` runs SFT and RLVR
of a random model of hidden size 512 and 8 layers, whose rollouts are cut at 48 tokens, and updates of a discriminator
made of it, on pairs of demonstrations. The machine's speeds are measured before and after each, at the sizes of the
model's layers and of the branches' calls of attention, and given to the plan as hardware with nothing assumed; what
starting an operation takes, by passes of the shipped base over four tokens. The plan is told how long the stage's own
rollouts were. Seconds are of processor time, medians over the steps between the first and the last, which do more than
others. Memory is measured in a second run: the bytes of all tensors that exist at one time, told from the inputs and
outputs of every operation.

`sizes` compares memory alone, at the sizes of Qwen3-VL-4B and of the discriminator made of 2B: forward and backward
pass over one pack, by the same functions as in training, on tensors that have shapes and no numbers (FakeTensorMode).
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from machine import describe_machine
from speeds import blank_pack, measured_around, median_hardware
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText

from prism.config import (
    PlannedStage,
    Precision,
    Recipe,
    TypicalConfig,
    load_recipe,
    plan_stages,
)
from prism.models import Discriminator, PromptEncoder, save_policy, upcycle
from prism.models.patches import project_patches
from prism.models.tiny import build_tiny, tiny_config
from prism.packing import branch_logprobs, branch_scores
from prism.planning import memory
from prism.planning.estimate import StageEstimate
from prism.planning.lengths import Lengths, find_lengths
from prism.planning.packs import Pack
from prism.planning.plan import estimate, policy_shape
from prism.planning.shapes import published_config, read_shape, with_experts
from prism.planning.work import BYTES, Model
from prism.runtime.jsonl import read_jsonl
from prism.runtime.optimizer import make_optimizer
from prism.runtime.threads import choose_threads
from prism.stages import align, base, datasets, rlvr, sft, warmup
from prism.stages.discriminators import make_discriminator
from prism.stages.game import update_discriminator
from prism.stages.scoring import Contest, ContestBatch
from prism.stages.workspace import SHIPPED_BASE, Workspace

STAGES: dict[str, Callable[[Workspace, PlannedStage], None]] = {
    "sft": sft.run,
    "warmup": warmup.run,
    "align": align.run,
    "rlvr": rlvr.run,
}
SETTINGS = {
    "tiny": [
        *("evaluation=none", "rlvr.baselines=[]", "sft.num_steps=60", "sft.batch_size=8"),
        *("warmup.batch_size=8", "warmup.num_heldout=4", "warmup.evaluate_every=1000"),
        *("align.prompts_per_step=4", "rlvr.prompts_per_step=4"),
    ],
    "wide": [
        *("evaluation=none", "rlvr.baselines=[]", "sft.num_steps=8", "sft.batch_size=8", "warmup.batch_size=8"),
        *("rlvr.prompts_per_step=4", "rlvr.max_response_tokens=48", "rlvr.token_budget=480"),
    ],
}
TOKENS, SIZE_TOKENS, MIB = 600, 2048, 2**20
"""Packs of these recipes have up to 640 tokens, or 480 where a group of short rollouts fills that; `sizes` takes one of
2,048."""


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that operations read or write while they exist; `peak` is the most there ever was."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._live = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, output)):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return output

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts tensors that exist before the first operation."""
        for tensor in tensors:
            self._count(tensor.untyped_storage())

    @property
    def live(self) -> int:
        return self._live

    def restart(self) -> None:
        """Lets `peak` be of what comes from now on."""
        self.peak = self._live

    def _count(self, storage: Any) -> None:
        if storage in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[storage] = size
        weakref.finalize(storage, self._forget, size)
        self._live += size
        self.peak = max(self.peak, self._live)

    def _forget(self, size: int) -> None:
        self._live -= size


@dataclass(frozen=True)
class Comparison:
    """Of a stage's step; without seconds where only memory is compared."""

    name: str
    planned_bytes: float
    bytes: float
    planned_seconds: float | None = None
    seconds: float | None = None

    def row(self) -> str:
        cells = ["", "", ""]
        if self.planned_seconds is not None and self.seconds is not None:
            cells = [*(f"{value:.3f}" for value in (self.planned_seconds, self.seconds))]
            cells.append(f"{self.planned_seconds / self.seconds:.2f}")
        cells += [*(f"{value / MIB:,.1f}" for value in (self.planned_bytes, self.bytes))]
        return f"| {' | '.join([self.name, *cells, f'{self.planned_bytes / self.bytes:.2f}'])} |"


HEADING = """| | s a step, planned | measured | ratio | MiB, planned | measured | ratio |
| --- | --- | --- | --- | --- | --- | --- |"""


@contextmanager
def processor_clock() -> Iterator[None]:
    """Stages time their steps by this process's processor time: what else runs on the machine does not count."""
    with patch.object(time, "perf_counter", time.process_time):
        yield


class Check:
    """The stages of `recipe` in `directory`, each run for its time, and again, for two steps, for its memory."""

    def __init__(self, recipe: Recipe, directory: Path, tokens: int) -> None:
        self._recipe, self._tokens = recipe.model_copy(update={"output": directory}), tokens
        self._timed = Workspace(self._recipe, 0, directory / "timed")
        self._weighed = directory / "weighed"
        self._shape = policy_shape(recipe)
        self._lengths = find_lengths(recipe)
        self._call = typical_call(self._lengths)
        datasets.prepare(self._timed)

    def run(self) -> Iterator[Comparison]:
        for planned in plan_stages(self._recipe):
            if planned.kind == "base":
                base.run(self._timed, planned)
            else:
                yield self._compare(planned)

    def _compare(self, planned: PlannedStage) -> Comparison:
        with measured_around(self._shape, self._tokens, self._call) as speeds, processor_clock():
            STAGES[planned.kind](self._timed, planned)
        hardware = median_hardware(speeds)
        stages = estimate(self._recipe, hardware, self._rollouts_of(planned)).stages
        [stage] = [stage for stage in stages if stage.name == planned.name]
        measured = step_seconds(self._timed.stage_directory(planned.name))
        return Comparison(planned.name, stage.peak.bytes, self._weigh(planned), planned_step(stage), measured)

    def _rollouts_of(self, planned: PlannedStage) -> Lengths:
        """With rollouts as long as the stage's were in the mean, and the longest of a step, which is one batch here."""
        rows = read_jsonl(self._timed.stage_directory(planned.name) / "metrics.jsonl")
        if "rollout/longest" not in rows[0]:
            return self._lengths
        mean, longest = (
            round(statistics.fmean(row[f"rollout/{name}"] for row in rows)) for name in ("length", "longest")
        )
        typical = (self._recipe.plan or TypicalConfig()).model_copy(
            update={"rollout_tokens": mean, "longest_rollout": longest}
        )
        return find_lengths(self._recipe.model_copy(update={"plan": typical}))

    def _weigh(self, planned: PlannedStage) -> int:
        """The stage again, for two steps, from the same inputs."""
        kind = planned.kind
        config = getattr(self._recipe, kind).model_copy(update={"num_steps": 2})
        workspace = Workspace(self._recipe.model_copy(update={kind: config}), 0, self._weighed / planned.name)
        for stage in ("data", *planned.inputs):
            link = workspace.directory / stage
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self._timed.stage_directory(stage).resolve())
        with LiveBytes() as live:
            STAGES[kind](workspace, dataclasses.replace(planned, num_steps=2))
        return live.peak


def typical_call(lengths: Lengths) -> tuple[int, int]:
    """Tokens of a part of the teacher's response, and those with its prompt: queries and keys of most calls."""
    rows = lengths.rows["alignment"]
    branch = statistics.fmean(length for row in rows for length in (row.caption, row.reasoning))
    return round(branch), round(branch + statistics.fmean(map(lengths.prompt, rows)))


def step_seconds(directory: Path) -> float:
    return statistics.median(row["time/step_seconds"] for row in read_jsonl(directory / "timings.jsonl")[1:-1])


def planned_step(stage: StageEstimate) -> float:
    """Without what is done in some steps only, which a median does not see, and what is done once."""
    spent = [phase.seconds * phase.times for phase in stage.phases if phase.times >= stage.num_steps]
    return sum(spent) / stage.num_steps


def wide_base(directory: Path) -> Path:
    """A random Qwen3-VL of hidden size 512 and 8 layers with the shipped base's tokenizer."""
    encoder = PromptEncoder.from_pretrained(SHIPPED_BASE)
    policy = build_tiny(tiny_config(encoder.tokenizer, hidden_size=512, num_layers=8), seed=0)
    save_policy(policy, encoder, directory)
    return directory


def check_discriminator(recipe: Recipe, directory: Path, tokens: int, steps: int) -> Comparison:
    """Scoring and update of the recipe's discriminator on pairs of demonstrations: a random policy draws no answer."""
    workspace = Workspace(recipe, 0, directory)
    datasets.prepare(workspace)
    config = recipe.warmup
    assert config is not None
    encoder = workspace.load_encoder("base")
    found = datasets.read_alignment(workspace, config.max_response_tokens)
    contests = [Contest(one.prompt, one.response, (one.response,)) for one in found]
    discriminator = workspace.to_train(make_discriminator(workspace), "discriminator")
    optimizer = make_optimizer(discriminator, learning_rate=config.learning_rate, weight_decay=config.weight_decay)

    def step(place: int) -> None:
        chosen = contests[place * config.batch_size : (place + 1) * config.batch_size]
        batch = ContestBatch(encoder, chosen, config.token_budget, discriminator.mode)
        update_discriminator(discriminator, optimizer, batch, step=place, max_grad_norm=1.0, balance_coefficient=0.01)

    spent = []
    with measured_around(policy_shape(recipe), tokens, typical_call(find_lengths(recipe))) as speeds:
        for place in range(steps):
            started = time.process_time()
            step(place)
            spent.append(time.process_time() - started)
    with LiveBytes() as live:
        step(0)
        step(1)
    hardware = median_hardware(speeds)
    [stage] = [stage for stage in estimate(recipe, hardware).stages if stage.name == "warmup"]
    phases = [phase for phase in stage.phases if phase.name in ("scoring", "update")]
    planned_seconds, planned_bytes = sum(one.seconds for one in phases), max(one.bytes for one in phases)
    return Comparison("discriminator", planned_bytes, live.peak, planned_seconds, statistics.median(spent[1:]))


def check_sizes() -> Iterator[Comparison]:
    """Policies and discriminators at their real sizes: the peak of a forward and backward pass, states left out."""
    yield check_size("policy, float32", "4b", "float32", has_logits=True)
    for is_checkpointing in (False, True):
        words = "bfloat16, checkpointing" if is_checkpointing else "bfloat16"
        yield check_size(f"policy, {words}", "4b", "bfloat16", has_logits=True, is_checkpointing=is_checkpointing)
        yield check_size(
            f"discriminator, {words}", "2b", "bfloat16", has_logits=False, is_checkpointing=is_checkpointing
        )


def check_size(
    name: str, size: str, precision: Precision, *, has_logits: bool, is_checkpointing: bool = False
) -> Comparison:
    """The second of two packs, so that gradients are there; all weights and gradients are in `precision` here."""
    config = published_config(size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        whole: Any = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, precision), attn_implementation="sdpa"
        ).train()
        whole.tie_weights()
        project_patches(whole)
        model: Any = whole if has_logits else Discriminator(upcycle(whole, noise_std=0).model).train()
        if is_checkpointing:
            (model if has_logits else model.model).gradient_checkpointing_enable({"use_reentrant": False})
        packed = blank_pack(SIZE_TOKENS)

        def run() -> None:
            if has_logits:
                branch_logprobs(model, packed, with_entropy=True).logprobs.sum().backward()
            else:
                branch_scores(model, packed, views=torch.zeros(1, dtype=torch.long))[0].sum().backward()

        run()
        live = LiveBytes()
        live.add(tensor for weight in model.parameters() for tensor in (weight, weight.grad) if tensor is not None)
        with live:
            run()
    shape = read_shape(config)
    shape = shape if has_logits else with_experts(shape, num_experts=4, top_k=2)
    planned = memory.training_pass(
        Model(shape, precision, has_logits, is_checkpointing=is_checkpointing),
        Pack(SIZE_TOKENS, SIZE_TOKENS, 0),
        with_entropy=True,
    )
    weights_and_gradients = 2 * BYTES[precision] * shape.total
    return Comparison(name, weights_and_gradients + sum(planned.values()), live.peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--model", choices=[*SETTINGS, "sizes"], action="append")
    arguments = parser.parse_args()
    choose_threads()
    print(describe_machine())
    for model in arguments.model or (*SETTINGS, "sizes"):
        rows = list(check_sizes()) if model == "sizes" else check_recipe(model, arguments.steps)
        print(f"\n{model}\n\n{HEADING}", *(row.row() for row in rows), "", sep="\n", flush=True)


def check_recipe(model: str, steps: int) -> list[Comparison]:
    with tempfile.TemporaryDirectory() as name:
        directory, settings = Path(name), [*SETTINGS[model]]
        if model == "wide":
            settings += ["base.type=checkpoint", f"base.path={wide_base(directory / 'base')}"]
        settings += [f"{stage}.num_steps={steps}" for stage in ("warmup", "align", "rlvr")]
        recipe = load_recipe("recipes/tiny/demo.toml", settings)
        rows = []
        if model == "wide":
            rows.append(check_discriminator(recipe, directory / "discriminator", TOKENS, steps))
            recipe = recipe.model_copy(update={"warmup": None, "align": None})
        return rows + list(Check(recipe, directory, TOKENS).run())


if __name__ == "__main__":
    main()
