"""An SFT step on ragged lengths: prompt trees against TRL's SFTTrainer.

    python benchmarks/sft_step.py [--answers-percent 0] [--batch-size 16] [--micro-batch 8] [--token-budget 8192]
        [--pairs 5]

Images of 64 to 784 tokens and completions of 40 to 1000 (log-normal, median 180, as reasoning traces are) in batches of
`--batch-size`. With `--answers-percent 50` half of the completions are brief answers instead (log-normal, median 20
tokens), as in the mixture of public data and demonstrations that the method fine-tunes on, traces have a median of 350
tokens, and images are log-normal with a median of 400 tokens, up to 2048, as photographs and figures are.

TRL pads each `--micro-batch` of them to the longest, and has nothing else for data with images. Both train the same
model on the same examples in the same order, in one process, in turn. A step is all of it: decoding images and
tokenising, forward, backward, clipping, optimizer. Before anything counts, loss and gradients of TRL's first step must
equal ours, averaged over micro-batches as there. With `--micro-batch 1` TRL pads nothing. See `trl_rival.py` for how to
install TRL.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from copy import deepcopy

from side_by_side import (
    Pairs,
    Writer,
    assert_same_gradients,
    clock,
    make_encoder,
    make_policy,
    memory_growth,
    parse_arguments,
)
from transformers import Qwen3VLForConditionalGeneration
from trl_rival import BeforeFirstStep, InTurn, TimedSftTrainer, make_sft_trainer

from prism.models import PromptEncoder
from prism.records import Example
from prism.runtime.optimizer import clip_gradients, descend, make_optimizer
from prism.stages.imitation import imitate, pack_examples

SIDES, TRACE = (8, 28), (40, 1000)


class Ours:
    def __init__(self, policy: Qwen3VLForConditionalGeneration, encoder: PromptEncoder, token_budget: int) -> None:
        self.policy, self.encoder, self._token_budget = policy, encoder, token_budget
        self._optimizer = make_optimizer(policy, learning_rate=1e-6, weight_decay=0.01)

    def gradient(self, examples: Sequence[Example]) -> float:
        return imitate(self.policy, pack_examples(self.encoder, examples, self._token_budget))

    def step(self, examples: Sequence[Example]) -> None:
        self.gradient(examples)
        descend(self.policy, self._optimizer, 1.0, name="policy", step=1)


class SameResults:
    """Compares TRL's first step, before the optimizer's, with ours."""

    def __init__(self, trainer: TimedSftTrainer, ours: Ours, examples: Sequence[Example]) -> None:
        self._trainer, self._ours, self._examples = trainer, ours, examples

    def __call__(self) -> None:
        loss = self._mean_of_means()
        clip_gradients(self._ours.policy, 1.0)
        assert_same_gradients(self._ours.policy, self._trainer.model)
        assert abs(loss - self._trainer.step_loss) < 1e-4, (loss, self._trainer.step_loss)
        self._ours.policy.zero_grad()
        print(f"same loss ({loss:.5f}) and gradients", flush=True)

    def _mean_of_means(self) -> float:
        """For Qwen3-VL the trainer averages the means of its micro-batches, however many tokens each has."""
        size = self._trainer.args.per_device_train_batch_size
        chunks = [self._examples[start : start + size] for start in range(0, len(self._examples), size)]
        losses = [self._ours.gradient(chunk) for chunk in chunks]
        for parameter in self._ours.policy.parameters():
            assert parameter.grad is not None
            parameter.grad /= len(chunks)
        return sum(losses) / len(losses)


def make_examples(encoder: PromptEncoder, count: int, answers_percent: int) -> list[Example]:
    source, writer = random.Random(1), Writer(encoder)

    def lengths() -> tuple[int, int]:
        """Of an image and a completion."""
        if not answers_percent:
            trace = min(max(round(source.lognormvariate(5.2, 0.7)), TRACE[0]), TRACE[1])
            return source.randint(*SIDES) * source.randint(*SIDES), trace
        rows = round(min(max(source.lognormvariate(6.0, 0.8), 64), 2048) ** 0.5)
        if 100 * source.random() < answers_percent:
            return rows * rows, max(2, round(source.lognormvariate(3.0, 0.6)))
        return rows * rows, min(max(round(source.lognormvariate(5.85, 0.5)), TRACE[0]), 1500)

    examples = []
    for number in range(count):
        image, completion = lengths()
        prompt = writer.prompt(f"p{number}", image)
        text = writer.response(completion) if completion >= TRACE[0] else writer.words(completion - 1)
        examples.append(Example(prompt, text))
    return examples


def build(arguments: argparse.Namespace) -> tuple[Ours, list[Example]]:
    encoder = make_encoder()
    examples = make_examples(encoder, (arguments.pairs + 1) * arguments.batch_size, arguments.answers_percent)
    return Ours(make_policy(encoder), encoder, arguments.token_budget), examples


def build_trainer(
    arguments: argparse.Namespace,
    ours: Ours,
    policy: Qwen3VLForConditionalGeneration,
    examples: Sequence[Example],
    num_steps: int,
) -> TimedSftTrainer:
    return make_sft_trainer(
        policy,
        ours.encoder,
        examples,
        micro_batch=arguments.micro_batch,
        batch_size=arguments.batch_size,
        num_steps=num_steps,
    )


def describe_lengths(ours: Ours, examples: Sequence[Example], micro_batch: int) -> str:
    encoder = ours.encoder
    lengths = [encoder.prompt_length(e.prompt) + len(encoder.completion_ids(e.completion)) for e in examples]
    chunks = [lengths[start : start + micro_batch] for start in range(0, len(lengths), micro_batch)]
    padded = sum(max(chunk) * len(chunk) for chunk in chunks)
    return (
        f"{len(lengths)} sequences of {min(lengths)} to {max(lengths)} tokens, padded {padded / sum(lengths):.2f} times"
    )


def compare(arguments: argparse.Namespace) -> Pairs:
    ours, examples = build(arguments)
    print(describe_lengths(ours, examples, arguments.micro_batch), flush=True)
    trainer = build_trainer(arguments, ours, deepcopy(ours.policy), examples, arguments.pairs + 1)
    size = arguments.batch_size
    seconds: list[tuple[float, float]] = []

    def our_turn(full: float, _: float) -> None:
        batch = examples[len(seconds) * size : (len(seconds) + 1) * size]
        started = clock()
        ours.step(batch)
        seconds.append((clock() - started, full))

    trainer.add_callback(BeforeFirstStep(SameResults(trainer, ours, examples[:size])))
    trainer.add_callback(InTurn(our_turn))
    trainer.train()
    return Pairs(*zip(*seconds[1:], strict=True))


def our_step(arguments: argparse.Namespace) -> Callable[[], object]:
    ours, examples = build(arguments)
    return lambda: ours.step(examples[: arguments.batch_size])


def their_step(arguments: argparse.Namespace) -> Callable[[], object]:
    ours, examples = build(arguments)
    return build_trainer(arguments, ours, ours.policy, examples, 1).train


def main() -> None:
    arguments = parse_arguments(__doc__, answers_percent=0, batch_size=16, micro_batch=8, token_budget=8192, pairs=5)
    print(compare(arguments).describe("SFT step"), flush=True)
    own, theirs = memory_growth(our_step, arguments), memory_growth(their_step, arguments)
    print(f"peak memory: ours {own:.0f} MiB, rival {theirs:.0f} MiB")


if __name__ == "__main__":
    main()
