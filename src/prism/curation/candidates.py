"""Pairs of rows that may be the same problem, found without comparing each with each (locality-sensitive hashing).

Everything is held in arrays of under half a kilobyte a row: a million rows take as many hundred megabytes.
"""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt64

from prism.curation.fingerprints import Fingerprint
from prism.data.image_likeness import THUMBNAIL, could_be_copies
from prism.data.question_likeness import NUM_BANDS, Words, ask_the_same, minhash_bands

MIN_LIKENESS = 0.85
"""Cosine of two thumbnails, less the mean thumbnail. Copies have 0.9 and more."""

NUM_IMAGE_BANDS, BITS = 20, 12
"""Sides of random planes on which a thumbnail lies (Charikar, 2002). Copies with a cosine of 0.96 agree in a band with
probability 0.9995, unrelated ones with 0.005."""

MAX_COMPARED = 500
"""Rows without images that agree in a band are compared with as many of those before them."""

_BLOCK = 1024
_LEAST_LENGTH = 30.0
"""Of a thumbnail less the mean; encoding and resizing change it by about 10."""

_PLANES = (
    np.random.default_rng(0xCAFE).standard_normal((3 * THUMBNAIL**2 + 1, NUM_IMAGE_BANDS * BITS)).astype(np.float32)
)
_WEIGHTS = (1 << np.arange(BITS)).astype(np.uint16)
_MIX = np.uint64(0x9E3779B97F4A7C15)

Pair = tuple[int, int]


class Collection:
    """The fingerprints of all rows, by their position."""

    def __init__(self, fingerprints: Iterable[Fingerprint | None]) -> None:
        """None stands for a row that is compared with none."""
        words, ends, groups, thumbnails = array("I"), array("q", [0]), array("Q"), bytearray()
        with_image, without = array("q"), array("q")
        for position, fingerprint in enumerate(fingerprints):
            if fingerprint is not None:
                words.frombytes(fingerprint.words.tobytes())
                (without if fingerprint.thumbnail is None else with_image).append(position)
                thumbnails += b"" if fingerprint.thumbnail is None else fingerprint.thumbnail.tobytes()
            groups.append(0 if fingerprint is None else fingerprint.group)
            ends.append(len(words))
        self._words, self._ends = np.asarray(words, np.uint32), np.asarray(ends, np.int64)
        self._groups = np.asarray(groups, np.uint64)
        self._with_image, self._without = np.asarray(with_image, np.int64), np.asarray(without, np.int64)
        self._thumbnails = np.frombuffer(bytes(thumbnails), np.uint8).reshape(-1, 3 * THUMBNAIL**2)
        self._center = mean_of(self._thumbnails)

    def pairs(self) -> list[Pair]:
        """Rows whose questions ask the same and whose first images are much alike, the earlier row first; sorted."""
        found: set[Pair] = set()
        for bands, rows, alike in (
            (self._image_bands, self._with_image, self._alike_images),
            (self._word_bands, self._without, _all_of),
        ):
            for keys in bands():
                for run in _runs(keys):
                    if len(run) == 2 and (int(rows[run[0]]), int(rows[run[1]])) in found:
                        continue
                    for a, b in alike(run):
                        pair = int(rows[a]), int(rows[b])
                        if pair not in found and ask_the_same(self.words(pair[0]), self.words(pair[1])):
                            found.add(pair)
        return sorted(found)

    def words(self, position: int) -> Words:
        return self._words[self._ends[position] : self._ends[position + 1]]

    def _image_bands(self) -> Iterator[UInt64[np.ndarray, "row"]]:
        groups = self._groups[self._with_image] * _MIX
        sides = np.empty((len(self._thumbnails), NUM_IMAGE_BANDS), np.uint16)
        for start in range(0, len(sides), _BLOCK):
            directions = directions_of(self._thumbnails[start : start + _BLOCK], self._center)
            sides[start : start + _BLOCK] = (directions @ _PLANES > 0).reshape(-1, NUM_IMAGE_BANDS, BITS) @ _WEIGHTS
        for band in range(NUM_IMAGE_BANDS):
            yield groups + sides[:, band]

    def _word_bands(self) -> Iterator[UInt64[np.ndarray, "row"]]:
        signatures = np.empty((len(self._without), NUM_BANDS), np.uint64)
        for number, position in enumerate(self._without):
            signatures[number] = minhash_bands(self.words(position))
        groups = self._groups[self._without] * _MIX
        for band in range(NUM_BANDS):
            yield groups + signatures[:, band]

    def _alike_images(self, run: Int[np.ndarray, "row"]) -> Iterator[Pair]:
        thumbnails = self._thumbnails[run]
        directions = directions_of(thumbnails, self._center)
        for start in range(0, len(run), _BLOCK):
            first, second = np.nonzero(directions[start : start + _BLOCK] @ directions[start:].T >= MIN_LIKENESS)
            first, second = first[first < second] + start, second[first < second] + start
            for part in range(0, len(first), _BLOCK):
                a, b = first[part : part + _BLOCK], second[part : part + _BLOCK]
                is_alike = could_be_copies(thumbnails[a], thumbnails[b])
                yield from zip(run[a[is_alike]].tolist(), run[b[is_alike]].tolist(), strict=True)


def mean_of(thumbnails: UInt8[np.ndarray, "row 192"]) -> Float[np.ndarray, "192"]:
    return thumbnails.sum(axis=0, dtype=np.float64).astype(np.float32) / max(1, len(thumbnails))


def directions_of(
    thumbnails: UInt8[np.ndarray, "row 192"], mean: Float[np.ndarray, "192"]
) -> Float[np.ndarray, "row 193"]:
    """Of length 1: the thumbnails less the mean; those that are nearly the mean, where noise would decide, have a
    direction of their own in common."""
    centred = thumbnails.astype(np.float32) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    is_mean = lengths < _LEAST_LENGTH
    return np.hstack([np.where(is_mean, 0, centred / np.maximum(lengths, 1)), is_mean]).astype(np.float32)


def _runs(keys: UInt64[np.ndarray, "row"]) -> Iterator[Int[np.ndarray, "row"]]:
    """The places of each key that occurs more than once, in ascending order."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    starts = np.concatenate(([0], ends)) if len(keys) else ends
    stops = np.concatenate((ends, [len(keys)])) if len(keys) else ends
    for number in np.flatnonzero(stops - starts > 1):
        yield order[starts[number] : stops[number]]


def _all_of(run: Int[np.ndarray, "row"]) -> Iterator[Pair]:
    for number, b in enumerate(run):
        for a in run[max(0, number - MAX_COMPARED) : number]:
            yield int(a), int(b)
