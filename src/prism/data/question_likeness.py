"""Whether two questions ask the same in other words.

What they are about must be the same to the letter (numbers, names of points, signs, colours, directions, comparisons);
of the other words four in five, in nearly the same order; and words that only frame a question do not count.
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import UInt32

from prism.records import IMAGE_MARK

MIN_SHARED_WORDS = 0.8
"""Of all words that occur in either question (Jaccard)."""

MIN_SHARED_PAIRS = 0.5
"""Of all pairs of neighbouring words: "red left of blue" is not "blue left of red", but clauses may change places."""

MIN_SHARED_PAIRS_IN_ORDER = 0.3
"""The same, where the words that must be the same to the letter keep their order."""

NUM_BANDS, BAND_SIZE = 16, 4
"""Of a MinHash: two questions that share 80% of their words agree in one of the bands with probability 0.9998, two
that share 30% with 0.12."""

_COUNT = re.compile(r"\b(?:how many|(?:the )?(?:total )?(?:number|count) of|count(?: up)?)\b", re.IGNORECASE)
_SHOWN = re.compile(
    r"\b(?:(?:as )?(?:is |are )?(?:shown|given|seen|depicted|drawn|displayed|pictured|illustrated) )?"
    r"(?:in|on|from|of|within) (?:the|this|that) (?:given |following |above |below )?"
    r"(?:image|picture|figure|diagram|photo|photograph|drawing|illustration|scene)s?"
    r"(?: (?:above|below|shown|given))*\b",
    re.IGNORECASE,
)
_SYMBOLS = (
    (re.compile(r"\^\s*(?:\{\s*)?\\circ(?![A-Za-z])\s*\}?|\\degree(?![A-Za-z])|°|\bdegrees?\b|="), " "),
    (re.compile(r"['’]s\b"), " "),
    (re.compile(r"\\angle(?![A-Za-z])|∠"), " angle "),
    (re.compile(r"\\triangle(?![A-Za-z])|△"), " triangle "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])|×|·"), " * "),
    (re.compile(r"\\pi(?![A-Za-z])"), " π "),
)
_LATEX = re.compile(r"\$|\\[()\[\],;:! ]|\\(?:left|right|text|mathrm|displaystyle)(?![A-Za-z])|[{}~]")
_LONG_RUN_OF_SIGNS = re.compile(r"([^\w\s]{30})(?=[^\w\s])")
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s.,;:?!'\"“”‘’`()]")

_FRAME_WORDS = """
    a an the this that these those is are was were be been being do does did has have had can could will would shall
    should may might must it its there here of to for in on at by with from as and or if then so that which what
    whats who whose when where how why i you we they me us your our their please kindly find determine calculate
    compute evaluate work out give state tell say identify name answer question figure image picture diagram photo
    shown show shows given following based according using use let suppose assume write down list number value
    exactly correct option choose select pick also just question problem solve provide get see
"""
_FRAME = frozenset(_FRAME_WORDS.split())
_TELLING_WORDS = """
    not no never none except without false incorrect wrong true odd even prime all any both each every only left
    right above below top bottom over under up inside outside between front behind upper lower first second third
    fourth fifth last next previous before after more most less least fewer fewest larger largest bigger biggest
    greater greatest smaller smallest longer longest shorter shortest higher highest lowest taller tallest older
    oldest younger youngest maximum minimum max min sum difference product ratio area perimeter volume length width
    height radius diameter red blue green yellow purple orange pink brown black white gray grey cyan big small large
    tiny north south east west horizontal vertical row column colour color shape circle square triangle star cube
    sphere cylinder rectangle
"""
_TELLING = frozenset(_TELLING_WORDS.split())
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(n) for n, word in enumerate(_NUMBER_WORDS.split())}
_NUMBERS |= {"twelve": "12", "twice": "2"}
_ENDINGS = ("ing", "ed", "es", "s")
_SHORTEST_STEM = 4
_SHORT_NAME = 4
"""Letters of a name in capitals, as of a point or a triangle."""

_MODULUS = np.uint64(2**31 - 1)
_SOURCE = np.random.default_rng(0x5EED)
_FACTORS = _SOURCE.integers(1, _MODULUS, NUM_BANDS * BAND_SIZE, dtype=np.uint64)[:, None]
_OFFSETS = _SOURCE.integers(0, _MODULUS, NUM_BANDS * BAND_SIZE, dtype=np.uint64)[:, None]

Words = UInt32[np.ndarray, "word"]
"""Hashes of a question's words in order; those that must be the same to the letter are odd."""


def question_words(question: str) -> Words:
    """The words that count, each as its hash."""
    text = _normalized(question)
    for pattern, spelling in _SYMBOLS:
        text = pattern.sub(spelling, text)
    text = _COUNT.sub(" howmany ", _SHOWN.sub(" ", _LATEX.sub(" ", text)))
    words = [word for token in _TOKEN.findall(text) if (word := _word(token)) is not None]
    return np.array(words, np.uint32)


def ask_the_same(first: Words, second: Words) -> bool:
    """Symmetric. Questions without any word that counts ask the same only if neither has one."""
    a, b = first.tolist(), second.tolist()
    if a == b:
        return True
    if {word for word in a if word & 1} != {word for word in b if word & 1}:
        return False
    is_in_order = [word for word in a if word & 1] == [word for word in b if word & 1]
    least = MIN_SHARED_PAIRS_IN_ORDER if is_in_order else MIN_SHARED_PAIRS
    return _shared(set(a), set(b)) >= MIN_SHARED_WORDS and _shared(set(pairwise(a)), set(pairwise(b))) >= least


def telling_hash(words: Words) -> int:
    """Equal for any two questions that could ask the same: of the words that must be the same."""
    return zlib.crc32(np.unique(words[words % 2 == 1]).tobytes())


def minhash(words: Words) -> UInt32[np.ndarray, "64"]:
    """Two questions agree in about the share of places that is the share of their words in common (Broder, 1997)."""
    if not len(words):
        return np.zeros(NUM_BANDS * BAND_SIZE, np.uint32)
    distinct = np.unique(words).astype(np.uint64)[None, :] % _MODULUS
    return ((_FACTORS * distinct + _OFFSETS) % _MODULUS).min(axis=1).astype(np.uint32)


def bands_of(hashes: UInt32[np.ndarray, "64"]) -> UInt32[np.ndarray, "band"]:
    """Of a `minhash`: questions with many words in common agree in at least one place."""
    return np.array([hash_of(band.tobytes()) for band in hashes.reshape(NUM_BANDS, BAND_SIZE)], np.uint32)


def minhash_bands(words: Words) -> list[tuple[int, int]]:
    """The bands of a question with their numbers, to look others up by."""
    return list(enumerate(bands_of(minhash(words)).tolist()))


def hash_of(data: bytes) -> int:
    return zlib.crc32(data)


def _normalized(question: str) -> str:
    # Accents that follow one another are put in order in quadratic time; no letter has more than 30.
    return unicodedata.normalize("NFKC", _LONG_RUN_OF_SIGNS.sub(r"\1 ", question.replace(IMAGE_MARK, " ")))


def _word(token: str) -> int | None:
    """The hash of a token; None for one that only frames the question."""
    lower = token.casefold()
    if lower in _NUMBERS:
        return _odd(_NUMBERS[lower])
    is_name = token.isupper() and len(token) <= _SHORT_NAME and lower not in ("a", "i")
    if is_name or (len(token) == 1 and lower not in ("a", "i")) or not lower.isalpha():
        # As it is written: X and x may be two things.
        return _odd(token.replace(",", ""))
    if lower in _FRAME:
        return None
    stem = _stem(lower)
    return _odd(stem) if lower in _TELLING or stem in _TELLING else zlib.crc32(stem.encode()) & ~1


def _odd(text: str) -> int:
    return zlib.crc32(text.encode()) | 1


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def _shared(first: set, second: set) -> float:
    either = len(first | second)
    return len(first & second) / either if either else 1.0


def ngrams(question: str, size: int) -> Sequence[int]:
    """Hashes of every run of `size` words, as written but for case; none for a shorter question."""
    words = _TOKEN.findall(_LATEX.sub(" ", _normalized(question).casefold()))
    return [zlib.crc32("\x1f".join(words[i : i + size]).encode()) for i in range(len(words) - size + 1)]
