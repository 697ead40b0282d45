"""Problems of which it is known which are the same: originals that are all distinct, many of them nearly alike, and
copies of some in every disguise."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from prism.curation.rows import Row
from prism.data.world.render import render_scene
from prism.data.world.scene import COLOURS, NUMBERS, SHAPES, Item, Scene, draw_scene
from prism.data.writers import write_verl_parquet
from prism.records import ImageSource, Prompt

Disguise = Literal["none", "encoded", "resized", "cropped", "everything", "words", "words and picture"]
DISGUISES: tuple[Disguise, ...] = ("none", "encoded", "resized", "cropped", "everything", "words", "words and picture")
_REWORDED = {
    "How many {} are there?": ("Count the {} in the picture.", "What is the number of {} shown in the image?"),
    "What is the sum of the numbers on the {}?": ("Work out the sum of the numbers that are on the {}.",),
    "How long is the side {} of the drawn polygon?": ("Find how long the polygon's side {}, as drawn, is.",),
    "Which texture does picture {} show, and what is its hue?": ("What hue and which texture does picture {} show?",),
}
_WITHOUT_PICTURE = (
    ("A train covers {} km in {} hours. What is its average speed in km per hour?",
     "What is the average speed, in km per hour, of a train that covers {} km in {} hours?"),
    ("Let f(x) = {} x - {}. Determine f(10).", "Given f(x) = {} x - {}, what is f(10)?"),
    ("Anna buys {} pens and {} rulers and pays 12 euros. One pen costs 2 euros. What does a ruler cost?",
     "One pen costs 2 euros. If Anna buys {} pens and {} rulers and pays 12 euros, how much does a ruler cost?"),
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """`reworded` ask the same as `question`."""

    question: str
    reworded: tuple[str, ...]
    answer: str
    picture: Image.Image | None


def originals(source: random.Random, count: int) -> list[Problem]:
    """At least `count` distinct problems: scenes that differ in one object, diagrams in one digit, photos."""
    problems: list[Problem] = []
    while len(problems) < count:
        problems += [*_scenes(source), *_diagrams(source), *_photos(source), *_texts(source)]
    return problems


def line_drawings(source: random.Random, count: int) -> list[Problem]:
    """Thin lines on white, all with the same question: triangles, some with letters, and loose lines."""
    problems = []
    for number in range(count):
        picture = Image.new("RGB", (448, 448), "white")
        draw = ImageDraw.Draw(picture)
        points = [(source.uniform(20, 428), source.uniform(20, 428)) for _ in range(3 if number % 3 else 10)]
        if number % 3:
            draw.line([*points, points[0]], fill="black", width=1)
        else:
            for first, second in zip(points[::2], points[1::2], strict=True):
                draw.line([first, second], fill="black", width=1)
        for letter, point in zip("ABC" if number % 3 == 2 else "", points, strict=False):
            draw.text(point, letter, fill="black", font_size=20)
        problems.append(Problem("Find x.", ("Determine x.",), "5", picture))
    return problems


def disguise(source: random.Random, problem: Problem, kind: Disguise) -> Problem:
    """A copy. Of a problem without picture the words change in its stead."""
    picture, question = problem.picture, problem.question
    has_words = kind.startswith("words") or (picture is None and kind != "none")
    if has_words:
        question = source.choice(problem.reworded)
    if picture is not None and kind not in ("none", "words"):
        changes = {"encoded": _encode, "resized": _resize, "cropped": _crop}
        chosen = [changes[kind]] if kind in changes else [_crop, _resize, _encode]
        for change in chosen:
            picture = change(source, picture)
    return replace(problem, question=question, picture=picture)


def row(row_id: str, problem: Problem, *, image_format: str = "PNG") -> Row:
    images = () if problem.picture is None else (ImageSource(data=_bytes(problem.picture, image_format)),)
    return Row(f"made/{row_id}", Prompt(row_id, problem.question, images, problem.answer))


def rows_to_remove(directory: Path) -> list[Row]:
    """Demonstrations that do not hold, items of an evaluation set, and copies; `directory` gets the set and the recipe
    `verify.toml` that names it."""
    source = random.Random(3)
    problems = originals(source, 90)
    problems += [disguise(source, problem, "everything") for problem in problems[:20]]
    rows = [row(str(number), problem) for number, problem in enumerate(problems)]
    write_verl_parquet(directory / "held.parquet", (each.prompt for each in rows[20:30]))
    (directory / "verify.toml").write_text('against = [{ name = "held", path = "held.parquet" }]')
    wrong = "<caption>a, b</caption><think>1. c</think><answer>none of these</answer>"
    return [replace(each, completion=wrong) if number % 7 == 0 else each for number, each in enumerate(rows)]


def _scenes(source: random.Random) -> Iterator[Problem]:
    """A scene, it again with one object changed, and other questions about the first."""
    scene = draw_scene(source, layout=source.choice(((2, 2), (2, 3), (3, 3))), split="train")
    place, item = source.choice(list(enumerate(scene.items)))
    changed = replace(scene, items=(*scene.items[:place], _change(source, item), *scene.items[place + 1 :]))
    # Both drawn alike: what differs is that object alone.
    seed, words = source.random(), source.sample([*(f"{c} objects" for c in COLOURS), *(f"{s}s" for s in SHAPES)], 2)
    pictures = [_render(each, seed) for each in (scene, changed)]
    if source.random() < 0.5:
        pictures = [picture.resize((448, 448), Image.Resampling.BICUBIC) for picture in pictures]
    for number, (word, template) in enumerate(zip(words, list(_REWORDED)[:2], strict=True)):
        for picture in pictures[: 2 - number]:
            # The same answer everywhere, so that only question and picture tell the problems apart.
            yield _problem(template, word, "2", picture)


def _change(source: random.Random, item: Item) -> Item:
    name, values = source.choice((("colour", COLOURS), ("shape", SHAPES), ("number", tuple(map(str, NUMBERS)))))
    return replace(item, **{name: source.choice([value for value in values if value != getattr(item, name)])})


def _diagrams(source: random.Random) -> Iterator[Problem]:
    """A polygon twice, with another digit at one side."""
    points = [(source.uniform(40, 400), source.uniform(40, 400)) for _ in range(source.choice((3, 4)))]
    for digit in source.sample("23456789", 2):
        picture = Image.new("RGB", (448, 448), "white")
        draw = ImageDraw.Draw(picture)
        draw.line([*points, points[0]], fill="black", width=2)
        for letter, point in zip("ABCD", points, strict=False):
            draw.text((point[0] + 4, point[1] + 4), letter, fill="black", font_size=20)
        middle = ((points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2)
        draw.text(middle, digit, fill="black", font_size=20)
        yield _problem("How long is the side {} of the drawn polygon?", "AB", "5", picture)


def _photos(source: random.Random) -> Iterator[Problem]:
    """Random blots from coarse to fine."""
    noise = np.random.default_rng(source.getrandbits(32))
    size = source.choice((320, 448))
    blots = np.zeros((size, size, 3), np.float32)
    for number in (2, 4, 8, 16, 32, 128):
        coarse = Image.fromarray(noise.integers(0, 256, (number, number, 3), np.uint8))
        blots += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32) / number**0.7
    blots = (blots - blots.min()) * 255 / np.ptp(blots)
    question = "Which texture does picture {} show, and what is its hue?"
    yield _problem(question, "1", "blots", Image.fromarray(blots.astype(np.uint8)))


def _texts(source: random.Random) -> Iterator[Problem]:
    """One problem with two sets of numbers."""
    question, reworded = source.choice(_WITHOUT_PICTURE)
    for _ in range(2):
        numbers = source.randint(2, 10**4), source.randint(2, 10**4)
        yield Problem(question.format(*numbers), (reworded.format(*numbers),), "7", None)


def _problem(template: str, word: str, answer: str, picture: Image.Image) -> Problem:
    reworded = tuple(text.format(word) for text in _REWORDED[template])
    return Problem(template.format(word), reworded, answer, picture)


def _render(scene: Scene, seed: float) -> Image.Image:
    return Image.open(io.BytesIO(render_scene(scene, random.Random(seed)))).convert("RGB")


def _encode(source: random.Random, picture: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(_bytes(picture, source.choice(("JPEG", "WEBP")), source.choice((60, 75, 90)))))


def _resize(source: random.Random, picture: Image.Image) -> Image.Image:
    factor = source.choice((0.6, 0.75, 1.3, 2.0))
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.convert("RGB").resize(size, source.choice(filters))


def _crop(source: random.Random, picture: Image.Image) -> Image.Image:
    """By up to 2% at each edge, by one pixel at least."""
    most = max(1, round(0.02 * min(picture.size)))
    left, top, right, bottom = (source.randint(0, most) for _ in range(4))
    return picture.crop((max(1, left), top, picture.width - right, picture.height - bottom))


def _bytes(picture: Image.Image, image_format: str, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, image_format, quality=quality)
    return buffer.getvalue()
