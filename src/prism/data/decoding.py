"""What decoding the images of a row told: their sizes, which are kept, or why one does not decode."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from prism.data.images import open_image
from prism.errors import DataError
from prism.records import ImageSource

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Width and height of a row's images, in order, up to the first that does not decode; `error` says why."""

    sizes: tuple[Size, ...]
    error: str | None = None


def decode(images: Iterable[ImageSource]) -> Decoded:
    sizes: list[Size] = []
    for image in images:
        try:
            sizes.append(open_image(image).size)
        except DataError as error:
            return Decoded(tuple(sizes), str(error))
    return Decoded(tuple(sizes))


Stamps = tuple[tuple[int, int] | None, ...]


def stamps_of(images: Iterable[ImageSource]) -> Stamps:
    """What tells an image file from a changed one: size and time of change. None for an image inside the data file,
    which changes with it, and for a file that is gone."""
    return tuple(_stamp(image) for image in images)


def _stamp(image: ImageSource) -> tuple[int, int] | None:
    try:
        status = None if image.path is None else image.path.stat()
    except OSError:
        status = None
    return status and (status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was found of a row's images, which had these stamps."""

    stamps: Stamps
    decoded: Decoded

    def to_json(self) -> str | None:
        """None for what is not worth keeping, and for images that do not decode, or cannot be read for now: they are
        few, and their files may be mended."""
        if not self.stamps or self.decoded.error is not None:
            return None
        return json.dumps([self.stamps, self.decoded.sizes])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError or TypeError for what `to_json` did not write."""
        stamps, sizes = json.loads(text)
        pairs = tuple(None if stamp is None else (stamp[0], stamp[1]) for stamp in stamps)
        return cls(pairs, Decoded(tuple((width, height) for width, height in sizes)))
