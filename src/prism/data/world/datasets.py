"""The world's data sets: what each holds, and which scenes, layouts and kinds it may draw from.

Every prompt's `metadata` keeps the scene it shows (`scene`), the question's kind and, for test
prompts, the benchmark and its group. No scene is in two splits (see `scene.split_of`); alignment
and RL prompts share the `rollout` split, as the paper reserves one pool for both.
"""

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass

from prism.data.world.choices import draw_choices, letter_of, write_choices
from prism.data.world.oracle import Fidelity, caption_fraction, demonstrate, parse_description
from prism.data.world.questions import KINDS, TRAINED_KINDS, Question, draw_question, solve
from prism.data.world.render import render_scene
from prism.data.world.scene import Scene, Split, decode_scene, draw_scene
from prism.records import IMAGE_MARK, Example, ImageSource, Prompt

TRAINED_LAYOUTS = ((3, 3), (2, 4))
UNTRAINED_LAYOUTS = ((3, 4), (4, 3))
CROWDED = 5
"""From this many matching objects on, counting and adding are a benchmark of their own, absent from RL prompts."""
FAITHFUL = Fidelity()


@dataclass(frozen=True, slots=True)
class Source:
    """What a data set draws: one split, some layouts and kinds; `choice_rate` of the questions offer choices."""

    split: Split
    layouts: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]
    choice_rate: float = 0.0
    is_crowded: bool | None = None


PUBLIC = Source("train", TRAINED_LAYOUTS + UNTRAINED_LAYOUTS, KINDS, choice_rate=0.2)
CURATED = Source("curated", TRAINED_LAYOUTS + UNTRAINED_LAYOUTS, KINDS, choice_rate=0.2)
ROLLOUT = Source("rollout", TRAINED_LAYOUTS, TRAINED_KINDS, choice_rate=0.2, is_crowded=False)
DEV = Source("dev", TRAINED_LAYOUTS, TRAINED_KINDS, choice_rate=0.2, is_crowded=False)

IN_DISTRIBUTION, OUT_OF_DISTRIBUTION = "in-distribution", "out-of-distribution"
BENCHMARKS: dict[str, tuple[str, Source]] = {
    "counting": (IN_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("count",), is_crowded=False)),
    "comparing": (IN_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("compare",))),
    "choice": (IN_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, TRAINED_KINDS, choice_rate=1.0, is_crowded=False)),
    "lookup": (OUT_OF_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("lookup",))),
    "adding": (OUT_OF_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("sum",), is_crowded=False)),
    "neighbours": (OUT_OF_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("neighbour",))),
    "columns": (OUT_OF_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("column",))),
    "crowded": (OUT_OF_DISTRIBUTION, Source("test", TRAINED_LAYOUTS, ("count", "sum"), is_crowded=True)),
    "layouts": (OUT_OF_DISTRIBUTION, Source("test", UNTRAINED_LAYOUTS, TRAINED_KINDS, is_crowded=False)),
}
"""Sub-benchmarks of the test set: perception-heavy (lookup, neighbours), reasoning-heavy (the others), multiple choice
and numeric ones. RL prompts cover neither the kinds, the counts nor the layouts of the out-of-distribution group."""


def demonstrations(name: str, source: Source, fidelity: Fidelity, count: int, seed: int) -> Iterator[Example]:
    """`count` demonstrations called `name-000000` and so on, by an annotator of `fidelity`."""
    for index in range(count):
        random_source = random.Random(f"{seed}/{name}/{index}")
        prompt, scene, question = _draw(random_source, f"{name}-{index:06d}", source, {})
        yield Example(prompt, demonstrate(scene, question, fidelity, random_source, prompt.choices))


def test_examples(per_benchmark: int, seed: int, *, split: Split = "test") -> Iterator[Example]:
    """`per_benchmark` prompts for each of `BENCHMARKS` with the teacher's responses, about scenes of `split`."""
    for name, (group, source) in BENCHMARKS.items():
        drawn_from = dataclasses.replace(source, split=split)
        for index in range(per_benchmark):
            random_source = random.Random(f"{seed}/{split}/{name}/{index}")
            tags = {"benchmark": name, "group": group}
            prompt, scene, question = _draw(random_source, f"{name}-{index:04d}", drawn_from, tags)
            yield Example(prompt, demonstrate(scene, question, FAITHFUL, random_source, prompt.choices))


def described_fraction(prompt: Prompt, caption: str) -> float | None:
    """Share of the attributes in the prompt's image that `caption` states rightly; None outside the world."""
    scene = prompt.metadata.get("scene")
    return None if scene is None else caption_fraction(caption, decode_scene(scene))


def count_items(caption: str) -> int:
    return len(parse_description(caption))


def _draw(random_source: random.Random, name: str, source: Source, tags: dict) -> tuple[Prompt, Scene, Question]:
    while True:
        scene = draw_scene(random_source, layout=random_source.choice(source.layouts), split=source.split)
        question = draw_question(random_source, scene, random_source.choice(source.kinds))
        if question is not None and source.is_crowded in (None, _is_crowded(scene, question)):
            break
    answer = solve(question, scene).answer
    choices: tuple[str, ...] = ()
    text = IMAGE_MARK + question.text
    if random_source.random() < source.choice_rate:
        choices = draw_choices(random_source, question, answer)
        text += write_choices(choices)
    prompt = Prompt(
        id=name,
        question=text,
        images=(ImageSource(data=render_scene(scene, random_source)),),
        answer=letter_of(answer, choices) or answer,
        kind=question.kind,
        choices=choices,
        metadata={"scene": scene.encode(), **tags},
    )
    return prompt, scene, question


def _is_crowded(scene: Scene, question: Question) -> bool:
    if question.kind not in ("count", "sum"):
        return False
    [word] = question.arguments
    return sum(word in (item.colour, item.shape) for item in scene.items) >= CROWDED
