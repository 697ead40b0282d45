"""Draws a scene as a PNG: one 32-pixel cell per item, a coloured shape and its number as pips."""

import io
import random

from PIL import Image, ImageDraw

from prism.data.world.scene import Item, Scene

CELL = 32
_PALETTE = {
    "red": (214, 48, 49),
    "blue": (45, 100, 210),
    "green": (46, 160, 67),
    "yellow": (240, 200, 40),
    "purple": (142, 68, 173),
}
_INK = (20, 20, 20)
_LINE = 2
_PIPS = {
    1: ((1, 1),),
    2: ((0, 0), (2, 2)),
    3: ((0, 0), (1, 1), (2, 2)),
    4: ((0, 0), (2, 0), (0, 2), (2, 2)),
    5: ((0, 0), (2, 0), (1, 1), (0, 2), (2, 2)),
}
"""Columns and rows of a die's pips."""


def render_scene(scene: Scene, random_source: random.Random) -> bytes:
    """PNG bytes of `scene`; positions and shades vary with `random_source`."""
    paper = random_source.randint(232, 255)
    image = Image.new("RGB", (scene.columns * CELL, scene.rows * CELL), (paper, paper, paper))
    draw = ImageDraw.Draw(image)
    for index, item in enumerate(scene.items):
        left = index % scene.columns * CELL + random_source.randint(-1, 1)
        top = index // scene.columns * CELL + random_source.randint(-1, 1)
        _draw_item(draw, item, left, top, random_source)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _draw_item(draw: ImageDraw.ImageDraw, item: Item, left: int, top: int, random_source: random.Random) -> None:
    shade = random_source.uniform(0.92, 1.08)
    red, green, blue = (min(255, round(channel * shade)) for channel in _PALETTE[item.colour])
    colour = (red, green, blue)
    # The number has the lower right corner to itself, as big as a patch of the tiny model.
    x0, y0, x1, y1 = left + 2, top + 2, left + CELL - 9, top + CELL - 9
    middle = (x0 + x1) / 2
    if item.shape == "circle":
        draw.ellipse((x0, y0, x1, y1), fill=colour, outline=_INK, width=_LINE)
    elif item.shape == "square":
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), fill=colour, outline=_INK, width=_LINE)
    elif item.shape == "triangle":
        draw.polygon([(middle, y0), (x1, y1), (x0, y1)], fill=colour, outline=_INK, width=_LINE)
    else:
        draw.polygon(_star(middle, (y0 + y1) / 2, (x1 - x0) / 2), fill=colour, outline=_INK, width=_LINE)
    _draw_pips(draw, left + CELL // 2 + 3, top + CELL // 2 + 3, int(item.number))


def _draw_pips(draw: ImageDraw.ImageDraw, left: int, top: int, number: int) -> None:
    """The number as on a die: a white face of 12 pixels with black pips."""
    draw.rectangle((left - 1, top - 1, left + 11, top + 11), fill=(255, 255, 255))
    for column, row in _PIPS[number]:
        x, y = left + 4 * column, top + 4 * row
        draw.rectangle((x, y, x + 2, y + 2), fill=_INK)


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Four long points and four short ones: told from the other shapes by its corners."""
    points = [(0, -1), (0.4, -0.4), (1, 0), (0.4, 0.4), (0, 1), (-0.4, 0.4), (-1, 0), (-0.4, -0.4)]
    return [(x + dx * radius, y + dy * radius) for dx, dy in points]
