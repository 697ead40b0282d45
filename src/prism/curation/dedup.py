"""The same problem twice: one of them stays.

Two rows are the same problem if their questions ask the same, their options are the same, their images show the same
pictures, and their answers do not disagree. The same picture with another question is another problem, and so is the
same question about a picture that differs in one object.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prism.curation.candidates import (
    BITS,
    MAX_BEST,
    MAX_DISTANCE,
    MAX_LIKEST,
    MIN_EQUAL_HASHES,
    MIN_LIKENESS,
    NUM_IMAGE_BANDS,
    Collection,
    Pair,
)
from prism.curation.fingerprints import Fingerprint, Pictures, take_fingerprint
from prism.curation.rows import Outcome, Row
from prism.data.image_likeness import MAX_DIFFERENCE, could_be_copies
from prism.data.question_likeness import MIN_SHARED_PAIRS, MIN_SHARED_WORDS
from prism.errors import DataError
from prism.parallel import in_threads, num_processors
from prism.rewards import verify_answer

STEP = "dedup"
EXACT, NEAR, CONTRADICTED = "is a duplicate", "is a near-duplicate", "is a duplicate with another answer"
UNREADABLE = "has an image that cannot be decoded"

_RULES = 2
"""Raised when the same rows would be judged otherwise."""
_PAIRS_AT_ONCE = 32

Feature = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Member:
    """A row that others are compared with. Of two the one with the greater `rank` stays."""

    id: str
    fingerprint: Fingerprint
    rank: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Match:
    reason: str
    difference: float


class Dedup:
    """Keeps of all rows that are the same problem the best: one with an answer before one without, one with a
    demonstration, the one whose images have most pixels, the first.

    A dropped row is always the same problem as one that stays, which its findings name as `duplicate_of`;
    `picture_difference` is by how much the pictures differ (see `prism.data.image_likeness`).
    """

    name = STEP

    def __init__(self, image_root: Path) -> None:
        self._pictures = Pictures(image_root)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "rules": _RULES,
            "words": [MIN_SHARED_WORDS, MIN_SHARED_PAIRS, MIN_EQUAL_HASHES],
            "pictures": [MAX_DIFFERENCE, MIN_LIKENESS, NUM_IMAGE_BANDS, BITS],
            "compared": [MAX_DISTANCE, MAX_LIKEST, MAX_BEST],
        }

    def describe(self, rows: Iterator[Row]) -> Iterator[Feature]:
        return map(_describe, rows)

    def decide(self, features: Iterable[Feature]) -> Iterator[Outcome]:
        collection = Collection(_read(feature) for _, feature in features)
        pairs, best_of = collection.pairs(), collection.best_of
        del collection
        originals = best_of[best_of != np.arange(len(best_of))].tolist()
        members = _members(features, {*originals, *(position for pair in pairs for position in pair)})
        dropped = _drop(self._matches(pairs, members), members)
        for position, ((row_id, feature), best) in enumerate(zip(features, best_of.tolist(), strict=True)):
            if "error" in feature:
                yield Outcome(row_id, "dropped", UNREADABLE, feature["error"])
            elif best != position:
                yield _dropped_with(row_id, Fingerprint.from_json(feature), members[best], dropped.get(best))
            elif position in dropped:
                yield _dropped(row_id, *dropped[position])
            else:
                yield Outcome(row_id, "kept")

    def _matches(self, pairs: list[Pair], members: Mapping[int, _Member]) -> dict[int, dict[int, _Match]]:
        def compare(pair: Pair) -> _Match | None:
            return self._compare(*(members[position].fingerprint for position in pair))

        matches: dict[int, dict[int, _Match]] = defaultdict(dict)
        matched = in_threads(compare, pairs, num_processors(), at_once=_PAIRS_AT_ONCE)
        for (a, b), match in zip(pairs, matched, strict=True):
            if match is not None:
                matches[a][b] = matches[b][a] = match
        return matches

    def _compare(self, first: Fingerprint, second: Fingerprint) -> _Match | None:
        if first.choices != second.choices or not answers_agree(first.answer, second.answer):
            return None
        small = [each.thumbnail[None] for each in (first, second) if each.thumbnail is not None]
        if len(small) == 2 and not could_be_copies(*small)[0]:
            return None
        difference = self._pictures.largest_difference(first.images, second.images)
        return None if difference is None else _Match(NEAR, difference)


def answers_agree(first: str, second: str) -> bool:
    """Whether no answer contradicts the other: one that is missing, or that nobody can check, contradicts none."""
    if not first or not second or first == second:
        return True
    return verify_answer(first, second) != "wrong" or verify_answer(second, first) != "wrong"


def _describe(row: Row) -> Feature:
    try:
        fingerprint = take_fingerprint(
            row.prompt, has_demonstration=row.completion is not None or "teach" in row.findings
        )
    except DataError as error:
        return row.id, {"error": str(error)}
    return row.id, fingerprint.to_json()


def _read(feature: Mapping[str, Any]) -> Fingerprint | None:
    return None if "error" in feature else Fingerprint.from_json(feature)


def _members(features: Iterable[Feature], wanted: set[int]) -> dict[int, _Member]:
    members = {}
    for position, (row_id, feature) in enumerate(features):
        if position in wanted:
            found = Fingerprint.from_json(feature)
            members[position] = _Member(row_id, found, (found.merit, -position))
    return members


def _drop(
    matches: Mapping[int, Mapping[int, _Match]], members: Mapping[int, _Member]
) -> dict[int, tuple[_Member, _Match]]:
    """By position, what each dropped row is the same as. The best are looked at first, so that whatever a row is
    dropped for stays."""
    dropped: dict[int, tuple[_Member, _Match]] = {}
    for position in sorted(matches, key=lambda position: members[position].rank, reverse=True):
        better = [
            other
            for other in matches[position]
            if members[other].rank > members[position].rank and other not in dropped
        ]
        if better:
            best = max(better, key=lambda other: members[other].rank)
            dropped[position] = members[best], matches[position][best]
    return dropped


def _dropped_with(
    row_id: str, fingerprint: Fingerprint, original: _Member, fate: tuple[_Member, _Match] | None
) -> Outcome:
    """A row with the words and image files of `original`, which itself may be dropped as the same as another."""
    of, match = fate or (original, _Match(EXACT, 0.0))
    if not answers_agree(original.fingerprint.answer, fingerprint.answer):
        match = _Match(CONTRADICTED, match.difference)
    return _dropped(row_id, of, match)


def _dropped(row_id: str, of: _Member, match: _Match) -> Outcome:
    evidence = {"duplicate_of": of.id, "picture_difference": round(match.difference, 1)}
    return Outcome(row_id, "dropped", match.reason, f"of {of.id}", evidence)
