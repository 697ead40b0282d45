"""Whether two images are the same picture: encoded anew, resized, or cropped by a few pixels.

A perceptual hash alone cannot say so here. Pictures of one kind (charts, diagrams, rendered scenes) have nearly the
same hash and differ in one small thing, which is what the question is about. So thumbnails only find the pairs worth a
look; these are then aligned and compared point by point.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8
from PIL import Image, ImageFilter

from prism.data.images import open_reduced
from prism.records import ImageSource

COLOURS, SKETCH = 8, 16
"""Pixels a side of a thumbnail's two parts. A crop by 3% moves a point by a quarter of a pixel of the first."""

NUM_COLOUR_VALUES = 3 * COLOURS**2
SKETCH_BYTES = SKETCH**2

MAX_SIDE = 224
"""Pixels a side that are compared, or three quarters of what the smaller image has."""

MAX_DIFFERENCE = 20.0
"""Of 255. Nearly all copies stay below 18; a changed digit, 20 pixels high in an image of 448, 26 to 60."""

_MAX_OUTSIDE = 6
"""Of a thumbnail's 192 colour values may differ by more than a crop explains: where the picture is finest."""

_NOISE, _MOVED = 6, 0.35
"""Of 255, and as part of the step to the next pixel: what encoding and cropping change in a thumbnail's value."""

_MAX_CROP = 0.08
"""Part of a side that may have been cut off, both edges together."""

_MIN_SIDE = 8
_SHARP = 0.75
"""Of a small image, a resampling changes what is finer."""

_STEPS = ((32, 6), (64, 3), (128, 4))
"""Pixels a side and iterations of the alignment, from coarse to fine."""

_NO_SHIFT = np.zeros(4)
_BLUR = ImageFilter.GaussianBlur(1.0)
_SETTLED = 1e-4
_LEAST_CURVATURE = 1e-4
_DECODED_SIDE = 48
"""Pixels a side that are enough for a thumbnail."""

_SMALL = 32

_LEAST_CONTRAST = 3
"""Between the darkest and the brightest of these pixels. A hairline across an image of 2,000 pixels has 4."""

Grey = Float[np.ndarray, "row column"]
Shift = Float[np.ndarray, "4"]
"""x → x + s[0]·x + s[1], y → y + s[2]·y + s[3], where a side runs from −1 to 1."""


def thumbnail(source: ImageSource) -> tuple[UInt8[np.ndarray, "448"], int]:
    """What tells the picture from most others, and the image's number of pixels. Raises DataError.

    First 8 × 8 RGB pixels, each the mean of what it covers; then a sketch: brightness in 16 × 16 pixels, stretched to
    the full contrast. In the first all drawings of thin lines are white; in the second they are as different as
    photographs.
    """
    image, size = open_reduced(source, _DECODED_SIDE)
    # By Pillow alone and in few calls: several threads do this for every image, and NumPy would hold them up.
    small = image.resize((_SMALL, _SMALL), Image.Resampling.BOX, reducing_gap=2.0)
    colours = small.resize((COLOURS, COLOURS), Image.Resampling.BOX)
    grey = small.convert("L")
    stretched = grey.tobytes().translate(_stretched(*grey.getextrema()))
    sketch = Image.frombytes("L", grey.size, stretched).resize((SKETCH, SKETCH), Image.Resampling.BOX)
    return np.frombuffer(colours.tobytes() + sketch.tobytes(), np.uint8), size[0] * size[1]


@lru_cache(maxsize=1024)
def _stretched(low: int, high: int) -> bytes:
    """For each brightness what becomes of it."""
    if high - low < _LEAST_CONTRAST:
        return bytes(256)
    return bytes(min(255, max(0, round((value - low) * 255 / (high - low)))) for value in range(256))


def _blurred() -> Float[np.ndarray, "256 256"]:
    """What makes of a sketch, from the right, one whose pixels have a quarter of both neighbours', less its mean. A
    crop moves thin lines by a part of a pixel, and only what is blurred stays alike."""
    padded = np.pad(np.eye(SKETCH), ((1, 1), (0, 0)), mode="edge")
    blur = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    both = np.kron(blur, blur).T
    return (both - both.mean(axis=1, keepdims=True)).astype(np.float32)


_BLURRED = _blurred()


def sketch_of(thumbnails: UInt8[np.ndarray, "*row 448"]) -> UInt8[np.ndarray, "*row 256"]:
    return thumbnails[..., NUM_COLOUR_VALUES:]


def directions_of(sketches: UInt8[np.ndarray, "row 256"]) -> Float[np.ndarray, "row 257"]:
    """The blurred sketches less their means, of length 1; those without any contrast have a direction of their own in
    common."""
    values = sketches.astype(np.float32) @ _BLURRED
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values))[:, None]
    return np.hstack((values / np.maximum(lengths, 1), lengths < 1)).astype(np.float32, copy=False)


def could_be_copies(
    first: UInt8[np.ndarray, "pair 448"], second: UInt8[np.ndarray, "pair 448"]
) -> Bool[np.ndarray, "pair"]:
    """Whether the colours of a pair's two thumbnails differ by no more than a copy's would. Of pictures that are nearly
    alike most fail."""
    first, second = first[:, :NUM_COLOUR_VALUES], second[:, :NUM_COLOUR_VALUES]
    steps = np.maximum(_steps(first), _steps(second))
    difference = np.abs(first.astype(np.int16) - second)
    return (difference > _NOISE + _MOVED * steps).sum(axis=1) <= _MAX_OUTSIDE


def _steps(thumbnails: UInt8[np.ndarray, "row 192"]) -> Int16[np.ndarray, "row 192"]:
    """Of each value, the largest difference from the same colour in the pixels beside, above and below."""
    values = thumbnails.reshape(-1, COLOURS, COLOURS, 3).astype(np.int16)
    steps = np.zeros_like(values)
    across, down = np.abs(np.diff(values, axis=2)), np.abs(np.diff(values, axis=1))
    for part, difference in (
        (steps[:, :, 1:], across), (steps[:, :, :-1], across), (steps[:, 1:], down), (steps[:, :-1], down),
    ):  # fmt: skip
        np.maximum(part, difference, out=part)
    return steps.reshape(thumbnails.shape)


def same_picture(first: Image.Image, second: Image.Image) -> float | None:
    """By how much the two RGB images differ where they differ most, if they are the same picture; else None.

    0 to `MAX_DIFFERENCE`, after the second is laid over the first. The order of the two does not matter.
    """
    side = min(MAX_SIDE, round(_SHARP * min(*first.size, *second.size)))
    if side < _MIN_SIDE:
        return 0.0 if first.size == second.size and first.tobytes() == second.tobytes() else None
    # Most copies are encoded anew or resized as a whole, and need no aligning.
    difference = _difference_under(_NO_SHIFT, first, second, side)
    if difference > MAX_DIFFERENCE:
        shift = _align(_shrink(first.convert("L"), side), _shrink(second.convert("L"), side))
        if shift is None:
            return None
        difference = _difference_under(shift, first, second, side)
    return difference if difference <= MAX_DIFFERENCE else None


def _align(first: Image.Image, second: Image.Image) -> Shift | None:
    """The shift under which `first` looks like `second`; None where no crop explains the difference."""
    shift = _NO_SHIFT
    for step, iterations in _STEPS:
        side = min(step, first.width)
        image, target = _shrink(first, side).filter(_BLUR), _pixels(_shrink(second, side).filter(_BLUR))
        edge = max(1, round(side * _MAX_CROP / 2))
        inner = (slice(edge, side - edge), slice(edge, side - edge))
        for _ in range(iterations):
            change = _improve(_warp(image, shift), target, inner)
            shift = shift + change
            if np.abs(shift).max() > 2 * _MAX_CROP:
                return None
            if np.abs(change).max() < _SETTLED:
                break
        if np.abs((_warp(image, shift) - target)[inner]).max() > 2 * MAX_DIFFERENCE:
            return None
        if side == first.width:
            break
    return shift


def _improve(warped: Grey, target: Grey, inner: tuple[slice, slice]) -> Shift:
    """One Gauss-Newton step of the shift that makes the grey values agree (Lucas and Kanade, 1981)."""
    n = len(target)
    by_y, by_x = (part[inner] * (n / 2) for part in np.gradient(warped))
    at = (((np.arange(n) + 0.5) * (2 / n) - 1)[inner[0]]).astype(np.float32)
    columns = np.stack([by_x * at, by_x, by_y * at[:, None], by_y]).reshape(4, -1)
    normal = (columns @ columns.T).astype(np.float64)
    normal[np.diag_indices(4)] += _LEAST_CURVATURE * columns.shape[1]
    return np.linalg.solve(normal, columns @ (target - warped)[inner].reshape(-1))


def _warp(image: Image.Image, shift: Shift) -> Grey:
    half = image.width / 2
    scale_x, move_x, scale_y, move_y = shift
    data = (1 + scale_x, 0, half * (move_x - scale_x), 0, 1 + scale_y, half * (move_y - scale_y))
    return _pixels(image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


def _overlap(scale: float, move: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """What both images have of a side: its ends in the first and in the second, from −1 to 1."""
    low, high = (min(1.0, max(-1.0, (edge - move) / (1 + scale))) for edge in (-1.0, 1.0))
    first_low, first_high = (min(1.0, max(-1.0, (1 + scale) * edge + move)) for edge in (low, high))
    return (first_low, first_high), (low, high)


def _difference_under(shift: Shift, first: Image.Image, second: Image.Image, side: int) -> float:
    """The largest: of brightness over 3 × 3 pixels, of colour over 7 × 7, for which a JPEG has fewer pixels."""
    boxes = zip(*(_overlap(*shift[i : i + 2]) for i in (0, 2)), strict=True)
    a, b = (_cut(image, x, y, side) for image, (x, y) in zip((first, second), boxes, strict=True))
    return max(
        float(np.abs(_means(_pixels(one) - _pixels(other), min(size, side))).max())
        for one, other, size in zip(a.split(), b.split(), (3, 7, 7), strict=True)
    )


def _cut(image: Image.Image, x: tuple[float, float], y: tuple[float, float], side: int) -> Image.Image:
    """Brightness and the two colours of a part of the image, resampled once from its own pixels."""
    half_width, half_height = image.width / 2, image.height / 2
    box = ((1 + x[0]) * half_width, (1 + y[0]) * half_height, (1 + x[1]) * half_width, (1 + y[1]) * half_height)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box).convert("YCbCr")


def _shrink(image: Image.Image, side: int) -> Image.Image:
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


def _pixels(image: Image.Image) -> Grey:
    return np.asarray(image, np.float32)


def _means(values: Grey, size: int) -> Grey:
    """Over all squares of `size` pixels a side."""
    for _ in range(2):  # rows, then columns
        count = len(values) - size + 1
        values = sum(values[i : i + count] for i in range(1, size)) + values[:count]
        values = values.T / size
    return values
