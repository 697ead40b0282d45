"""Features of a text that need no understanding of it: sizes, edges, counts, phrases, n-grams."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from prism.evals.shape import words_of
from prism.rewards import num_description_items, parse_response

MAX_PHRASE_WORDS = 8
MAX_NGRAMS = 1500
MIN_NGRAM_TEXTS = 3

_BULLET = re.compile(r"^[^\S\n]*(?:[-*+•–]|\(?\d+[.)]|\(?[a-zA-Z][.)])[^\S\n]", re.MULTILINE)
_OPEN_END = re.compile(r"[\w,;:(\[{/+=<&–—-]\Z")


@dataclass(frozen=True, slots=True)
class Reading:
    """One side of a pair: `text` is the part as written (the description, the reasoning, or a whole
    response), `token_ids` what the discriminator reads of it, up to the token its score is read on."""

    text: str
    token_ids: tuple[int, ...]


def breaks_off(text: str) -> bool:
    """Whether the text ends in the middle of a sentence: with a letter, a digit, a comma, an opening bracket."""
    return _OPEN_END.search(text) is not None


class Measures:
    """Numbers and categories of single readings, given the readings of both sides.

    Those tell which tokens are ordinary: the ones in the first half of some reading, its padding aside. A
    reading whose last token is an ordinary one has lost its end token, unless no reading has one.
    """

    def __init__(self, readings: Iterable[Reading]) -> None:
        bodies = [_body(reading.token_ids) for reading in set(readings)]
        self._ordinary = {token for body in bodies for token in body[: len(body) // 2]}
        self._has_end_tokens = any(body and body[-1] not in self._ordinary for body in bodies)

    def is_cut(self, reading: Reading) -> bool:
        """Whether the text breaks off or its end token is missing."""
        is_without_end = bool(reading.token_ids) and reading.token_ids[-1] in self._ordinary
        return breaks_off(reading.text) or (self._has_end_tokens and is_without_end)

    def numbers(self, reading: Reading) -> dict[str, float]:
        text = reading.text
        words = words_of(text)
        return {
            "characters": len(text),
            "tokens": len(reading.token_ids),
            "words": len(words),
            "lines": len(text.splitlines()),
            "bullets": len(_BULLET.findall(text)),
            "items": num_description_items(text),
            "digits": sum(character.isdigit() for character in text),
            "distinct_words": len(set(words)) / len(words) if words else 0.0,
            "outer_blanks": len(text) - len(text.strip()),
            "valid_format": float(parse_response(text).is_valid),
            "cut": float(self.is_cut(reading)),
        }

    def categories(self, reading: Reading) -> dict[str, object]:
        ids, text = reading.token_ids, reading.text
        body = _body(ids)
        return {
            "end_token": (ids[-1:], len(ids) - len(body)),
            "last_token": body[-2:-1],
            "first_token": ids[:1],
            "first_character": _sort_of(text[:1]),
            "last_character": _sort_of(text[-1:]),
        }


def _body(ids: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens, those that only repeat the one they end with left out."""
    end = len(ids)
    while end > 1 and ids[end - 1] == ids[end - 2]:
        end -= 1
    return ids[:end]


def _sort_of(character: str) -> str:
    """Letters and digits stand for their like, every other character for itself."""
    if character.isdigit():
        return "digit"
    if character.isalpha():
        return "upper case" if character.isupper() else "letter"
    return character


def common_phrases(texts: Sequence[str], share: float) -> list[str]:
    """Every run of up to eight words that at least `share` of the texts hold, single words included.

    A run is grown only from runs that are common themselves. Words are joined by single blanks, so ask
    `holds` whether a text has the phrase.
    """
    least = math.ceil(share * len(texts) - 1e-9)
    tokenized = [words_of(text) for text in texts]
    common: set[tuple[str, ...]] = {()}
    found: list[str] = []
    for size in range(1, MAX_PHRASE_WORDS + 1):
        counts: Counter[tuple[str, ...]] = Counter()
        for words in tokenized:
            runs = {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
            counts.update(run for run in runs if run[:-1] in common and (size == 1 or run[1:] in common))
        common = {run for run, count in counts.items() if count >= least}
        found += [" ".join(run) for run in sorted(common)]
        if not common:
            break
    return found


def holds(text: str, phrases: Sequence[str]) -> Float[np.ndarray, "phrase"]:
    """1 for each phrase that the text has, 0 for the others."""
    padded = f" {' '.join(words_of(text))} "
    return np.array([f" {phrase} " in padded for phrase in phrases], dtype=np.float64)


def ngram_matrix(texts: Sequence[str]) -> Float[np.ndarray, "text ngram"]:
    """log(1 + count) of words, pairs of words and triples of characters, the most widespread ones.

    N-grams of fewer than three texts are left out: they are of no use for texts of other prompts.
    """
    counted = [_ngrams(text) for text in texts]
    spread = Counter(ngram for counts in counted for ngram in counts)
    ranked = sorted((-count, ngram) for ngram, count in spread.items() if count >= MIN_NGRAM_TEXTS)
    column = {ngram: index for index, (_, ngram) in enumerate(ranked[:MAX_NGRAMS])}
    matrix = np.zeros((len(texts), len(column)))
    for row, counts in zip(matrix, counted, strict=True):
        for ngram, count in counts.items():
            if ngram in column:
                row[column[ngram]] = math.log1p(count)
    return matrix


def _ngrams(text: str) -> Counter[str]:
    words = words_of(text)
    grams = Counter(f"w:{word}" for word in words)
    grams.update(f"w:{first} {second}" for first, second in pairwise(words))
    grams.update(f"c:{text[start : start + 3]}" for start in range(len(text) - 2))
    return grams
