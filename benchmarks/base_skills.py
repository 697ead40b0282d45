"""What a tiny base can do before any post-training: see, reason over a given description, check statements.

    python benchmarks/base_skills.py [MODEL] [--count 300]

On scenes of the dev split, greedy. `describe`: descriptions without a mistake. `read`: right answers to
questions over a description given as text, by kind. `check`: marks given rightly to words, cells, rows or whole
descriptions, steps or whole reasonings that are wrong, and to those that are right (see `marks`).
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prism.data.world.lessons import Lesson, check_description, check_reasoning, describe_lesson, read_lesson
from prism.data.world.questions import KINDS, draw_question
from prism.data.world.scene import draw_scene
from prism.models import PromptEncoder, load_policy
from prism.packing import branch_logprobs
from prism.records import Example, Prompt
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages.base import pack_lessons
from prism.stages.workspace import SHIPPED_BASE

MakeLesson = Callable[..., Lesson]
LAYOUTS = ((3, 3), (2, 4))
MAX_TOKENS, TOKEN_BUDGET = 240, 4096
CHECKS: dict[str, MakeLesson] = {
    "words": check_description,
    **{f"{unit}s": partial(check_description, unit=unit) for unit in ("cell", "row")},
    "descriptions": partial(check_description, unit="whole"),
    "steps": check_reasoning,
    "reasonings": partial(check_reasoning, by_step=False),
}


def draw(lesson: MakeLesson, name: str, count: int) -> list[Lesson]:
    source = random.Random(f"skills/{name}")
    scenes = [draw_scene(source, layout=source.choice(LAYOUTS), split="dev") for _ in range(count)]
    return [lesson(source, scene) for scene in scenes]


def draw_reading(kind: str, count: int) -> list[Example]:
    """Lessons about scenes of which a question of `kind` can be asked."""
    source, lessons = random.Random(f"skills/{kind}"), []
    while len(lessons) < count:
        scene = draw_scene(source, layout=source.choice(LAYOUTS), split="dev")
        question = draw_question(source, scene, kind)
        if question is not None:
            lessons.append(read_lesson(source, scene, question))
    return lessons


def answer(engine: TransformersEngine, lessons: Sequence[Example]) -> list[str]:
    prompts = [Prompt(str(place), found.prompt.question, found.prompt.images) for place, found in enumerate(lessons)]
    groups = engine.generate(prompts, num_samples=1, sampling=Sampling(0.0, MAX_TOKENS), seed=0)
    return [group.rollouts[0].text for group in groups]


def part(text: str) -> str:
    """The answer in its tags."""
    return text.partition("<answer>")[2].partition("</answer>")[0]


@torch.no_grad()
def marks(policy: Any, encoder: PromptEncoder, lesson: Lesson) -> list[tuple[bool, bool]]:
    """For every judgement of a lesson whether it finds no fault, and whether the model prefers it to its opposite:
    "right" to "wrong", a count of faults to none, and none to one."""
    [packed] = pack_lessons(encoder, [lesson], TOKEN_BUDGET)
    words = [encoder.decode([token]) for token in packed.target_ids.tolist()]
    is_count = any(word.strip().isdigit() for word in words)
    opposites = {" right": " wrong", " wrong": " right", " 0": " 1"}
    # Not the words around a count, a mark's correction, or the end token.
    places = [
        place for place, word in enumerate(words) if word.strip().isdigit() or (word in opposites and not is_count)
    ]
    assert len(places) == (1 if lesson.verdict else len(lesson.loss_spans))
    [opposed] = pack_lessons(encoder, [lesson], TOKEN_BUDGET)
    for place in places:
        opposed.target_ids[place] = encoder.completion_ids(opposites.get(words[place], " 0"))[0]
    true, other = (branch_logprobs(policy, found).logprobs for found in (packed, opposed))
    return [(words[place] in (" right", " 0"), bool(true[place] > other[place])) for place in places]


def report(name: str, hits: Sequence[bool]) -> None:
    print(f"{name:<28} {sum(hits) / len(hits):6.1%}  n = {len(hits)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=SHIPPED_BASE)
    parser.add_argument("--count", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = PromptEncoder.from_pretrained(arguments.model)
    policy = load_policy(arguments.model)
    engine = TransformersEngine(policy, encoder)
    lessons = draw(describe_lesson, "describe", arguments.count // 3)
    report("describe", [text == found.completion for text, found in zip(answer(engine, lessons), lessons, strict=True)])
    everything: list[bool] = []
    for kind in KINDS:
        lessons = draw_reading(kind, arguments.count // len(KINDS))
        hits = [
            part(text) == part(found.completion) for text, found in zip(answer(engine, lessons), lessons, strict=True)
        ]
        report(f"read: {kind}", hits)
        everything += hits
    report("read: all", everything)
    for name, lesson in CHECKS.items():
        found = defaultdict[bool, list[bool]](list)
        for checked in draw(lesson, name, arguments.count // 3):
            for is_right, is_hit in marks(policy, encoder, checked):
                found[is_right].append(is_hit)
        report(f"check {name}: wrong", found[False])
        report(f"check {name}: right", found[True])


if __name__ == "__main__":
    main()
