"""Answers worked by hand, and recomputed from the question's wording by code that shares nothing with the solvers."""

import random
import re

import pytest

from prism.data.world.questions import KINDS, TRAINED_KINDS, Question, draw_question, solve
from prism.data.world.scene import Scene, decode_scene, draw_scene

SCENE = decode_scene(
    "3x3:"
    "red circle 2,blue square 5,red star 1,"
    "green circle 4,red circle 3,yellow triangle 3,"
    "blue star 5,purple square 2,blue circle 1"
)

BY_HAND = [
    (("lookup", ("colour", "b3")), "yellow", ("b3 is yellow triangle 3",)),
    (("lookup", ("shape", "a2")), "square", ("a2 is blue square 5",)),
    (("lookup", ("number", "c1")), "5", ("c1 is blue star 5",)),
    (
        ("count", ("red",)),
        "3",
        ("row a: a1 red circle 2 makes 1, a3 red star 1 makes 2", "row b: b2 red circle 3 makes 3", "row c: none"),
    ),
    (
        ("count", ("circle",)),
        "4",
        (
            "row a: a1 red circle 2 makes 1",
            "row b: b1 green circle 4 makes 2, b2 red circle 3 makes 3",
            "row c: c3 blue circle 1 makes 4",
        ),
    ),
    (("count", ("triangle",)), "1", ("row a: none", "row b: b3 yellow triangle 3 makes 1", "row c: none")),
    (
        ("sum", ("circle",)),
        "10",
        (
            "row a: a1 red circle 2 makes 2",
            "row b: b1 green circle 4 makes 6, b2 red circle 3 makes 9",
            "row c: c3 blue circle 1 makes 10",
        ),
    ),
    (
        ("sum", ("blue",)),
        "11",
        ("row a: a2 blue square 5 makes 5", "row b: none", "row c: c1 blue star 5 makes 10, c3 blue circle 1 makes 11"),
    ),
    (
        ("largest", ("shape", "c")),
        "star",
        ("row c: c1 blue star 5, c2 purple square 2, c3 blue circle 1", "the largest is c1 blue star 5"),
    ),
    (
        ("largest", ("colour", "a")),
        "blue",
        ("row a: a1 red circle 2, a2 blue square 5, a3 red star 1", "the largest is a2 blue square 5"),
    ),
    (
        ("column", ("1",)),
        "11",
        ("a1 red circle 2 makes 2", "b1 green circle 4 makes 6", "c1 blue star 5 makes 11"),
    ),
    (
        ("compare", ("square", "circle")),
        "circle",
        (
            "square: a2 makes 1, c2 makes 2",
            "circle: a1 makes 1, b1 makes 2, b2 makes 3, c3 makes 4",
            "4 is more than 2",
        ),
    ),
    (
        ("neighbour", ("shape", "left of", "yellow", "triangle")),
        "circle",
        ("yellow triangle is b3", "left of is b2 red circle 3"),
    ),
    (
        ("neighbour", ("number", "above", "blue", "circle")),
        "3",
        ("blue circle is c3", "above is b3 yellow triangle 3"),
    ),
    (
        ("neighbour", ("colour", "right of", "purple", "square")),
        "blue",
        ("purple square is c2", "right of is c3 blue circle 1"),
    ),
    (("neighbour", ("colour", "below", "green", "circle")), "blue", ("green circle is b1", "below is c1 blue star 5")),
    (("neighbour", ("colour", "below", "blue", "circle")), "none", ("blue circle is c3", "nothing is there")),
    (("neighbour", ("colour", "below", "green", "star")), "none", ("no green star is there",)),
]


@pytest.mark.parametrize(("asked", "answer", "steps"), BY_HAND, ids=lambda value: str(value)[:40])
def test_answers_and_steps_worked_by_hand(asked: tuple, answer: str, steps: tuple[str, ...]) -> None:
    solution = solve(Question(*asked, text=""), SCENE)
    assert (solution.answer, solution.steps) == (answer, steps)


def test_every_kind_is_worked_by_hand() -> None:
    assert {asked[0] for asked, _, _ in BY_HAND} == set(KINDS)
    assert set(TRAINED_KINDS) < set(KINDS)


class Grid:
    """A second reading of a scene's encoding, as lists of words."""

    def __init__(self, scene: Scene) -> None:
        layout, items = scene.encode().split(":")
        self.height, self.width = map(int, layout.split("x"))
        self.cells = [text.split() for text in items.split(",")]

    def cell(self, row: str, column: str | int) -> list[str]:
        """Rows are called a, b, c, …, columns 1, 2, 3, …"""
        return self.cells[self.width * (ord(row) - ord("a")) + int(column) - 1]

    def having(self, noun: str) -> list[list[str]]:
        word = noun.removesuffix(" objects").removesuffix("s")
        return [cell for cell in self.cells if word in cell[:2]]


def read_off(scene: Scene, text: str) -> str:
    """The answer to the English question `text`, without the solvers."""
    grid = Grid(scene)
    place = {"colour": 0, "shape": 1, "number": 2}
    if found := re.fullmatch(r"How many (.+) are there\?", text):
        return str(len(grid.having(found[1])))
    if found := re.fullmatch(r"What is the sum of the numbers on the (.+)\?", text):
        return str(sum(int(cell[2]) for cell in grid.having(found[1])))
    if found := re.fullmatch(r"What is the sum of the numbers in column (\d)\?", text):
        return str(sum(int(grid.cell(row, found[1])[2]) for row in "abcd"[: grid.height]))
    if found := re.fullmatch(r"What is the (\w+) of the object at ([a-d])(\d)\?", text):
        return grid.cell(found[2], found[3])[place[found[1]]]
    if found := re.fullmatch(r"What is the (\w+) of the object with the largest number in row ([a-d])\?", text):
        cells = [grid.cell(found[2], column) for column in range(1, grid.width + 1)]
        [largest] = [cell for cell in cells if cell[2] == max(cell[2] for cell in cells)]
        return largest[place[found[1]]]
    if found := re.fullmatch(r"Are there more (.+) or more (.+)\?", text):
        first, second = len(grid.having(found[1])), len(grid.having(found[2]))
        assert first != second
        winner = found[1] if first > second else found[2]
        return winner.removesuffix(" objects").removesuffix("s")
    found = re.fullmatch(r"What is the (\w+) of the object (left of|right of|above|below) the (\w+) (\w+)\?", text)
    assert found, text
    [centre] = [index for index, cell in enumerate(grid.cells) if cell[:2] == [found[3], found[4]]]
    row, column = divmod(centre, grid.width)
    row += {"above": -1, "below": 1}.get(found[2], 0)
    column += {"left of": -1, "right of": 1}.get(found[2], 0)
    assert 0 <= row < grid.height and 0 <= column < grid.width
    return grid.cells[row * grid.width + column][place[found[1]]]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_agree_with_the_wording(kind: str) -> None:
    random_source = random.Random(f"wording/{kind}")
    num_questions = 0
    while num_questions < 150:
        layout = random_source.choice([(3, 3), (2, 4), (3, 4), (4, 3), (2, 3), (3, 2)])
        scene = draw_scene(random_source, layout=layout, split="train")
        question = draw_question(random_source, scene, kind)
        if question is not None:
            assert question.kind == kind
            assert solve(question, scene).answer == read_off(scene, question.text)
            num_questions += 1


@pytest.mark.parametrize("kind", KINDS)
def test_steps_cite_items_of_the_scene_only(kind: str) -> None:
    random_source = random.Random(f"cited/{kind}")
    for _ in range(60):
        scene = draw_scene(random_source, layout=(3, 3), split="train")
        question = draw_question(random_source, scene, kind)
        if question is None:
            continue
        cited = re.findall(r"[a-d]\d [a-z]+ (?:circle|square|triangle|star) \d", " ".join(solve(question, scene).steps))
        placed = [f"{'abcd'[index // 3]}{index % 3 + 1} {item}" for index, item in enumerate(scene.items)]
        assert set(cited) <= set(placed)
        assert cited or kind in ("lookup", "compare", "count", "sum")


def test_vague_items_count_as_nothing() -> None:
    vague = decode_scene("1x3:red circle ?,some circle 2,red thing 4")
    assert solve(Question("sum", ("circle",), ""), vague).answer == "2"
    assert solve(Question("count", ("red",), ""), vague).answer == "2"
    assert solve(Question("largest", ("shape", "a"), ""), vague).answer == "thing"
    assert solve(Question("lookup", ("number", "a1"), ""), vague).answer == "?"
