"""What a discriminator sees: how often one altered word lowers the score of the teacher's description.

    python benchmarks/discriminator_sight.py RUN/seed-0/warmup/model

On scenes of the dev split, the rest of the response unchanged. A discriminator that only counts words notices vague
ones and look-alikes, not a random wrong word, which half of the time scores lower by chance.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import torch

from prism.data.world.datasets import DEV, FAITHFUL, demonstrations
from prism.data.world.oracle import LOOKALIKES, VAGUE, describe, write_response
from prism.data.world.questions import ATTRIBUTES
from prism.data.world.scene import COLOURS, NUMBERS, SHAPES, Scene, decode_scene
from prism.models import Discriminator, PromptEncoder
from prism.records import Example
from prism.rewards import parse_response
from prism.stages.scoring import Contest, ContestBatch, score

WORDS = dict(zip(ATTRIBUTES, (COLOURS, SHAPES, tuple(map(str, NUMBERS))), strict=True))
KINDS = ("any other", "look-alike", "vague")
NUM_SCENES, TOKEN_BUDGET = 100, 2048


def altered(scene: Scene, attribute: str, kind: str, random_source: random.Random) -> Scene | None:
    """`scene` with one word replaced; None where it holds none that has a look-alike."""
    words = [getattr(item, attribute) for item in scene.items]
    places = [place for place, word in enumerate(words) if kind != "look-alike" or word in LOOKALIKES]
    if not places:
        return None
    place = random_source.choice(places)
    choices = {
        "any other": [word for word in WORDS[attribute] if word not in (words[place], LOOKALIKES.get(words[place]))],
        "look-alike": [LOOKALIKES.get(words[place], "")],
        "vague": [getattr(VAGUE, attribute)],
    }[kind]
    items = list(scene.items)
    items[place] = replace(items[place], **{attribute: random_source.choice(choices)})
    return replace(scene, items=tuple(items))


def contest(example: Example, attribute: str, kind: str) -> Contest | None:
    scene = decode_scene(example.prompt.metadata["scene"])
    changed = altered(scene, attribute, kind, random.Random(f"{example.prompt.id}/{attribute}/{kind}"))
    if changed is None:
        return None
    teacher = parse_response(example.completion)
    text = write_response(describe(changed), str(teacher.think), str(teacher.answer))
    return Contest(example.prompt, teacher, (parse_response(text),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("discriminator", type=Path)
    directory = parser.parse_args().discriminator
    torch.set_num_threads(1)
    discriminator, encoder = Discriminator.from_pretrained(directory), PromptEncoder.from_pretrained(directory)
    examples = list(demonstrations("sight", DEV, FAITHFUL, NUM_SCENES, seed=0))
    print("altered word       scores lower   mean fall")
    for kind in KINDS:
        for attribute in ATTRIBUTES:
            contests = [found for example in examples if (found := contest(example, attribute, kind))]
            batch = ContestBatch(encoder, contests, TOKEN_BUDGET, discriminator.mode)
            view = batch.pair_scores(score(discriminator, batch)).views["perception"]
            fall = view.teacher - view.student
            print(f"{kind:<10} {attribute:<7} {float((fall > 0).float().mean()):12.1%} {float(fall.mean()):11.2f}")


if __name__ == "__main__":
    main()
