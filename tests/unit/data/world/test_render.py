"""Pictures show every attribute of every cell, each in its own place."""

import dataclasses
import io
import random

import numpy as np
import pytest
from PIL import Image

from prism.data.world.render import CELL, render_scene
from prism.data.world.scene import COLOURS, NUMBERS, SHAPES, Item, Scene, draw_scene

JITTER = 1


def pixels(scene: Scene, seed: int = 0) -> np.ndarray:
    image = Image.open(io.BytesIO(render_scene(scene, random.Random(seed))))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def changed(scene: Scene, index: int, item: Item) -> Scene:
    return dataclasses.replace(scene, items=(*scene.items[:index], item, *scene.items[index + 1 :]))


@pytest.mark.parametrize("layout", [(3, 3), (2, 4), (4, 3), (1, 1)])
def test_size_is_32_pixels_a_cell(layout: tuple[int, int]) -> None:
    scene = draw_scene(random.Random(1), layout=layout, split="train")
    assert CELL == 32
    assert pixels(scene).shape == (layout[0] * 32, layout[1] * 32, 3)


@pytest.mark.parametrize("index", range(8))
def test_every_attribute_of_every_cell_shows_in_its_cell_alone(index: int) -> None:
    scene = draw_scene(random.Random(2), layout=(2, 4), split="train")
    before = pixels(scene)
    item = scene.items[index]
    for attribute, values in (("colour", COLOURS), ("shape", SHAPES), ("number", tuple(map(str, NUMBERS)))):
        for value in values:
            after = pixels(changed(scene, index, dataclasses.replace(item, **{attribute: value})))
            rows, columns = np.nonzero(np.abs(after - before).sum(-1))
            assert (len(rows) == 0) == (value == getattr(item, attribute))
            if len(rows):
                top, left = index // 4 * 32, index % 4 * 32
                assert top - JITTER <= rows.min() and rows.max() < top + 32 + JITTER
                assert left - JITTER <= columns.min() and columns.max() < left + 32 + JITTER


def test_all_hundred_items_look_different() -> None:
    """With the same places and shades: no two of the items a cell can hold are drawn alike."""
    pictures = {
        pixels(Scene(1, 1, (Item(colour, shape, str(number)),))).tobytes()
        for colour in COLOURS
        for shape in SHAPES
        for number in NUMBERS
    }
    assert len(pictures) == 100


def test_a_shade_never_reaches_another_colour() -> None:
    """The body of a square, over many shades, is nearest to the mean of its own colour."""
    samples = {
        colour: np.stack([pixels(Scene(1, 1, (Item(colour, "square", "1"),)), seed)[8, 8] for seed in range(40)])
        for colour in COLOURS
    }
    means = np.stack([samples[colour].mean(0) for colour in COLOURS])
    for index, colour in enumerate(COLOURS):
        distances = np.linalg.norm(samples[colour][:, None] - means, axis=-1)
        assert (distances.argmin(1) == index).all()


def test_pictures_follow_from_the_seed() -> None:
    scene = draw_scene(random.Random(3), layout=(3, 3), split="train")
    assert render_scene(scene, random.Random(1)) == render_scene(scene, random.Random(1))
    assert render_scene(scene, random.Random(1)) != render_scene(scene, random.Random(2))
