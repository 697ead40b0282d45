"""What is kept of a row to tell whether another is the same problem: hashes of its words, a thumbnail, its answer."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from prism.data.image_likeness import MAX_SIDE, NUM_COLOUR_VALUES, SKETCH_BYTES, same_picture, thumbnail
from prism.data.images import open_reduced
from prism.data.question_likeness import Words, hash_of, question_words, telling_hash
from prism.data.questions import without_choices
from prism.errors import DataError
from prism.records import ImageSource, Prompt

_IMAGES_IN_HAND = 64
_LONGEST_ANSWER = 2000

_MOST_PIXELS = (1 << 62) - 1
NUM_THUMBNAIL_VALUES = NUM_COLOUR_VALUES + SKETCH_BYTES
Thumbnail = UInt8[np.ndarray, "448"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`images` are names below the image folder, `thumbnail` that of the first, `num_pixels` those of all."""

    words: Words
    choices: int
    images: tuple[str, ...]
    thumbnail: Thumbnail | None
    num_pixels: int
    answer: str
    has_demonstration: bool

    @property
    def group(self) -> int:
        """Equal, within 64 bits, for all rows that could be the same problem as this one."""
        key = f"{telling_hash(self.words)} {self.choices} {len(self.images)}"
        return _hash64(key.encode())

    @property
    def identity(self) -> int:
        """Equal, within 64 bits, for all rows that have the same words, options and image files."""
        return _hash64(f"{self.choices} {' '.join(self.images)} ".encode() + self.words.tobytes())

    @property
    def merit(self) -> int:
        """In 64 bits, the greater the better: with an answer, with a demonstration, with more pixels."""
        return bool(self.answer) << 63 | self.has_demonstration << 62 | min(self.num_pixels, _MOST_PIXELS)

    def to_json(self) -> dict[str, Any]:
        values = {
            "words": base64.b64encode(self.words.tobytes()).decode(),
            "choices": self.choices,
            "images": self.images,
            "thumbnail": None if self.thumbnail is None else base64.b64encode(self.thumbnail.tobytes()).decode(),
            "num_pixels": self.num_pixels,
            "answer": self.answer,
            "has_demonstration": self.has_demonstration,
        }
        return {key: value for key, value in values.items() if value not in (None, "", 0, False, ())}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Fingerprint":
        small = values.get("thumbnail")
        return cls(
            words=np.frombuffer(base64.b64decode(values.get("words", "")), np.uint32),
            choices=values.get("choices", 0),
            images=tuple(values.get("images", ())),
            thumbnail=None if small is None else np.frombuffer(base64.b64decode(small), np.uint8),
            num_pixels=values.get("num_pixels", 0),
            answer=values.get("answer", ""),
            has_demonstration=values.get("has_demonstration", False),
        )


def take_fingerprint(prompt: Prompt, *, has_demonstration: bool = False) -> Fingerprint:
    """Of a prompt whose images are files, as those of a store are. Raises DataError for an image it cannot read."""
    names = tuple(image_name(image) for image in prompt.images)
    seen = [thumbnail_of(image) for image in prompt.images]
    choices = sorted(" ".join(choice.casefold().split()) for choice in prompt.choices)
    return Fingerprint(
        words=question_words(without_choices(prompt.question, prompt.choices)),
        choices=hash_of("\x1f".join(choices).encode()) if choices else 0,
        images=names,
        thumbnail=seen[0][0] if seen else None,
        num_pixels=sum(num_pixels for _, num_pixels in seen),
        answer=_answer(prompt)[:_LONGEST_ANSWER],
        has_demonstration=has_demonstration,
    )


class Pictures:
    """Compares images of a folder, some of which are kept in memory. For several threads."""

    def __init__(self, *roots: Path) -> None:
        """A name is looked for in each of `roots`."""
        self._roots = roots
        self._open = lru_cache(maxsize=_IMAGES_IN_HAND)(self._read)

    def __reduce__(self) -> tuple[type["Pictures"], tuple[Path, ...]]:
        """For a process elsewhere: without the images in memory, and whatever its working directory."""
        return Pictures, tuple(root.absolute() for root in self._roots)

    def largest_difference(self, first: tuple[str, ...], second: tuple[str, ...]) -> float | None:
        """Of the pairs of images, in order, 0 to `MAX_DIFFERENCE`; None if they are not the same pictures."""
        if len(first) != len(second):
            return None
        largest = 0.0
        for a, b in zip(first, second, strict=True):
            difference = 0.0 if a == b else same_picture(self._open(a), self._open(b))
            if difference is None:
                return None
            largest = max(largest, difference)
        return largest

    def _read(self, name: str) -> Image.Image:
        path = next((root / name for root in self._roots if (root / name).exists()), self._roots[0] / name)
        return open_reduced(ImageSource(path=path), MAX_SIDE)[0]


def image_name(image: ImageSource) -> str:
    """Below the image folder."""
    if image.path is None:
        raise DataError("an image of a row in hand is no file; put the row into a store first")
    return f"{image.path.parent.name}/{image.path.name}"


@lru_cache(maxsize=_IMAGES_IN_HAND)
def thumbnail_of(image: ImageSource) -> tuple[Thumbnail, int]:
    """See `prism.data.image_likeness.thumbnail`; the rows of one image often follow one another."""
    return thumbnail(image)


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _answer(prompt: Prompt) -> str:
    """The option's text where the answer is its letter: options may come in another order elsewhere."""
    letter = prompt.answer.strip(" ().").upper()
    if len(letter) == 1 and prompt.choices and 0 <= (number := ord(letter) - ord("A")) < len(prompt.choices):
        return prompt.choices[number]
    return prompt.answer
