"""How the tiny base learns to check a description against an image: from marks alone, or with corrections.

    python benchmarks/checking.py [--num-steps 400]

A model that has learned to describe goes on in two ways. One sees descriptions in which every attribute is
followed by "right" or "wrong"; for the other, half of the lessons have the right word before the mark. Prints,
every hundred steps, the share of the wrong and of the right words that each marks so, without corrections.
"""

import argparse
import copy
import random
from collections import defaultdict
from typing import Any

import torch
from base_skills import draw, marks

from prism.data.world.lessons import LAYOUTS, check_description, draw_lesson, tokenizer_texts
from prism.data.world.scene import draw_scene
from prism.models import PromptEncoder
from prism.models.tiny import build_tiny, tiny_config, tiny_encoder, train_tokenizer
from prism.records import Example
from prism.runtime.optimizer import descend, make_muon
from prism.stages.imitation import imitate, pack_examples

BATCH_SIZE, TOKEN_BUDGET, EVERY, NUM_TESTED = 32, 512, 100, 60
NUM_DESCRIBING = 300
"""Steps before checking begins: as many as in `recipes/tiny/base.toml`."""


class Learner:
    """A model with the optimizers of pretraining, at constant rates."""

    def __init__(self, policy: Any, encoder: PromptEncoder) -> None:
        self.policy, self._encoder = policy, encoder
        self._optimizers = make_muon(policy, learning_rate=0.01, weight_decay=0.01, rest_learning_rate=1e-3)

    def learn(self, lessons: list[Example], step: int) -> None:
        imitate(self.policy, pack_examples(self._encoder, lessons, TOKEN_BUDGET))
        descend(self.policy, self._optimizers, 1.0, name="policy", step=step)

    def measure(self) -> dict[bool, float]:
        """Share of marks that are right, among those of wrong (False) and of right words (True)."""
        found = defaultdict[bool, list[bool]](list)
        for lesson in draw(check_description, "checking", NUM_TESTED):
            for is_right, is_hit in marks(self.policy, self._encoder, lesson):
                found[is_right].append(is_hit)
        return {is_right: sum(hits) / len(hits) for is_right, hits in found.items()}


def check_lessons(step: int, correction_share: float) -> list[Example]:
    source = random.Random(f"checking/{step}")
    lessons = []
    for _ in range(BATCH_SIZE):
        scene = draw_scene(source, layout=source.choice(LAYOUTS), split="train")
        lessons.append(check_description(source, scene, correct=source.random() < correction_share))
    return lessons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = tiny_encoder(train_tokenizer(tokenizer_texts()))
    first = Learner(build_tiny(tiny_config(encoder.tokenizer), seed=1), encoder)
    for step in range(1, NUM_DESCRIBING + 1):
        source = random.Random(f"describing/{step}")
        first.learn([draw_lesson(source, progress=0.0) for _ in range(BATCH_SIZE)], step)
    print("steps   marks alone: wrong, right    with corrections: wrong, right")
    arms = {share: Learner(copy.deepcopy(first.policy), encoder) for share in (0.0, 0.5)}
    for step in range(1, arguments.num_steps + 1):
        for share, learner in arms.items():
            learner.learn(check_lessons(step, share), step)
        if step % EVERY == 0:
            alone, corrected = (learner.measure() for learner in arms.values())
            values = f"{alone[False]:17.1%}, {alone[True]:6.1%} {corrected[False]:24.1%}, {corrected[True]:6.1%}"
            print(f"{step:>5} {values}", flush=True)


if __name__ == "__main__":
    main()
