"""Pairs of rows that may be the same problem, found without comparing each with each (locality-sensitive hashing).

Everything is held in arrays of about half a kilobyte a row: a million rows take six hundred megabytes. Whatever the
rows are, each is compared with a bounded number of others.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int, UInt, UInt8, UInt16, UInt32, UInt64

from prism.curation.fingerprints import Fingerprint
from prism.data.image_likeness import SKETCH_BYTES, directions_of, sketch_of
from prism.data.question_likeness import BAND_SIZE, NUM_BANDS, Words, ask_the_same, bands_of, minhash

MIN_LIKENESS = 0.85
"""Cosine of two sketches. Copies have 0.95 and more, nine in ten line drawings of one kind less than 0.5."""

MIN_EQUAL_HASHES = 0.65
"""Of two MinHashes, where those of questions that share 80% of their words have 0.8 on average, give or take 0.05."""

NUM_IMAGE_BANDS, BITS = 20, 12
"""Sides of random planes on which a sketch lies (Charikar, 2002). Copies with a cosine of 0.96 agree in a band with
probability 0.32 and in one of all with 0.9996; unrelated ones, with 0.2, in a band with 0.001."""

MAX_DISTANCE = 256
"""Rows that agree in a band are sorted by the next band, and each is compared with as many of those behind it."""

MAX_LIKEST, MAX_BEST = 24, 8
"""Of the rows that may be the same as a row, the likest are looked at closely, and those that would be the first to
stay: of many copies all are then compared with the one that stays."""

_MOST_APART = 60
"""Of all planes, 240: two sketches of `MIN_LIKENESS` lie on different sides of 42, give or take 6."""

_BLOCK = 2048
_MIN_PENDING = 1 << 18
_PLANES = np.random.default_rng(0xCAFE).standard_normal((SKETCH_BYTES + 1, NUM_IMAGE_BANDS * BITS)).astype(np.float32)
_WEIGHTS = (1 << np.arange(BITS)).astype(np.uint16)
_NUM_ONES = np.array([number.bit_count() for number in range(1 << BITS)], np.uint8)
_MIX = np.uint64(0x9E3779B97F4A7C15)

Pair = tuple[int, int]
Places = Int[np.ndarray, "pair"]


class _Kind(Protocol):
    """How rows of one kind are compared; they are known by their places in it.

    Rows that may be alike agree in one of the `bands`. They are worth a look with a likeness of `least` and more.
    """

    bands: UInt[np.ndarray, "row band"]
    least: float

    def likeness(self, a: Places, b: Places) -> Float[np.ndarray, "pair"]:
        """Where it is far from `least`, less will do."""
        ...


class Collection:
    """The fingerprints of all rows, by their position.

    `best_of` is for each row the position of the best among those that are the same to the letter and to the byte:
    with an answer, with a demonstration, with most pixels, the first.
    """

    def __init__(self, fingerprints: Iterable[Fingerprint | None]) -> None:
        """None stands for a row that is compared with none."""
        words, ends, groups, sketches = array("I"), array("q", [0]), array("Q"), bytearray()
        with_image, without, identities, merits = array("q"), array("q"), array("Q"), array("Q")
        for position, fingerprint in enumerate(fingerprints):
            if fingerprint is not None:
                words.frombytes(fingerprint.words.tobytes())
                (without if fingerprint.thumbnail is None else with_image).append(position)
                sketches += b"" if fingerprint.thumbnail is None else sketch_of(fingerprint.thumbnail).tobytes()
            groups.append(0 if fingerprint is None else fingerprint.group)
            identities.append(position if fingerprint is None else fingerprint.identity)
            merits.append(0 if fingerprint is None else fingerprint.merit)
            ends.append(len(words))
        self._words, self._ends = np.asarray(words, np.uint32), np.asarray(ends, np.int64)
        self._groups = np.asarray(groups, np.uint64)
        self._with_image, self._without = np.asarray(with_image, np.int64), np.asarray(without, np.int64)
        self._sketches = np.frombuffer(sketches, np.uint8).reshape(-1, SKETCH_BYTES)
        self.best_of, self._ranks = _best_of(np.asarray(identities, np.uint64), np.asarray(merits, np.uint64))

    def pairs(self) -> list[Pair]:
        """Rows whose questions ask the same and whose first images are much alike, the earlier row first; sorted.

        Of rows that are the same to the letter and to the byte only the best is in a pair; of the others each is
        in `MAX_LIKEST` + `MAX_BEST` pairs of its own, and in those of others.
        """
        is_best = self.best_of == np.arange(len(self.best_of))
        found: list[Pair] = []
        is_chosen = is_best[self._with_image]
        found += self._pairs(self._with_image[is_chosen], _Images(self._sketches, np.flatnonzero(is_chosen)))
        rows = self._without[is_best[self._without]]
        found += self._pairs(rows, _Texts(len(rows), (self.words(row) for row in rows)))
        return sorted(found)

    def words(self, position: int) -> Words:
        return self._words[self._ends[position] : self._ends[position + 1]]

    def _pairs(self, rows: Int[np.ndarray, "row"], kind: _Kind) -> Iterator[Pair]:
        neighbours = _Neighbours(self._ranks[rows])
        groups = self._groups[rows] * _MIX
        for a, b in _agreeing(groups, kind.bands):
            likeness = kind.likeness(a, b)
            is_alike = likeness >= kind.least
            a, b, likeness = a[is_alike], b[is_alike], likeness[is_alike]
            is_same = [
                ask_the_same(self.words(first), self.words(second))
                for first, second in zip(rows[a], rows[b], strict=True)
            ]
            neighbours.add(a[is_same], b[is_same], likeness[is_same])
        for a, b in neighbours.pairs():
            yield int(rows[a]), int(rows[b])


class _Images:
    """Rows with images, by the sketch of the first."""

    least = MIN_LIKENESS

    def __init__(self, sketches: UInt8[np.ndarray, "any 256"], chosen: Int[np.ndarray, "row"]) -> None:
        self._sketches, self._chosen = sketches, chosen
        self.bands: UInt16[np.ndarray, "row band"] = np.empty((len(chosen), NUM_IMAGE_BANDS), np.uint16)
        for start in range(0, len(chosen), _BLOCK):
            block = slice(start, start + _BLOCK)
            sides = directions_of(sketches[chosen[block]]) @ _PLANES > 0
            self.bands[block] = sides.reshape(-1, NUM_IMAGE_BANDS, BITS) @ _WEIGHTS

    def likeness(self, a: Places, b: Places) -> Float32[np.ndarray, "pair"]:
        # The share of planes with the two on different sides is their angle over π (thrice its standard deviation off).
        num_apart = _NUM_ONES[self.bands[a] ^ self.bands[b]].sum(axis=1, dtype=np.int64)
        near = np.flatnonzero(num_apart <= _MOST_APART)
        likeness = np.zeros(len(a), np.float32)
        both = (directions_of(self._sketches[self._chosen[each[near]]]) for each in (a, b))
        likeness[near] = np.einsum("ij,ij->i", *both)
        return likeness


class _Texts:
    """Rows without images, by their words."""

    least = MIN_EQUAL_HASHES

    def __init__(self, count: int, words: Iterable[Words]) -> None:
        self.bands: UInt32[np.ndarray, "row band"] = np.empty((count, NUM_BANDS), np.uint32)
        self._hashes = np.empty((count, NUM_BANDS * BAND_SIZE), np.uint8)
        for place, each in enumerate(words):
            hashes = minhash(each)
            self.bands[place] = bands_of(hashes)
            self._hashes[place] = hashes & 255  # enough to tell in how many two agree

    def likeness(self, a: Places, b: Places) -> Float[np.ndarray, "pair"]:
        return (self._hashes[a] == self._hashes[b]).mean(axis=1)


class _Neighbours:
    """Of each row the likest and the best ones among those that were added."""

    def __init__(self, ranks: UInt32[np.ndarray, "row"]) -> None:
        """`ranks` are smaller for better rows."""
        self._ranks = ranks
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._num_pending, self._most_pending = 0, max(_MIN_PENDING, 8 * len(ranks))

    def add(self, a: Places, b: Places, likeness: Float[np.ndarray, "pair"]) -> None:
        """Pairs that may have been added before."""
        if len(a):
            ordered = np.minimum(a, b).astype(np.uint32), np.maximum(a, b).astype(np.uint32)
            self._pending.append((*ordered, likeness.astype(np.float32)))
            self._num_pending += len(a)
            if self._num_pending > self._most_pending:
                self._select()

    def pairs(self) -> list[Pair]:
        """Places of the smaller, and of the larger row."""
        if not self._pending:
            return []
        self._select()
        [(a, b, _)] = self._pending
        return list(zip(a.tolist(), b.tolist(), strict=True))

    def _select(self) -> None:
        a, b, likeness = (np.concatenate(column) for column in zip(*self._pending, strict=True))
        _, first = np.unique((a.astype(np.uint64) << np.uint64(32)) | b, return_index=True)
        a, b, likeness = a[first], b[first], likeness[first]
        rows, others, pair = np.concatenate((a, b)), np.concatenate((b, a)), np.tile(np.arange(len(a)), 2)
        is_kept = np.zeros(len(a), bool)
        for values, most in ((-likeness[pair], MAX_LIKEST), (self._ranks[others], MAX_BEST)):
            order = np.lexsort((self._ranks[others], values, rows))
            is_kept[pair[order[_numbers_within(rows[order]) < most]]] = True
        self._pending = [(a[is_kept], b[is_kept], likeness[is_kept])]
        self._num_pending = 0


def _agreeing(
    groups: UInt64[np.ndarray, "row"], bands: UInt[np.ndarray, "row band"]
) -> Iterator[tuple[Places, Places]]:
    """Pairs of the same group that agree in a band, a block at a time; those that agree in several come again.

    In a large run of rows that agree, those that agree in the next band too stand together and are compared.
    """
    for band in range(bands.shape[1]):
        keys = groups + bands[:, band]
        order = np.lexsort((bands[:, (band + 1) % bands.shape[1]], keys))
        keys = keys[order]
        left = np.arange(len(order))
        for distance in range(1, MAX_DISTANCE + 1):
            left = left[: np.searchsorted(left, len(order) - distance)]
            left = left[keys[left] == keys[left + distance]]
            for start in range(0, len(left), _BLOCK):
                block = left[start : start + _BLOCK]
                yield order[block], order[block + distance]


def _best_of(
    identities: UInt64[np.ndarray, "row"], merits: UInt64[np.ndarray, "row"]
) -> tuple[Int[np.ndarray, "row"], UInt32[np.ndarray, "row"]]:
    """The position of the best row with the same identity, and each row's place among all by merit."""
    order = np.lexsort((~merits, identities))  # stable: of equal merit the first
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.diff(identities[order]) != 0
    best_of, ranks = np.empty(len(order), np.int64), np.empty(len(order), np.uint32)
    best_of[order] = order[is_first][np.cumsum(is_first) - 1]
    ranks[np.argsort(~merits, kind="stable")] = np.arange(len(order), dtype=np.uint32)
    return best_of, ranks


def _numbers_within(ascending: UInt32[np.ndarray, "item"]) -> Int[np.ndarray, "item"]:
    """Of each item its number among those that are equal, from 0."""
    return np.arange(len(ascending)) - np.searchsorted(ascending, ascending)
