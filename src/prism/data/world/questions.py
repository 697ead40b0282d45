"""Questions about a scene, and the reasoning that answers each from a description of it.

A solver reads a *described* scene, which need not be the true one: given the true scene it writes
the reference reasoning and answer, given a misperceived one it makes the mistakes that follow.
Every step cites described items and carries a running result, so the answer depends on the caption.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from prism.data.world.scene import COLOURS, ROW_NAMES, SHAPES, Item, Scene

ATTRIBUTES = ("colour", "shape", "number")
DIRECTIONS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


@dataclass(frozen=True, slots=True)
class Question:
    """`kind` names the solver; `arguments` are its parameters; `text` is what is asked."""

    kind: str
    arguments: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Solution:
    """Reasoning steps, without their numbers, and the answer."""

    steps: tuple[str, ...]
    answer: str


def solve(question: Question, described: Scene) -> Solution:
    """Reasoning and answer that follow from `described`.

    The first step restates what is asked, the last one the answer (or that there is none), and those between
    cite the cells they use: a small model follows what stands near, and forgets the question behind a long description.
    """
    return _SOLVERS[question.kind](described, *question.arguments)


def draw_question(random_source: random.Random, scene: Scene, kind: str) -> Question | None:
    """A question of `kind` with one right answer in `scene`, or None if this draw has none."""
    return _MAKERS[kind](random_source, scene)


def _matches(item: Item, word: str) -> bool:
    return word in (item.colour, item.shape)


def _noun(word: str) -> str:
    return f"{word}s" if word in SHAPES else f"{word} objects"


def _number(item: Item) -> int:
    return int(item.number) if item.number.isdigit() else 0


def _scan(described: Scene, remark: Callable[[str, Item], str]) -> list[str]:
    """A step per row that goes through every cell and remarks on each: what is there beside what is sought, since a
    small model compares words that stand together and passes over others."""
    return [
        f"row {ROW_NAMES[row - 1]}: " + ", ".join(remark(name, item) for name, item in described.cells(row))
        for row in range(1, described.rows + 1)
    ]


def _sort_of(word: str) -> str:
    """The attribute that `word` is a value of."""
    return "colour" if word in COLOURS else "shape"


def _solve_count(described: Scene, word: str) -> Solution:
    total = 0

    def remark(name: str, item: Item) -> str:
        nonlocal total
        seen = getattr(item, _sort_of(word))
        total += seen == word
        return f"{name} {seen} {word} makes {total}" if seen == word else f"{name} {seen} {word} no"

    steps = [f"find {word}", *_scan(described, remark), f"the count is {total}"]
    return Solution(tuple(steps), str(total))


def _solve_sum(described: Scene, word: str) -> Solution:
    total = 0

    def remark(name: str, item: Item) -> str:
        nonlocal total
        seen = getattr(item, _sort_of(word))
        if seen != word:
            return f"{name} {seen} {word} no"
        total += _number(item)
        return f"{name} {seen} {word} {item.number} makes {total}"

    steps = [f"find {word}", *_scan(described, remark), f"the sum is {total}"]
    return Solution(tuple(steps), str(total))


def _solve_lookup(described: Scene, attribute: str, name: str) -> Solution:
    item = dict(described.named_items())[name]
    answer = getattr(item, attribute)
    return Solution((f"find {attribute} at {name}", f"{name} is {item}", f"the {attribute} is {answer}"), answer)


def _solve_largest(described: Scene, attribute: str, row_name: str) -> Solution:
    best_name, best = described.cells(ROW_NAMES.index(row_name) + 1)[0]
    remarks = []
    for name, item in described.cells(ROW_NAMES.index(row_name) + 1):
        if _number(item) > _number(best):
            best_name, best = name, item
        remarks.append(f"{name} {item.number} best {best_name}")
    answer = getattr(best, attribute)
    steps = (
        f"find {attribute} of largest in row {row_name}",
        f"row {row_name}: {', '.join(remarks)}",
        f"{best_name} is {best}",
        f"the {attribute} is {answer}",
    )
    return Solution(steps, answer)


def _solve_column(described: Scene, column: str) -> Solution:
    steps, total = [f"find column {column}"], 0
    for row in range(1, described.rows + 1):
        item = described.at(row, int(column))
        total += _number(item)
        steps.append(f"{described.name(row, int(column))} {item} makes {total}")
    steps.append(f"the sum is {total}")
    return Solution(tuple(steps), str(total))


def _solve_compare(described: Scene, first: str, second: str) -> Solution:
    counts = {first: 0, second: 0}

    def remark(name: str, item: Item) -> str:
        seen = getattr(item, _sort_of(first))
        if seen in counts:
            counts[seen] += 1
        return f"{name} {seen} {first} {counts[first]} {second} {counts[second]}"

    steps = [f"find {first} and {second}", *_scan(described, remark)]
    more, less = (first, second) if counts[first] >= counts[second] else (second, first)
    steps.append(f"{more} {counts[more]} is more than {less} {counts[less]}")
    return Solution(tuple(steps), more)


def _solve_neighbour(described: Scene, attribute: str, direction: str, colour: str, shape: str) -> Solution:
    down, right = DIRECTIONS[direction]
    sought = f"find {attribute} {direction} {colour} {shape}"
    for row in range(1, described.rows + 1):
        for column in range(1, described.columns + 1):
            item = described.at(row, column)
            if (item.colour, item.shape) != (colour, shape):
                continue
            found = f"{colour} {shape} is {described.name(row, column)}"
            if not (1 <= row + down <= described.rows and 1 <= column + right <= described.columns):
                return Solution((sought, found, "nothing is there"), "none")
            other = described.at(row + down, column + right)
            there, answer = described.name(row + down, column + right), getattr(other, attribute)
            place = f"{direction} {described.name(row, column)} is {there} {other}"
            return Solution((sought, found, place, f"the {attribute} is {answer}"), answer)
    return Solution((sought, f"no {colour} {shape} is there"), "none")


def _make_count(random_source: random.Random, scene: Scene) -> Question | None:
    word = random_source.choice(COLOURS + SHAPES)
    return Question("count", (word,), f"How many {_noun(word)} are there?")


def _make_sum(random_source: random.Random, scene: Scene) -> Question | None:
    word = random_source.choice(COLOURS + SHAPES)
    if sum(_number(item) for item in scene.items if _matches(item, word)) == 0:
        return None
    return Question("sum", (word,), f"What is the sum of the numbers on the {_noun(word)}?")


def _make_lookup(random_source: random.Random, scene: Scene) -> Question | None:
    attribute = random_source.choice(ATTRIBUTES)
    name = scene.name(random_source.randint(1, scene.rows), random_source.randint(1, scene.columns))
    return Question("lookup", (attribute, name), f"What is the {attribute} of the object at {name}?")


def _make_largest(random_source: random.Random, scene: Scene) -> Question | None:
    attribute, row = random_source.choice(("colour", "shape")), random_source.randint(1, scene.rows)
    numbers = sorted((_number(item) for _, item in scene.cells(row)), reverse=True)
    if numbers[0] == numbers[1]:
        return None
    name = ROW_NAMES[row - 1]
    text = f"What is the {attribute} of the object with the largest number in row {name}?"
    return Question("largest", (attribute, name), text)


def _make_column(random_source: random.Random, scene: Scene) -> Question | None:
    column = random_source.randint(1, scene.columns)
    return Question("column", (str(column),), f"What is the sum of the numbers in column {column}?")


def _make_compare(random_source: random.Random, scene: Scene) -> Question | None:
    words = random_source.sample(COLOURS if random_source.random() < 0.5 else SHAPES, 2)
    counts = [sum(_matches(item, word) for item in scene.items) for word in words]
    if counts[0] == counts[1]:
        return None
    return Question("compare", tuple(words), f"Are there more {_noun(words[0])} or more {_noun(words[1])}?")


def _make_neighbour(random_source: random.Random, scene: Scene) -> Question | None:
    attribute, direction = random_source.choice(ATTRIBUTES), random_source.choice(list(DIRECTIONS))
    item = random_source.choice(scene.items)
    if sum((other.colour, other.shape) == (item.colour, item.shape) for other in scene.items) != 1:
        return None
    question = Question(
        "neighbour",
        (attribute, direction, item.colour, item.shape),
        f"What is the {attribute} of the object {direction} the {item.colour} {item.shape}?",
    )
    return None if solve(question, scene).answer == "none" else question


_SOLVERS: dict[str, Callable[..., Solution]] = {
    "lookup": _solve_lookup,
    "count": _solve_count,
    "sum": _solve_sum,
    "largest": _solve_largest,
    "column": _solve_column,
    "compare": _solve_compare,
    "neighbour": _solve_neighbour,
}
_MAKERS: dict[str, Callable[[random.Random, Scene], Question | None]] = {
    "lookup": _make_lookup,
    "count": _make_count,
    "sum": _make_sum,
    "largest": _make_largest,
    "column": _make_column,
    "compare": _make_compare,
    "neighbour": _make_neighbour,
}
KINDS = tuple(_SOLVERS)
"""Every kind of question."""

TRAINED_KINDS = ("count", "compare")
"""The kinds that alignment and RL prompts ask; the others are met only before (base, SFT) and in tests.

None of them asks for a number, which every description states: as with real problems, rewards for answers cover less
than a response describes.
"""
