"""Pictures of the built-in world for prompts in tests."""

import random

from prism.data.world.render import render_scene
from prism.data.world.scene import draw_scene
from prism.records import ImageSource


def picture(rows: int, columns: int, seed: int) -> ImageSource:
    source = random.Random(seed)
    return ImageSource(data=render_scene(draw_scene(source, layout=(rows, columns), split="train"), source))
