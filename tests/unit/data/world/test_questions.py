"""Answers worked by hand, and recomputed from the question's wording by code that shares nothing with the solvers."""

import itertools
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
    (("lookup", ("colour", "b3")), "yellow", ("find colour at b3", "b3 is yellow triangle 3", "the colour is yellow")),
    (("lookup", ("shape", "a2")), "square", ("find shape at a2", "a2 is blue square 5", "the shape is square")),
    (("lookup", ("number", "c1")), "5", ("find number at c1", "c1 is blue star 5", "the number is 5")),
    (
        ("count", ("red",)),
        "3",
        (
            "find red",
            "row a: a1 red red makes 1, a2 blue red no, a3 red red makes 2",
            "row b: b1 green red no, b2 red red makes 3, b3 yellow red no",
            "row c: c1 blue red no, c2 purple red no, c3 blue red no",
            "the count is 3",
        ),
    ),
    (
        ("count", ("circle",)),
        "4",
        (
            "find circle",
            "row a: a1 circle circle makes 1, a2 square circle no, a3 star circle no",
            "row b: b1 circle circle makes 2, b2 circle circle makes 3, b3 triangle circle no",
            "row c: c1 star circle no, c2 square circle no, c3 circle circle makes 4",
            "the count is 4",
        ),
    ),
    (
        ("count", ("triangle",)),
        "1",
        (
            "find triangle",
            "row a: a1 circle triangle no, a2 square triangle no, a3 star triangle no",
            "row b: b1 circle triangle no, b2 circle triangle no, b3 triangle triangle makes 1",
            "row c: c1 star triangle no, c2 square triangle no, c3 circle triangle no",
            "the count is 1",
        ),
    ),
    (
        ("sum", ("circle",)),
        "10",
        (
            "find circle",
            "row a: a1 circle circle 2 makes 2, a2 square circle no, a3 star circle no",
            "row b: b1 circle circle 4 makes 6, b2 circle circle 3 makes 9, b3 triangle circle no",
            "row c: c1 star circle no, c2 square circle no, c3 circle circle 1 makes 10",
            "the sum is 10",
        ),
    ),
    (
        ("sum", ("blue",)),
        "11",
        (
            "find blue",
            "row a: a1 red blue no, a2 blue blue 5 makes 5, a3 red blue no",
            "row b: b1 green blue no, b2 red blue no, b3 yellow blue no",
            "row c: c1 blue blue 5 makes 10, c2 purple blue no, c3 blue blue 1 makes 11",
            "the sum is 11",
        ),
    ),
    (
        ("largest", ("shape", "c")),
        "star",
        (
            "find shape of largest in row c",
            "row c: c1 5 best c1, c2 2 best c1, c3 1 best c1",
            "c1 is blue star 5",
            "the shape is star",
        ),
    ),
    (
        ("largest", ("colour", "a")),
        "blue",
        (
            "find colour of largest in row a",
            "row a: a1 2 best a1, a2 5 best a2, a3 1 best a2",
            "a2 is blue square 5",
            "the colour is blue",
        ),
    ),
    (
        ("column", ("1",)),
        "11",
        (
            "find column 1",
            "a1 red circle 2 makes 2",
            "b1 green circle 4 makes 6",
            "c1 blue star 5 makes 11",
            "the sum is 11",
        ),
    ),
    (
        ("compare", ("square", "circle")),
        "circle",
        (
            "find square and circle",
            "row a: a1 circle square 0 circle 1, a2 square square 1 circle 1, a3 star square 1 circle 1",
            "row b: b1 circle square 1 circle 2, b2 circle square 1 circle 3, b3 triangle square 1 circle 3",
            "row c: c1 star square 1 circle 3, c2 square square 2 circle 3, c3 circle square 2 circle 4",
            "circle 4 is more than square 2",
        ),
    ),
    (
        ("compare", ("red", "green")),
        "red",
        (
            "find red and green",
            "row a: a1 red red 1 green 0, a2 blue red 1 green 0, a3 red red 2 green 0",
            "row b: b1 green red 2 green 1, b2 red red 3 green 1, b3 yellow red 3 green 1",
            "row c: c1 blue red 3 green 1, c2 purple red 3 green 1, c3 blue red 3 green 1",
            "red 3 is more than green 1",
        ),
    ),
    (
        ("neighbour", ("shape", "left of", "yellow", "triangle")),
        "circle",
        (
            "find shape left of yellow triangle",
            "yellow triangle is b3",
            "left of b3 is b2 red circle 3",
            "the shape is circle",
        ),
    ),
    (
        ("neighbour", ("number", "above", "blue", "circle")),
        "3",
        ("find number above blue circle", "blue circle is c3", "above c3 is b3 yellow triangle 3", "the number is 3"),
    ),
    (
        ("neighbour", ("colour", "right of", "purple", "square")),
        "blue",
        (
            "find colour right of purple square",
            "purple square is c2",
            "right of c2 is c3 blue circle 1",
            "the colour is blue",
        ),
    ),
    (
        ("neighbour", ("colour", "below", "green", "circle")),
        "blue",
        ("find colour below green circle", "green circle is b1", "below b1 is c1 blue star 5", "the colour is blue"),
    ),
    (
        ("neighbour", ("colour", "below", "blue", "circle")),
        "none",
        ("find colour below blue circle", "blue circle is c3", "nothing is there"),
    ),
    (
        ("neighbour", ("colour", "below", "green", "star")),
        "none",
        ("find colour below green star", "no green star is there"),
    ),
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
    """Whole items where they are cited whole; else the word that follows a cell's name is true of that cell."""
    random_source = random.Random(f"cited/{kind}")
    for _ in range(60):
        scene = draw_scene(random_source, layout=(3, 3), split="train")
        question = draw_question(random_source, scene, kind)
        if question is None:
            continue
        text = "; ".join(solve(question, scene).steps)
        colours = "red|blue|green|yellow|purple"
        cited = re.findall(rf"([a-d]\d) (?:is )?((?:{colours}) (?:circle|square|triangle|star) \d)", text)
        placed = {f"{'abcd'[index // 3]}{index % 3 + 1}": str(item) for index, item in enumerate(scene.items)}
        assert set(cited) <= set(placed.items())
        assert cited or kind in ("compare", "count", "sum")
        mentioned = re.findall(r"([a-d]\d) (?:is (?![a-d]\d))?(?!is )(\w+)", text)
        assert mentioned
        assert all(word in placed[name].split() for name, word in mentioned)


def remarks_of(scene: Scene, steps: tuple[str, ...], rows: str) -> list[tuple[list[str], list[str]]]:
    """Each cell of `rows` with the words remarked on it, where `steps` take exactly these rows, whole and in order."""
    grid, pairs = Grid(scene), []
    assert len(steps) == len(rows)
    for row, step in zip(rows, steps, strict=True):
        assert step.startswith(f"row {row}: ")
        remarks = [remark.split() for remark in step.removeprefix(f"row {row}: ").split(", ")]
        assert [name for name, *_ in remarks] == [f"{row}{column}" for column in range(1, grid.width + 1)]
        pairs += [(grid.cell(row, name[1]), words) for name, *words in remarks]
    return pairs


@pytest.mark.parametrize("kind", ["count", "sum", "compare", "largest"])
def test_scans_pass_every_cell_and_carry_the_result_so_far(kind: str) -> None:
    """The result behind each cell is recomputed from the cells up to there."""
    random_source = random.Random(f"scan/{kind}")
    num_questions = 0
    while num_questions < 100:
        layout = random_source.choice([(3, 3), (2, 4), (3, 4), (4, 3), (2, 3), (3, 2)])
        scene = draw_scene(random_source, layout=layout, split="train")
        question = draw_question(random_source, scene, kind)
        if question is None:
            continue
        num_questions += 1
        solution = solve(question, scene)
        restated, *scan = solution.steps
        assert restated.startswith("find ")
        if kind == "largest":
            assert scan.pop() == f"the {question.arguments[0]} is {solution.answer}"
        last = scan.pop()
        all_rows = "abcd"[: scene.rows]
        pairs = remarks_of(scene, tuple(scan), question.arguments[1] if kind == "largest" else all_rows)
        place = 0 if question.arguments[0] in ("red", "blue", "green", "yellow", "purple") else 1
        for index, (cell, words) in enumerate(pairs):
            so_far = [cell for cell, _ in pairs[: index + 1]]
            matching = [[cell for cell in so_far if cell[place] == word] for word in question.arguments]
            if kind == "largest":
                best = max(range(index + 1), key=lambda other: int(so_far[other][2]))
                assert words == [cell[2], "best", f"{question.arguments[1]}{best + 1}"]
            elif kind == "compare":
                counts = [str(len(cells)) for cells in matching]
                assert words == [cell[place], *itertools.chain(*zip(question.arguments, counts, strict=True))]
            elif cell not in matching[0]:
                assert words == [cell[place], question.arguments[0], "no"]
            elif kind == "count":
                assert words == [cell[place], cell[place], "makes", str(len(matching[0]))]
            else:
                total = str(sum(int(cell[2]) for cell in matching[0]))
                assert words == [cell[place], cell[place], cell[2], "makes", total]
        cells = [cell for cell, _ in pairs]
        if kind == "compare":
            (few, less), (many, more) = sorted(
                (sum(cell[place] == word for cell in cells), word) for word in question.arguments
            )
            assert last == f"{more} {many} is more than {less} {few}"
        elif kind == "largest":
            best = max(range(len(cells)), key=lambda other: int(cells[other][2]))
            assert last == f"{question.arguments[1]}{best + 1} is {' '.join(cells[best])}"
        else:
            assert solution.answer == next((words[-1] for _, words in reversed(pairs) if "makes" in words), "0")
            assert last == f"the {kind} is {solution.answer}"


VAGUE = decode_scene("1x3:red circle ?,some circle 2,red thing 4")


@pytest.mark.parametrize(
    ("asked", "answer", "steps"),
    [
        (
            ("sum", ("circle",)),
            "2",
            (
                "find circle",
                "row a: a1 circle circle ? makes 0, a2 circle circle 2 makes 2, a3 thing circle no",
                "the sum is 2",
            ),
        ),
        (
            ("count", ("red",)),
            "2",
            ("find red", "row a: a1 red red makes 1, a2 some red no, a3 red red makes 2", "the count is 2"),
        ),
        (
            ("largest", ("shape", "a")),
            "thing",
            (
                "find shape of largest in row a",
                "row a: a1 ? best a1, a2 2 best a2, a3 4 best a3",
                "a3 is red thing 4",
                "the shape is thing",
            ),
        ),
        (
            ("compare", ("star", "circle")),
            "circle",
            (
                "find star and circle",
                "row a: a1 circle star 0 circle 1, a2 circle star 0 circle 2, a3 thing star 0 circle 2",
                "circle 2 is more than star 0",
            ),
        ),
        (("lookup", ("number", "a1")), "?", ("find number at a1", "a1 is red circle ?", "the number is ?")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_vague_items_count_as_nothing(asked: tuple, answer: str, steps: tuple[str, ...]) -> None:
    solution = solve(Question(*asked, text=""), VAGUE)
    assert (solution.answer, solution.steps) == (answer, steps)


def test_the_first_of_equal_numbers_is_the_best() -> None:
    """As a misperceived row can have it; a question is not asked of such a scene."""
    described = decode_scene("1x4:red circle 2,blue square 4,green star 4,red star 3")
    solution = solve(Question("largest", ("colour", "a"), ""), described)
    assert solution.answer == "blue"
    assert solution.steps[1:3] == (
        "row a: a1 2 best a1, a2 4 best a2, a3 4 best a2, a4 3 best a2",
        "a2 is blue square 4",
    )
