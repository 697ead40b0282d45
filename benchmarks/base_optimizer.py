"""How fast the tiny base learns to reason over a given description: AdamW against Muon.

    python benchmarks/base_optimizer.py [--num-steps 400]

Both see the same lessons in the same order, from the same random weights. Prints the mean loss (nats per
token) of every fifty steps, side by side, and the seconds both took.
"""

import argparse
import random
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch.optim import Optimizer

from prism.data.world.lessons import LAYOUTS, read_lesson, tokenizer_texts
from prism.data.world.scene import draw_scene
from prism.models.tiny import build_tiny, tiny_config, tiny_encoder, train_tokenizer
from prism.runtime.optimizer import descend, make_muon, make_optimizer, make_schedule
from prism.stages.imitation import imitate, pack_examples

BATCH_SIZE, TOKEN_BUDGET, WINDOW = 32, 512, 50


def make_optimizers(policy: Any, kind: str) -> Sequence[Optimizer]:
    if kind == "adamw":
        return [make_optimizer(policy, learning_rate=2e-3, weight_decay=0.01)]
    return make_muon(policy, learning_rate=0.02, weight_decay=0.01, rest_learning_rate=2e-3)


def train(kind: str, num_steps: int) -> tuple[list[float], float]:
    """Mean losses per window, and seconds."""
    encoder = tiny_encoder(train_tokenizer(tokenizer_texts()))
    policy = build_tiny(tiny_config(encoder.tokenizer), seed=1)
    optimizers = make_optimizers(policy, kind)
    schedules = [
        make_schedule(optimizer, kind="cosine", num_steps=num_steps, warmup_fraction=0.05) for optimizer in optimizers
    ]
    losses, started = [], time.perf_counter()
    for step in range(1, num_steps + 1):
        source = random.Random(f"read/{step}")
        lessons = [
            read_lesson(source, draw_scene(source, layout=source.choice(LAYOUTS), split="train"))
            for _ in range(BATCH_SIZE)
        ]
        losses.append(imitate(policy, pack_examples(encoder, lessons, TOKEN_BUDGET)))
        descend(policy, optimizers, 1.0, name="policy", step=step)
        for schedule in schedules:
            schedule.step()
    means = [fmean(losses[start : start + WINDOW]) for start in range(0, num_steps, WINDOW)]
    return means, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (adamw, adamw_seconds), (muon, muon_seconds) = (train(kind, arguments.num_steps) for kind in ("adamw", "muon"))
    print("steps      AdamW   Muon")
    for window, values in enumerate(zip(adamw, muon, strict=True)):
        last = min(WINDOW * (window + 1), arguments.num_steps)
        print(f"{WINDOW * window + 1:>4}–{last:<4}  {values[0]:.3f}   {values[1]:.3f}")
    print(f"seconds    {adamw_seconds:.0f}     {muon_seconds:.0f}")


if __name__ == "__main__":
    main()
