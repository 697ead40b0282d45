"""Scoring and updating the discriminator: prompt trees against separate padded sequences.

    python benchmarks/discriminator_update.py [--prompts 1] [--group-size 16] [--image-tokens 256] [--pairs 5]

One step of the game on random data: rollouts are scored, and the discriminator takes its gradient on teacher and
rollouts. Ours has both from one pass where a group fits into a pack. The rival scores first, and does it as the
published code does: every (prompt, part) is a sequence of its own, prompt and image are repeated for each rollout, the
teacher's for each rollout again, batches of `--rival-batch` sequences are padded to the longest (the published code has
batches of one; on one core of a CPU it makes little difference). Both use the same weights, in one process, in turn,
and must agree in every score and gradient before anything counts.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from side_by_side import (
    Writer,
    assert_same_gradients,
    make_discriminator,
    make_encoder,
    memory_growth,
    parse_arguments,
    run_pairs,
)
from torch import Tensor

from prism.models import Discriminator, PromptEncoder, response_branch, views_of
from prism.packing import EncodedPrompt
from prism.rewards import parse_response
from prism.stages.game import train_discriminator
from prism.stages.scoring import Contest, ContestBatch


class Trees:
    def __init__(self, encoder: PromptEncoder, discriminator: Discriminator, token_budget: int) -> None:
        self.discriminator, self._encoder, self._token_budget = discriminator, encoder, token_budget

    def step(self, contests: Sequence[Contest]) -> Tensor:
        """Adds the gradient; returns the rollouts' scores, a row for each of perception and reasoning."""
        batch = ContestBatch(self._encoder, contests, self._token_budget, "moe")
        scores, _ = train_discriminator(self.discriminator, batch, regularization=0, balance_coefficient=0)
        views = batch.pair_scores(scores).views
        return torch.stack([views["perception"].student, views["reasoning"].student])


class Padded:
    """Sequences (prompt + one part) in padded batches."""

    def __init__(self, encoder: PromptEncoder, discriminator: Discriminator, batch_size: int) -> None:
        self.discriminator, self._encoder, self._batch_size = discriminator, encoder, batch_size

    def step(self, contests: Sequence[Contest]) -> Tensor:
        """As `Trees.step`."""
        students = list(self._sequences(contests, "students"))
        with torch.no_grad():
            scores = torch.cat([self._score(batch) for batch in self._batches(students, self._batch_size)])
        pairs = list(zip(self._sequences(contests, "teachers"), students, strict=True))
        for chunk in self._batches(pairs, max(1, self._batch_size // 2)):
            teacher, student = self._score([*(pair[0] for pair in chunk), *(pair[1] for pair in chunk)]).chunk(2)
            # Mean over the pairs of each view, sum over the two views.
            (-torch.nn.functional.logsigmoid(teacher - student).sum() / (len(pairs) / 2)).backward()
        return scores.view(-1, 2).T

    def _sequences(self, contests: Sequence[Contest], side: str) -> Iterator[tuple[EncodedPrompt, Tensor]]:
        for contest in contests:
            for student in contest.students:
                response = student if side == "students" else contest.teacher
                for view in views_of("moe"):
                    yield self._encoder.encode(contest.prompt), response_branch(self._encoder, response, view).token_ids

    def _batches(self, items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def _score(self, batch: Sequence[tuple[EncodedPrompt, Tensor]]) -> Tensor:
        lengths = [len(prompt) + len(part) for prompt, part in batch]
        input_ids = torch.zeros(len(batch), max(lengths), dtype=torch.long)
        mask = torch.zeros_like(input_ids)
        for row, (prompt, part) in enumerate(batch):
            input_ids[row, : lengths[row]] = torch.cat([prompt.token_ids, part])
            mask[row, : lengths[row]] = 1
        output = self.discriminator.model(
            input_ids=input_ids,
            attention_mask=mask,
            mm_token_type_ids=(input_ids == self._encoder.image_token_id).int() * mask,
            pixel_values=torch.cat([prompt.pixel_values for prompt, _ in batch if prompt.pixel_values is not None]),
            image_grid_thw=torch.cat(
                [prompt.image_grid_thw for prompt, _ in batch if prompt.image_grid_thw is not None]
            ),
            use_cache=False,
        )
        return self.discriminator.score(output.last_hidden_state[torch.arange(len(batch)), torch.tensor(lengths) - 1])


def make_contests(writer: Writer, arguments: argparse.Namespace) -> list[Contest]:
    def response() -> Any:
        return parse_response(writer.response(writer.length()))

    return [
        Contest(
            writer.prompt(f"p{number}", arguments.image_tokens),
            response(),
            tuple(response() for _ in range(arguments.group_size)),
        )
        for number in range(arguments.prompts)
    ]


def build(arguments: argparse.Namespace) -> tuple[list[Contest], Trees, Padded]:
    encoder = make_encoder()
    discriminator = make_discriminator(encoder)
    trees = Trees(encoder, discriminator, arguments.token_budget)
    padded = Padded(encoder, deepcopy(discriminator), arguments.rival_batch)
    return make_contests(Writer(encoder), arguments), trees, padded


def step_of(way: Trees | Padded, contests: Sequence[Contest]) -> Callable[[], object]:
    def step() -> None:
        way.discriminator.zero_grad()
        way.step(contests)

    return step


def our_step(arguments: argparse.Namespace) -> Callable[[], object]:
    contests, trees, _ = build(arguments)
    return step_of(trees, contests)


def their_step(arguments: argparse.Namespace) -> Callable[[], object]:
    contests, _, padded = build(arguments)
    return step_of(padded, contests)


def main() -> None:
    sizes = {"prompts": 1, "group_size": 16, "image_tokens": 256, "token_budget": 8192, "rival_batch": 8, "pairs": 5}
    arguments = parse_arguments(__doc__, **sizes)
    contests, trees, padded = build(arguments)
    torch.testing.assert_close(trees.step(contests), padded.step(contests), atol=1e-4, rtol=0)
    assert_same_gradients(trees.discriminator, padded.discriminator)
    print("same scores and gradients", flush=True)
    pairs = run_pairs(step_of(trees, contests), step_of(padded, contests), arguments.pairs)
    print(pairs.describe("discriminator score and update"))
    own, theirs = memory_growth(our_step, arguments), memory_growth(their_step, arguments)
    print(f"peak memory: ours {own:.0f} MiB, rival {theirs:.0f} MiB")


if __name__ == "__main__":
    main()
