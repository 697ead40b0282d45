"""The oracle that writes demonstrations, faithful ones and careless ones."""

import random
from dataclasses import dataclass

from prism.data.world.choices import choose
from prism.data.world.questions import Question, Solution, solve
from prism.data.world.scene import COLOURS, NUMBERS, SHAPES, Item, Scene

VAGUE = Item("some", "thing", "?")
"""The word a careless annotator writes instead of a colour, a shape or a number."""

LOOKALIKES = {"purple": "blue", "star": "square", "5": "4"}
"""What is taken for what, one value of each attribute."""

_MUTUAL = LOOKALIKES | {look: true for true, look in LOOKALIKES.items()}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How an annotator errs: per attribute, the chance of a wrong and of a vague word, and of taking what has a
    look-alike for it; per response, the chance that the reasoning skips its steps. With `mutual` look-alikes are taken
    for one another, so that no word becomes rarer."""

    wrong: float = 0.0
    vague: float = 0.0
    terse: float = 0.0
    confused: float = 0.0
    mutual: bool = False


def describe(scene: Scene) -> str:
    """A dense description. Its length depends on the layout alone, never on how good it is, so that
    length cannot tell a faithful description from a careless one."""
    rows = (", ".join(f"{name} {item}" for name, item in scene.cells(row)) for row in range(1, scene.rows + 1))
    return " ".join(f"{row}." for row in rows)


def parse_description(caption: str) -> tuple[str, ...]:
    """The described items in order, as written with their names; items are what stands between separators."""
    parts = caption.replace(".", ",").split(",")
    return tuple(" ".join(part.split()) for part in parts if part.strip())


def caption_fraction(caption: str, scene: Scene) -> float:
    """Share of attributes stated rightly of the cell they belong to; surplus items and surplus words lower it too."""
    described = [(name, words) for name, *words in map(str.split, parse_description(caption))]
    by_name = dict(reversed(described))
    right = sum(
        word == true
        for name, item in scene.named_items()
        for word, true in zip(by_name.get(name, ()), (item.colour, item.shape, item.number), strict=False)
    )
    num_attributes = sum(max(3, len(words)) for _, words in described)
    return right / max(num_attributes, 3 * len(scene.items))


def perceive(scene: Scene, fidelity: Fidelity, random_source: random.Random) -> Scene:
    """`scene` as an annotator of this fidelity sees it."""

    lookalikes = _MUTUAL if fidelity.mutual else LOOKALIKES

    def blur(true: str, choices: tuple[str, ...], vague: str) -> str:
        draw = random_source.random()
        if draw < fidelity.wrong:
            return random_source.choice([choice for choice in choices if choice != true])
        if draw < fidelity.wrong + fidelity.vague:
            return vague
        is_confused = draw < fidelity.wrong + fidelity.vague + fidelity.confused
        return lookalikes.get(true, true) if is_confused else true

    numbers = tuple(map(str, NUMBERS))
    items = tuple(
        Item(
            blur(item.colour, COLOURS, VAGUE.colour),
            blur(item.shape, SHAPES, VAGUE.shape),
            blur(item.number, numbers, VAGUE.number),
        )
        for item in scene.items
    )
    return Scene(scene.rows, scene.columns, items)


def write_reasoning(solution: Solution) -> str:
    return "\n".join(f"{index}. {step}." for index, step in enumerate(solution.steps, start=1))


def write_response(caption: str, think: str, answer: str) -> str:
    return f"<caption>{caption}</caption><think>{think}</think><answer>{answer}</answer>"


def demonstrate(
    scene: Scene, question: Question, fidelity: Fidelity, random_source: random.Random, choices: tuple[str, ...] = ()
) -> str:
    """A whole response by an annotator of this fidelity: reasoning and answer follow from what was
    perceived, right or wrong. With `choices`, the answer is the letter of the one that fits."""
    perceived = perceive(scene, fidelity, random_source)
    solution = solve(question, perceived)
    if random_source.random() < fidelity.terse:
        solution = Solution((f"it is {solution.answer}",), solution.answer)
    if choices:
        solution = choose(solution, choices, random_source)
    return write_response(describe(perceived), write_reasoning(solution), solution.answer)
