"""Scoring and updating the discriminator: prompt trees against separate padded sequences.

    python benchmarks/discriminator_update.py [--prompts 2] [--group-size 16] [--image-tokens 256] [--runs 5]

One step of the game on random data: rollouts are scored, then the discriminator takes its gradient on teacher and
rollouts. The rival does it as the published code does: every (prompt, part) is a sequence of its own, prompt and
image are repeated for each rollout, the teacher's for each rollout again, batches of `--rival-batch` sequences are
padded to the longest. Both use the same weights, in one process, in turn, and must agree in every score and in the
gradient's norm. Prints median seconds, the median of the paired ratios and the peak of memory each way adds.
"""

import argparse
import gc
import random
import resource
import statistics
import time
from collections.abc import Iterator
from io import BytesIO
from multiprocessing import get_context
from typing import Any

import torch
from machine import describe_machine
from PIL import Image

from prism.data.world.lessons import tokenizer_texts
from prism.models import Discriminator, PromptEncoder, response_branch, upcycle, views_of
from prism.models.tiny import build_tiny, tiny_config, tiny_encoder, train_tokenizer
from prism.objectives import discriminator_loss
from prism.packing import EncodedPrompt
from prism.records import ImageSource, Prompt
from prism.rewards import parse_response
from prism.stages.scoring import Contest, ContestBatch, backpropagate, score

CAPTION_WORDS, REASONING_WORDS = (60, 160), (80, 240)


def make_contests(num_prompts: int, group_size: int, image_tokens: int) -> list[Contest]:
    source = random.Random(0)
    side = round(image_tokens**0.5)
    if side * side != image_tokens:
        raise SystemExit(f"--image-tokens {image_tokens} is not a square")
    words = [word for text in list(tokenizer_texts())[:50] for word in text.split() if word.isalpha()]

    def text(bounds: tuple[int, int]) -> str:
        return " ".join(source.choices(words, k=source.randint(*bounds)))

    def response() -> Any:
        think = f"1. {text(REASONING_WORDS)}."
        return parse_response(f"<caption>{text(CAPTION_WORDS)}</caption><think>{think}</think><answer>5</answer>")

    contests = []
    for number in range(num_prompts):
        image = Image.frombytes("RGB", (32 * side, 32 * side), source.randbytes(3 * (32 * side) ** 2))
        data = BytesIO()
        image.save(data, "PNG")
        prompt = Prompt(str(number), "How many are there?", (ImageSource(data=data.getvalue()),))
        contests.append(Contest(prompt, response(), tuple(response() for _ in range(group_size))))
    return contests


def make_discriminator(encoder: PromptEncoder, hidden_size: int, num_layers: int) -> Discriminator:
    config = tiny_config(encoder.tokenizer, hidden_size=hidden_size, num_layers=num_layers)
    body = upcycle(build_tiny(config, seed=0), num_experts=4, top_k=2).model
    discriminator = Discriminator(body, mode="moe").train()
    torch.nn.init.normal_(discriminator.head.weight, std=0.1)
    return discriminator


class Trees:
    def __init__(self, encoder: PromptEncoder, contests: list[Contest], token_budget: int) -> None:
        self._arguments = encoder, contests, token_budget, "moe"

    def step(self, discriminator: Discriminator) -> torch.Tensor:
        """Adds the gradient; returns the rollouts' scores, perception first."""
        batch = ContestBatch(*self._arguments)
        scores = score(discriminator, batch)
        backpropagate(discriminator, batch, scores, pair_loss)
        views = batch.pair_scores(scores).views
        return torch.stack([views["perception"].student, views["reasoning"].student])


def pair_loss(pairs: Any) -> torch.Tensor:
    views = {view: (scores.teacher, scores.student) for view, scores in pairs.views.items()}
    return discriminator_loss(views, pairs.is_valid).loss


class Padded:
    """Sequences (prompt + one part) in padded batches."""

    def __init__(self, encoder: PromptEncoder, contests: list[Contest], batch_size: int) -> None:
        self._encoder, self._contests, self._batch_size = encoder, contests, batch_size

    def step(self, discriminator: Discriminator) -> torch.Tensor:
        students = list(self._sequences("students"))
        with torch.no_grad():
            scores = torch.cat([self._score(discriminator, batch) for batch in self._batches(students)])
        teachers = list(self._sequences("teachers"))
        pairs = list(zip(teachers, students, strict=True))
        for start in range(0, len(pairs), self._batch_size // 2):
            chunk = pairs[start : start + self._batch_size // 2]
            both = self._score(discriminator, [teacher for teacher, _ in chunk] + [student for _, student in chunk])
            teacher, student = both.chunk(2)
            # Mean over the pairs of each view, sum over the two views.
            (-torch.nn.functional.logsigmoid(teacher - student).sum() / (len(pairs) / 2)).backward()
        return scores.view(-1, 2).T

    def _sequences(self, side: str) -> Iterator[tuple[EncodedPrompt, torch.Tensor]]:
        for contest in self._contests:
            for student in contest.students:
                response = student if side == "students" else contest.teacher
                for view in views_of("moe"):
                    yield self._encoder.encode(contest.prompt), response_branch(self._encoder, response, view).token_ids

    def _batches(self, sequences: list[Any]) -> Iterator[list[Any]]:
        for start in range(0, len(sequences), self._batch_size):
            yield sequences[start : start + self._batch_size]

    def _score(self, discriminator: Discriminator, batch: list[tuple[EncodedPrompt, torch.Tensor]]) -> torch.Tensor:
        lengths = [len(prompt) + len(part) for prompt, part in batch]
        input_ids = torch.zeros(len(batch), max(lengths), dtype=torch.long)
        mask = torch.zeros_like(input_ids)
        for row, (prompt, part) in enumerate(batch):
            input_ids[row, : lengths[row]] = torch.cat([prompt.token_ids, part])
            mask[row, : lengths[row]] = 1
        output = discriminator.model(
            input_ids=input_ids,
            attention_mask=mask,
            mm_token_type_ids=(input_ids == self._encoder.image_token_id).int() * mask,
            pixel_values=torch.cat([prompt.pixel_values for prompt, _ in batch if prompt.pixel_values is not None]),
            image_grid_thw=torch.cat(
                [prompt.image_grid_thw for prompt, _ in batch if prompt.image_grid_thw is not None]
            ),
            use_cache=False,
        )
        return discriminator.score(output.last_hidden_state[torch.arange(len(batch)), torch.tensor(lengths) - 1])


def measure(way: Trees | Padded, discriminator: Discriminator) -> tuple[float, torch.Tensor, float]:
    discriminator.zero_grad()
    gc.collect()
    started = time.perf_counter()
    scores = way.step(discriminator)
    seconds = time.perf_counter() - started
    norm = torch.nn.utils.get_total_norm([p.grad for p in discriminator.parameters() if p.grad is not None])
    return seconds, scores, float(norm)


def build(arguments: argparse.Namespace) -> tuple[Discriminator, Trees, Padded]:
    torch.set_num_threads(arguments.threads)
    encoder = tiny_encoder(train_tokenizer(tokenizer_texts()))
    contests = make_contests(arguments.prompts, arguments.group_size, arguments.image_tokens)
    discriminator = make_discriminator(encoder, arguments.hidden_size, arguments.layers)
    trees, padded = Trees(encoder, contests, arguments.token_budget), Padded(encoder, contests, arguments.rival_batch)
    return discriminator, trees, padded


def peak_memory(name: str, arguments: argparse.Namespace, connection: Any) -> None:
    """Sends what the process's peak grows by, in MiB, in a step of its own process."""
    discriminator, trees, padded = build(arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (trees if name == "trees" else padded).step(discriminator)
    connection.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def measure_memory(name: str, arguments: argparse.Namespace) -> float:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=peak_memory, args=(name, arguments, sender))
    process.start()
    grown = receiver.recv()
    process.join()
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--image-tokens", type=int, default=256)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--rival-batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print(describe_machine())
    discriminator, trees, padded = build(arguments)
    ours, theirs = [], []
    for _ in range(arguments.runs + 1):
        seconds, scores, norm = measure(trees, discriminator)
        rival_seconds, rival_scores, rival_norm = measure(padded, discriminator)
        torch.testing.assert_close(scores, rival_scores, atol=1e-4, rtol=0)
        assert abs(norm / rival_norm - 1) < 1e-3, (norm, rival_norm)
        ours.append(seconds)
        theirs.append(rival_seconds)
    # The first pair warms up.
    ratio = statistics.median(b / a for a, b in zip(ours[1:], theirs[1:], strict=True))
    print(f"prompt trees      {statistics.median(ours[1:]):7.2f} s  {measure_memory('trees', arguments):7.0f} MiB")
    print(f"padded sequences  {statistics.median(theirs[1:]):7.2f} s  {measure_memory('padded', arguments):7.0f} MiB")
    print(f"ratio {ratio:.2f}, median of {arguments.runs} pairs")


if __name__ == "__main__":
    main()
