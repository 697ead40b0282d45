"""From an encoded image to the pixels every backend sees.

`fit_to_grid` alone decides an image's final size. Its result is a fixed point of the resizing rule in
Hugging Face's and vLLM's Qwen image processors, so none of them resizes it again.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import ExifTags, Image, ImageOps

from prism.data.stored_images import read_stored
from prism.errors import DataError
from prism.records import ImageSource

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Raster formats only: other Pillow plug-ins start programs of their own, as EPS does."""

MAX_SOURCE_PIXELS = 2**26
"""Larger images (above 8192 × 8192) are refused before they are decompressed."""

MAX_SOURCE_BYTES = 2**28
"""Larger image files are refused unread."""

MAX_ASPECT_RATIO = 200

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks in which Pillow looks for an orientation."""


def describe_source(source: ImageSource) -> str:
    """How error messages name the image."""
    if source.path is not None:
        return str(source.path)
    size = len(source.data or b"") if source.stored is None else source.stored.num_bytes
    return f"embedded image of {size} bytes"


def read_bytes(source: ImageSource) -> bytes:
    """The encoded image; DataError when the file cannot be read or there is nothing in it, StorageError where rows were
    read of another version of it."""
    if source.stored is not None:
        encoded = read_stored(source.stored)
    elif source.path is None:
        encoded = source.data or b""
    else:
        try:
            with source.path.open("rb") as file:
                encoded = file.read(MAX_SOURCE_BYTES + 1)
        except OSError as error:
            raise DataError(f"{source.path}: cannot read image: {error.strerror or error}; check the path") from error
    if not encoded:
        raise DataError(f"{describe_source(source)}: image is empty; replace it or drop the row")
    if len(encoded) > MAX_SOURCE_BYTES:
        raise DataError(f"{describe_source(source)}: image has more than {MAX_SOURCE_BYTES:,} bytes; make it smaller")
    return encoded


def open_image(source: ImageSource) -> Image.Image:
    """The first frame as upright RGB: EXIF rotation applied, transparency flattened on white.

    Raises DataError for a missing, unreadable, truncated or broken image and for one of more than
    `MAX_SOURCE_PIXELS` pixels.
    """
    return _open(source)[0]


def image_size(source: ImageSource) -> tuple[int, int]:
    """Width and height of `open_image(source)` without its pixels being decoded, other than those of a TIFF.

    Raises DataError where the head is broken; what is broken behind it shows when the image is opened.
    """
    encoded = read_bytes(source)
    with _errors_of(source):
        image = _read_head(encoded)
        if image.format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM"):
            described = Image.open(BytesIO(_png_metadata(encoded))) if image.format == "PNG" else image
            is_turned = described.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return (image.height, image.width) if is_turned else image.size
    return open_image(source).size


def open_reduced(source: ImageSource, min_side: int) -> tuple[Image.Image, tuple[int, int]]:
    """As `open_image`, with the size of the whole: a JPEG is decoded at a half, a quarter or an eighth of it, as
    long as both sides keep `min_side` pixels, which is several times faster."""
    return _open(source, min_side)


def _open(source: ImageSource, min_side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    encoded = read_bytes(source)
    with _errors_of(source):
        image = _read_head(encoded)
        size = image.size
        if image.format == "PNG":  # the one format with checksums, which loading does not look at
            Image.open(BytesIO(encoded), formats=FORMATS).verify()
        if min_side is not None:
            image.draft("RGB", (min_side, min_side))
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image)), size


def _read_head(encoded: bytes) -> Image.Image:
    """The image before it is decompressed."""
    image = Image.open(BytesIO(encoded), formats=FORMATS)
    num_pixels = image.width * image.height
    if num_pixels > MAX_SOURCE_PIXELS:
        raise DataError(f"{num_pixels} pixels, more than the {MAX_SOURCE_PIXELS} allowed")
    return image


def _png_metadata(encoded: bytes) -> bytes:
    """A PNG of one pixel that says of itself what `encoded` does, also what stands there behind the pixels."""
    found, start = [], len(_PNG_START)
    while start + 12 <= len(encoded):
        end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")
        if encoded[start + 4 : start + 8] in _PNG_METADATA:
            found.append(encoded[start:end])
        start = end
    stream = BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    whole = stream.getvalue()
    behind_header = len(_PNG_START) + 25  # the header's length, kind, 13 bytes and checksum
    return b"".join([whole[:behind_header], *found, whole[behind_header:]])


@contextmanager
def _errors_of(source: ImageSource) -> Iterator[None]:
    """Whatever is raised by reading an image, as a DataError that names it."""
    try:
        yield
    # Broken bytes make Pillow's decoders raise nearly anything: SyntaxError, struct.error, KeyError, EOFError.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{describe_source(source)}: broken image: {reason}; replace it or drop the row") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16-bit values at 255, which turns most images white.
        image = image.point(lambda value: value / 257).convert("L")
    if image.mode in ("I", "F"):
        raise DataError("32-bit pixels have no defined white; convert it to 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")


def grid_size(width: int, height: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Final (width, height) of an image: multiples of `factor`, with `min_pixels` ≤ area ≤ `max_pixels`
    and the aspect ratio kept as closely as that allows.

    Raises DataError when the ratio exceeds `MAX_ASPECT_RATIO` or no such size is found.
    """
    too_narrow = f"{width}x{height} image: sides differ by more than a factor of {MAX_ASPECT_RATIO}; crop it"
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise DataError(too_narrow)
    columns, rows = round(width / factor), round(height / factor)
    area = columns * rows * factor**2
    if area > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        columns = max(1, math.floor(width / shrink / factor))
        rows = max(1, math.floor(height / shrink / factor))
    elif area < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        columns, rows = math.ceil(width * grow / factor), math.ceil(height * grow / factor)
    if not min_pixels <= columns * rows * factor**2 <= max_pixels:
        raise DataError(
            f"{width}x{height} image: no size of {factor}-pixel cells lies between min_pixels={min_pixels} and "
            f"max_pixels={max_pixels}; widen that range or crop the image"
        )
    if max(columns, rows) > MAX_ASPECT_RATIO * min(columns, rows):
        raise DataError(too_narrow)  # by rounding to whole cells; the processor would refuse the resized image
    return columns * factor, rows * factor


def fit_to_grid(image: Image.Image, *, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """`image` resized (bicubic) to `grid_size`; `factor` is patch size × merge size of the vision tower."""
    size = grid_size(image.width, image.height, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def image_hash(source: ImageSource) -> str:
    """SHA-256 of size and RGB pixels: equal for lossless re-encodings and changed metadata."""
    image = open_image(source)
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
