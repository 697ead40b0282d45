"""Scenes: a grid of coloured shapes, each carrying a number."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

COLOURS = ("red", "blue", "green", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "star")
NUMBERS = (1, 2, 3, 4, 5)
ROW_NAMES = "abcd"

Split = Literal["train", "curated", "rollout", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "curated", "rollout", "dev", "test")
_SPLIT_BOUNDS: dict[Split, tuple[int, int]] = {
    "train": (0, 60),
    "curated": (60, 70),
    "rollout": (70, 85),
    "dev": (85, 90),
    "test": (90, 100),
}
"""Hundredths of the space of scenes that each split owns."""


@dataclass(frozen=True, slots=True)
class Item:
    """One cell. Vague words may stand in for an attribute in a description (see `oracle.perceive`)."""

    colour: str
    shape: str
    number: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape} {self.number}"


@dataclass(frozen=True, slots=True)
class Scene:
    """`rows` × `columns` items in reading order."""

    rows: int
    columns: int
    items: tuple[Item, ...]

    def at(self, row: int, column: int) -> Item:
        """The item at 1-based `row` and `column`."""
        return self.items[(row - 1) * self.columns + column - 1]

    def name(self, row: int, column: int) -> str:
        """What the cell is called in questions and descriptions: a1 is in the first row and column."""
        return f"{ROW_NAMES[row - 1]}{column}"

    def cells(self, row: int) -> list[tuple[str, Item]]:
        """Names and items of a row, from left to right."""
        return [(self.name(row, column), self.at(row, column)) for column in range(1, self.columns + 1)]

    def named_items(self) -> list[tuple[str, Item]]:
        """All names and items in reading order."""
        return [cell for row in range(1, self.rows + 1) for cell in self.cells(row)]

    def encode(self) -> str:
        """The scene as one line, from which `decode_scene` makes it again."""
        return f"{self.rows}x{self.columns}:" + ",".join(str(item) for item in self.items)


def decode_scene(text: str) -> Scene:
    layout, items = text.split(":")
    rows, columns = layout.split("x")
    return Scene(int(rows), int(columns), tuple(Item(*item.split(" ")) for item in items.split(",")))


def split_of(scene: Scene) -> Split:
    """The one split that may hold this scene: decided by its content, so no two splits share one."""
    digest = hashlib.blake2b(scene.encode().encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % 100
    return next(split for split, (low, high) in _SPLIT_BOUNDS.items() if low <= bucket < high)


def draw_scene(random_source: random.Random, *, layout: tuple[int, int], split: Split) -> Scene:
    """A random scene that belongs to `split`. Colours come in clusters, so that counts vary."""
    rows, columns = layout
    while True:
        weights = [random_source.expovariate(1.0) + 0.25 for _ in COLOURS]
        items = tuple(
            Item(
                random_source.choices(COLOURS, weights)[0],
                random_source.choice(SHAPES),
                str(random_source.choice(NUMBERS)),
            )
            for _ in range(rows * columns)
        )
        scene = Scene(rows, columns, items)
        if split_of(scene) == split:
            return scene
