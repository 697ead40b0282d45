"""What an update costs as group size, image size and branch length grow.

    python benchmarks/linear_cost.py [--image-tokens 256] [--branch-tokens 275] [--runs 3] [--true-widths 0]
        [--discriminator-layers 3]

Updates of policy and discriminator for one prompt, all in one pack. A point is the median of `--runs` updates. Prints
for each point its unique tokens (the prompt's and every branch's, once) and the time per unique token; for each sweep
how far the largest of these is above the smallest, and the least-squares fit of a constant and a time per unique token
with the share of the variance that it explains. Sweeps differ in that time: an image also costs its encoding and is
looked at by every branch, and a branch's tokens look at each other.

With `--true-widths 1` the models have the widths of Qwen3-VL-4B and 2B and few layers, and only the group size grows:
in the small models attention and an image's encoding weigh several times more than in those. The discriminator then has
`--discriminator-layers` layers and in its vision tower two thirds as many, at least one.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from discriminator_update import Trees
from side_by_side import (
    DISCRIMINATOR,
    DISCRIMINATOR_SLICE,
    GRPO,
    POLICY,
    POLICY_SLICE,
    Size,
    Writer,
    make_discriminator,
    make_encoder,
    make_policy,
    parse_arguments,
    timed,
)

from prism.rewards import parse_response
from prism.stages.imitation import num_tokens
from prism.stages.policy_update import accumulate_policy_gradient, pack_groups
from prism.stages.scoring import Contest, ContestBatch

TOKEN_BUDGET = 2**15


@dataclass(frozen=True, slots=True)
class Point:
    group_size: int
    image_tokens: int
    branch_tokens: int


Measure = Callable[[Point], tuple[int, Callable[[], object]]]
"""The unique tokens of a point, and the update to time."""


def policy_update(size: Size) -> Measure:
    encoder = make_encoder()
    policy = make_policy(encoder, size)

    def measure(point: Point) -> tuple[int, Callable[[], object]]:
        writer = Writer(encoder)
        lengths = (point.branch_tokens, point.branch_tokens)
        group = writer.group(writer.prompt(str(point), point.image_tokens), point.group_size, lengths)
        packs = pack_groups(encoder, [group], TOKEN_BUDGET)
        advantages = torch.linspace(-1, 1, point.group_size)

        def update() -> None:
            policy.zero_grad()
            accumulate_policy_gradient(policy, packs, advantages, GRPO)

        return num_tokens(packs), update

    return measure


def discriminator_update(size: Size) -> Measure:
    encoder = make_encoder()
    trees = Trees(encoder, make_discriminator(encoder, size), TOKEN_BUDGET)

    def measure(point: Point) -> tuple[int, Callable[[], object]]:
        writer = Writer(encoder)
        teacher, *students = (parse_response(writer.response(point.branch_tokens)) for _ in range(point.group_size + 1))
        contest = Contest(writer.prompt(str(point), point.image_tokens), teacher, tuple(students))

        def update() -> None:
            trees.discriminator.zero_grad()
            trees.step([contest])

        return num_tokens(ContestBatch(encoder, [contest], TOKEN_BUDGET, "moe").packs), update

    return measure


def sweep(name: str, measure: Measure, points: Iterable[Point], num_runs: int) -> None:
    found = []
    for point in points:
        tokens, update = measure(point)
        seconds = statistics.median(timed(update) for _ in range(num_runs))
        found.append((tokens, seconds))
        print(f"{name}: {point}, {tokens} unique tokens, {1000 * seconds / tokens:.3f} ms per token", flush=True)
    tokens, seconds = np.array(found).T
    rates = seconds / tokens
    slope, constant = np.polyfit(tokens, seconds, 1)
    explained = 1 - (seconds - constant - slope * tokens).var() / seconds.var()
    print(
        f"{name}: the dearest token costs {rates.max() / rates.min():.2f} times the cheapest; "
        f"{constant:.2f} s + {1000 * slope:.3f} ms per unique token, R² = {explained:.4f}",
        flush=True,
    )


def with_layers(count: int) -> Size:
    """The discriminator's slice with `count` layers, and in its vision tower two thirds as many."""
    vision = replace(DISCRIMINATOR_SLICE.vision, layers=max(1, 2 * count // 3))
    return replace(DISCRIMINATOR_SLICE, layers=count, vision=vision)


def compare(arguments: argparse.Namespace) -> None:
    base = Point(16, arguments.image_tokens, arguments.branch_tokens)
    sweeps = {"group size": [replace(base, group_size=size) for size in (2, 4, 8, 16, 32)]}
    if not arguments.true_widths:
        sweeps |= {
            "image size": [replace(base, image_tokens=size) for size in (64, 256, 576, 1024)],
            "branch length": [replace(base, branch_tokens=length) for length in (75, 150, 300, 600)],
        }
    sizes = (POLICY, DISCRIMINATOR)
    if arguments.true_widths:
        sizes = (POLICY_SLICE, with_layers(arguments.discriminator_layers))
    for player, update, size in zip(
        ("policy", "discriminator"), (policy_update, discriminator_update), sizes, strict=True
    ):
        measure = update(size)
        timed(measure(replace(base, group_size=2))[1])  # warms up
        for name, points in sweeps.items():
            sweep(f"{player}, {name}", measure, points, arguments.runs)


def main() -> None:
    compare(
        parse_arguments(__doc__, image_tokens=256, branch_tokens=275, runs=3, true_widths=0, discriminator_layers=3)
    )


if __name__ == "__main__":
    main()
