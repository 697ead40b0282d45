"""The same picture after every change that a copy goes through, and others that differ in one small thing."""

import random
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from labelled_copies import DISGUISES, disguise, originals
from prism.data.image_likeness import (
    MAX_DIFFERENCE,
    NUM_COLOUR_VALUES,
    directions_of,
    same_picture,
    sketch_of,
    thumbnail,
)
from prism.records import ImageSource

PROBLEMS = [problem for problem in originals(random.Random(3), 9) if problem.picture is not None]


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_copies_are_the_same_picture_and_nearly_alike_ones_are_not(number: int) -> None:
    picture = PROBLEMS[number].picture
    assert picture is not None
    for kind in DISGUISES[1:5]:
        copy = disguise(random.Random(number), PROBLEMS[number], kind).picture
        assert copy is not None
        difference = same_picture(picture, copy.convert("RGB"))
        assert difference is not None and 0 <= difference <= MAX_DIFFERENCE, kind
    for other in PROBLEMS:
        if other.picture is not None and other.picture is not picture and other.picture.size == picture.size:
            # The other question about a scene has the very same picture.
            assert (same_picture(picture, other.picture) == 0) == (other.picture.tobytes() == picture.tobytes())


def test_the_order_does_not_matter_and_tiny_images_are_compared_exactly() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    picture = Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC)
    cropped = picture.crop((2, 0, 300, 197))
    forth, back = same_picture(picture, cropped), same_picture(cropped, picture)
    assert forth is not None and back is not None and abs(forth - back) < 2
    assert same_picture(picture, picture.crop((60, 0, 300, 200))) is None
    small = [Image.new("RGB", (5, 5), colour) for colour in ("red", "red", "blue")]
    assert same_picture(small[0], small[1]) == 0 and same_picture(small[0], small[2]) is None
    assert same_picture(small[0], Image.new("RGB", (6, 6), "red")) is None


def test_a_thumbnail_hardly_depends_on_how_the_image_is_stored() -> None:
    [picture] = [problem.picture for problem in PROBLEMS if problem.picture is not None][-1:]
    small = []
    for image_format in ("PNG", "JPEG"):
        buffer = BytesIO()
        picture.save(buffer, image_format)
        pixels, size = thumbnail(ImageSource(data=buffer.getvalue()))
        assert size == picture.width * picture.height
        small.append(pixels)
    colours = [pixels[:NUM_COLOUR_VALUES].astype(int) for pixels in small]
    assert len(small[0]) == 8 * 8 * 3 + 16 * 16 and np.abs(colours[0] - colours[1]).max() <= 8
    first, second = directions_of(sketch_of(np.array(small)))
    assert first @ first == pytest.approx(1, abs=1e-5) and first @ second > 0.98


def test_a_sketch_is_the_blurred_picture_less_its_mean_and_an_empty_one_is_like_empty_ones_only() -> None:
    buffers = []
    for colour in (None, 0, 90):
        pixels = np.full((64, 64, 3), 255 if colour is None else colour, np.uint8)
        if colour is None:
            pixels[28:32, 28:32] = 245  # one pixel of the sketch, in the row and column of number 7
        buffers.append(BytesIO())
        Image.fromarray(pixels).save(buffers[-1], "PNG")
    small = np.array([thumbnail(ImageSource(data=buffer.getvalue()))[0] for buffer in buffers])
    directions = directions_of(sketch_of(small))
    expected = np.zeros((16, 16))
    expected[6:9, 6:9] = -np.outer((1, 2, 1), (1, 2, 1))
    expected -= expected.mean()
    assert directions[0, :-1] == pytest.approx(expected.reshape(-1) / np.linalg.norm(expected), abs=1e-5)
    likeness = directions @ directions.T
    assert likeness == pytest.approx(np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1]]), abs=1e-5)
