"""What a set of responses looks like from outside: how long, how repetitive, how varied, part by part.

Texts are counted in words: runs of letters and digits, single marks, and single characters of the scripts
that put no spaces between words. So the teacher's texts, which no tokenizer of ours wrote, are measured in
the same unit as a policy's. Time and memory are linear in the length of the texts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from prism.records import Response

PARTS: Mapping[str, Callable[[Response], str | None]] = {
    "description": lambda response: response.caption,
    "reasoning": lambda response: response.think,
    "whole": lambda response: response.text,
}
"""A response without the format has no description and no reasoning, but is a text like any other."""

REPEATED_NGRAM = 4
"""Words of the n-grams whose repetition inside one response counts; shorter ones repeat in any good text."""

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over `count` things; None where there was nothing to measure."""

    mean: float | None
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        return {"mean": self.mean, "count": self.count}


def words_of(text: str) -> list[str]:
    return _WORD.findall(text)


def ngrams_of(words: Sequence[str], size: int) -> list[str]:
    """All runs of `size` words, each joined by spaces, which no word holds."""
    return [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]


def shape(responses: Sequence[Response]) -> dict[str, dict[str, Mean]]:
    """part → measure → mean, over the responses that have the part.

    - `length`: words per response.
    - `repetition`: share of a response's 4-grams that stood in it before, averaged over the responses that
      are long enough to have one.
    - `distinct_1`, `distinct_2`: different n-grams of the set per n-gram, the number of n-grams being the
      count. More text has fewer new words to offer: compare sets of about the same count.
    """
    return {
        name: _shape_of([words_of(text) for response in responses if (text := read(response)) is not None])
        for name, read in PARTS.items()
    }


def _shape_of(texts: Sequence[Sequence[str]]) -> dict[str, Mean]:
    repetitions = [_repetition(ngrams) for words in texts if (ngrams := ngrams_of(words, REPEATED_NGRAM))]
    return {
        "length": _mean([len(words) for words in texts]),
        "repetition": _mean(repetitions),
        "distinct_1": _distinct(texts, 1),
        "distinct_2": _distinct(texts, 2),
    }


def _repetition(ngrams: Sequence[str]) -> float:
    return 1 - len(set(ngrams)) / len(ngrams)


def _distinct(texts: Sequence[Sequence[str]], size: int) -> Mean:
    seen: set[str] = set()
    count = 0
    for words in texts:
        ngrams = ngrams_of(words, size)
        seen.update(ngrams)
        count += len(ngrams)
    return Mean(len(seen) / count if count else None, count)


def _mean(values: Sequence[float]) -> Mean:
    return Mean(fmean(values) if values else None, len(values))
