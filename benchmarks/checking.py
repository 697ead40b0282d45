"""How the tiny base learns to judge a description: among all other lessons, or in parts of its own.

    python benchmarks/checking.py [--num-steps 800]

A model that has learned to describe goes on with one of four mixtures of lessons (`prism.data.world.lessons`): all that
pretraining ends with; a mark behind every word; the same, half of them with the right word before the mark; or that for
half of the steps and then also counts of wrong words for cells, rows and the whole. Prints which share of the wrong and
of the right words, and of the faulty and of the faultless descriptions, each model recognises; a dash where it was not
taught.
"""

import argparse
import copy
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from base_skills import marks

from prism.data.world.lessons import LAYOUTS, Lesson, Unit, check_description, draw_lesson, tokenizer_texts
from prism.data.world.scene import draw_scene
from prism.models import PromptEncoder
from prism.models.tiny import build_tiny, tiny_config, tiny_encoder, train_tokenizer
from prism.records import Example
from prism.runtime.optimizer import descend, make_muon
from prism.stages.base import pack_lessons
from prism.stages.imitation import imitate

MakeLesson = Callable[..., Lesson]
BATCH_SIZE, TOKEN_BUDGET, EVERY, NUM_TESTED = 16, 512, 200, 100
NUM_DESCRIBING = 600
"""Steps before judging begins: as many as in `recipes/tiny/base.toml`."""
WORDS, CORRECTED, CELLS, ROWS, WHOLE = (partial(check_description, unit=unit) for unit in get_args(Unit))
JUDGING = (WORDS, CORRECTED, CELLS, ROWS, WHOLE)
MIXTURES: dict[str, tuple[tuple[MakeLesson, ...], ...]] = {
    "everything": ((lambda source, _: draw_lesson(source),),),
    "words": ((WORDS,),),
    "words, corrected": ((WORDS, CORRECTED),),
    "in parts": ((WORDS, CORRECTED), JUDGING),
}
"""Of each the parts, which take equal shares of the steps."""
NUM_DESCRIPTIONS = 300


class Learner:
    """A model with the optimizers of pretraining, at constant rates."""

    def __init__(self, policy: Any, encoder: PromptEncoder) -> None:
        self.policy, self._encoder = policy, encoder
        self._optimizers = make_muon(policy, learning_rate=0.01, weight_decay=0.01, rest_learning_rate=1e-3)

    def learn(self, lessons: list[Example], step: int) -> None:
        imitate(self.policy, pack_lessons(self._encoder, lessons, TOKEN_BUDGET))
        descend(self.policy, self._optimizers, 1.0, name="policy", step=step)

    def measure(self, lesson: MakeLesson, num_tested: int) -> str:
        """Shares of right marks among those of what is wrong, and among those of what is right, and their counts."""
        found, source = defaultdict[bool, list[bool]](list), random.Random("measure")
        for _ in range(num_tested):
            checked = lesson(source, draw_scene(source, layout=source.choice(LAYOUTS), split="dev"))
            for is_right, is_hit in marks(self.policy, self._encoder, checked):
                found[is_right].append(is_hit)
        return ", ".join(f"{sum(found[key]) / len(found[key]):6.1%} of {len(found[key]):>4}" for key in (False, True))


def draw(mixture: tuple[MakeLesson, ...], step: int) -> list[Example]:
    source = random.Random(f"checking/{step}")
    scenes = [draw_scene(source, layout=source.choice(LAYOUTS), split="train") for _ in range(BATCH_SIZE)]
    return [source.choice(mixture)(source, scene) for scene in scenes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=800)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = tiny_encoder(train_tokenizer(tokenizer_texts()))
    first = Learner(build_tiny(tiny_config(encoder.tokenizer), seed=1), encoder)
    for step in range(1, NUM_DESCRIBING + 1):
        source = random.Random(f"describing/{step}")
        first.learn([draw_lesson(source, 0) for _ in range(BATCH_SIZE)], step)
    print("lessons            steps   words: wrong, right               descriptions: faulty, faultless")
    for name, parts in MIXTURES.items():
        learner = Learner(copy.deepcopy(first.policy), encoder)
        counts_wholes = name == "everything"
        for step in range(1, arguments.num_steps + 1):
            mixture = parts[(step - 1) * len(parts) // arguments.num_steps]
            counts_wholes |= WHOLE in mixture
            learner.learn(draw(mixture, step), step)
            if step % EVERY == 0:
                whole = learner.measure(WHOLE, NUM_DESCRIPTIONS) if counts_wholes else "–"
                print(f"{name:<18} {step:>5}   {learner.measure(WORDS, NUM_TESTED):<32}  {whole}", flush=True)


if __name__ == "__main__":
    main()
