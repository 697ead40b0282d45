"""How far a set of responses is from the teacher's distribution.

Nine distances between the policy's responses, pooled over prompts, and the teacher's, each 0 for equal
distributions (`MEASURES`):

- Wasserstein-1 between counts per response: reasoning steps, described items, and the length of each part
  in words (see `shape`). In the counted unit, from 0 upwards: what a response must gain or lose on average
  to turn one distribution into the other. Never less than the difference of the means.
- Jensen-Shannon divergence, in bits, from 0 to 1 (nothing in common), between the unigrams and between the
  bigrams of a part. N-grams that stand in the teacher's responses to at least `MIN_PROMPTS` prompts, or the
  `NUM_CELLS` most frequent of them, are told apart; all others are one. A partition can only lower the
  divergence. This one depends on the teacher alone, so every policy is measured with the same ruler.

**Small samples.** Two samples of one distribution differ, so a plug-in distance is too large; for the
divergence by about (cells − 1)/(8 ln 2) · (1/n + 1/m) bits for n and m independent n-grams. Rare n-grams
would make up most of that, which is why they are not told apart. Three numbers say what is left of it:

- `floor`: a perfect imitator's plug-in distance, with as many prompts and responses, exceeds it once in 40
  times. What lies below cannot be told from no drift at all.
- `mean`: 2 · plug-in − mean of the resampled distances. Resampling repeats the excess, so this takes it off.
- Limits as wide as the quantiles of the resampled distances and their reflections at the plug-in distance
  together; up to the floor the lower one is 0. In simulations with 30 and 100 prompts and two samples of each,
  the 95% limits of a distance held the true one in 92 to 99% of cases.

Prompts are drawn, not responses: samples of one prompt are not independent. A prompt that both sides
answered is drawn with both, so that the teacher's responses to the same prompts are a closer reference than
responses to others.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prism.evals.shape import PARTS, ngrams_of, words_of
from prism.evals.statistics import NOTHING_MEASURED, Interval
from prism.records import Response
from prism.rewards import num_description_items, num_reasoning_steps

NUM_CELLS = 1000
MIN_PROMPTS = 10

Responses = Mapping[str, Sequence[Response]]
"""prompt → the responses to it"""

_LIMITS = (0.025, 0.975)
_OTHER = None
"""The cell of all n-grams that are not among the teacher's most frequent, and of a text that is too short for one."""


@dataclass(frozen=True, slots=True)
class Distance:
    """One distance to the teacher; everything None where one of the sides had nothing to measure.

    `interval.count` is the number of prompts whose responses could be measured. Its limits are None where
    resampling changes nothing.
    """

    interval: Interval
    plug_in: float | None
    floor: float | None
    num_responses: int
    num_teacher_responses: int

    def to_dict(self) -> dict[str, float | int | None]:
        return self.interval.to_dict() | {
            "plug_in": self.plug_in,
            "floor": self.floor,
            "num_responses": self.num_responses,
            "num_teacher_responses": self.num_teacher_responses,
        }


def wasserstein(
    first: Float[np.ndarray, "*draw cell"], second: Float[np.ndarray, "*draw cell"], values: Float[np.ndarray, " cell"]
) -> Float[np.ndarray, "*draw"]:
    """Wasserstein-1 between two distributions over the ascending `values`: the area between their CDFs."""
    return np.abs(np.cumsum(first - second, axis=-1)[..., :-1]) @ np.diff(values)


def jensen_shannon(
    first: Float[np.ndarray, "*draw cell"], second: Float[np.ndarray, "*draw cell"]
) -> Float[np.ndarray, "*draw"]:
    """Jensen-Shannon divergence of two distributions over the same cells, in bits: the entropy of their
    mixture less the mean of theirs."""
    return np.clip(_entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2, 0.0, 1.0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=-1)


@dataclass(frozen=True, slots=True)
class Measure:
    """`count` says what a response holds of each kind, None if it cannot be measured. The kinds are
    numbers when `is_number`, compared by Wasserstein-1, else n-grams, compared by Jensen-Shannon."""

    count: Callable[[Response], Mapping[Any, int] | None]
    is_number: bool


def _numbers(part: str, number: Callable[[str], int]) -> Measure:
    def count(response: Response) -> Mapping[Any, int] | None:
        text = PARTS[part](response)
        return None if text is None else {number(text): 1}

    return Measure(count, is_number=True)


def _ngrams(part: str, size: int) -> Measure:
    def count(response: Response) -> Mapping[Any, int] | None:
        text = PARTS[part](response)
        if text is None:
            return None
        # Were a text that is too short left out, one word in place of a description would be no distance at all.
        return Counter(ngrams_of(words_of(text), size)) or {_OTHER: 1}

    return Measure(count, is_number=False)


def _num_words(text: str) -> int:
    return len(words_of(text))


MEASURES: Mapping[str, Measure] = {
    "description/items": _numbers("description", num_description_items),
    "description/length": _numbers("description", _num_words),
    "description/unigrams": _ngrams("description", 1),
    "description/bigrams": _ngrams("description", 2),
    "reasoning/steps": _numbers("reasoning", num_reasoning_steps),
    "reasoning/length": _numbers("reasoning", _num_words),
    "reasoning/unigrams": _ngrams("reasoning", 1),
    "reasoning/bigrams": _ngrams("reasoning", 2),
    "whole/length": _numbers("whole", _num_words),
}


def drift(responses: Responses, teacher: Responses, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Distance]:
    """Each of `MEASURES` between `responses` and `teacher`, with 95% limits over prompts."""
    prompts = _Prompts.of(responses, teacher)
    weights = prompts.draw(num_resamples, seed)
    return {name: _distance(measure, responses, teacher, prompts, weights) for name, measure in MEASURES.items()}


def plug_in_distances(responses: Responses, teacher: Responses) -> dict[str, float | None]:
    """Each of `MEASURES` as it stands, for sets as small as the rollouts of one step: the n-grams of a single prompt
    are told apart too. What chance leaves so few texts makes them too large, so they are to be compared with those of
    sets of the same size only. None where one side has nothing to measure."""
    prompts = _Prompts.of(responses, teacher)
    weights = prompts.draw(0, seed=0)
    found = {}
    for name, measure in MEASURES.items():
        ours, theirs = _counted(responses, measure), _counted(teacher, measure)
        pair = _Pair.of(ours, theirs, measure, prompts, weights, min_prompts=1)
        found[name] = None if pair is None else float(pair.distances()[0])
    return found


@dataclass(frozen=True, slots=True)
class _Prompts:
    """The prompts in a fixed order; a stratum holds those answered by the policy, the teacher, or both."""

    index: Mapping[str, int]
    strata: Sequence[np.ndarray]

    @classmethod
    def of(cls, responses: Responses, teacher: Responses) -> "_Prompts":
        ours, theirs = responses.keys(), teacher.keys()
        index = {prompt: number for number, prompt in enumerate(sorted(ours | theirs))}
        groups = (ours & theirs, ours - theirs, theirs - ours)
        strata = [np.array(sorted(index[prompt] for prompt in group), dtype=np.int64) for group in groups]
        return cls(index, [stratum for stratum in strata if len(stratum)])

    def draw(self, num_resamples: int, seed: int) -> np.ndarray:
        """[1 + resample, prompt]: how often each prompt counts; first once each, then drawn anew."""
        generator = np.random.default_rng(seed)
        weights = np.ones((1 + num_resamples, len(self.index)), dtype=np.int32)
        for row in weights[1:]:
            for stratum in self.strata:
                row[stratum] = np.bincount(generator.integers(len(stratum), size=len(stratum)), minlength=len(stratum))
        return weights


_Counts = Mapping[str, Sequence[Mapping[Any, int]]]
"""prompt → for each of its responses that can be measured, how often it holds what"""


def _counted(responses: Responses, measure: Measure) -> _Counts:
    counts = {
        prompt: [found for response in given if (found := measure.count(response)) is not None]
        for prompt, given in responses.items()
    }
    return {prompt: found for prompt, found in counts.items() if found}


@dataclass(frozen=True, slots=True)
class _Pair:
    """Shares of both sides under each row of weights; `values` are those of the cells where they are numbers."""

    side: Float[np.ndarray, "draw cell"]
    teacher: Float[np.ndarray, "draw cell"]
    values: Float[np.ndarray, " cell"] | None

    @classmethod
    def of(
        cls,
        side: _Counts,
        teacher: _Counts,
        measure: Measure,
        prompts: _Prompts,
        weights: np.ndarray,
        *,
        min_prompts: int = MIN_PROMPTS,
    ) -> "_Pair | None":
        """None where one side has nothing to measure, or the teacher no n-gram that is frequent enough.
        Draws that leave one side empty are left out."""
        cells = _number_cells(side, teacher) if measure.is_number else _ngram_cells(teacher, min_prompts)
        if not side or not teacher or cells.keys() == {_OTHER}:
            return None
        ours, theirs = (_shares(counts, cells, prompts, weights) for counts in (side, teacher))
        is_measured = ~np.isnan(ours[:, 0] + theirs[:, 0])
        values = np.array(list(cells), dtype=np.float64) if measure.is_number else None
        return cls(ours[is_measured], theirs[is_measured], values)

    def distances(self) -> np.ndarray:
        return self._between(self.side, self.teacher)

    def floor(self) -> float | None:
        """Quantile of the distances between two samples of one distribution, the mean of both, that stray
        from it as the resampled shares stray from the measured ones."""
        if len(self.side) < 2:
            return None
        common = (self.side[0] + self.teacher[0]) / 2
        strayed = [np.maximum(common + side[1:] - side[0], 0.0) for side in (self.side, self.teacher)]
        first, second = (shares / shares.sum(axis=1, keepdims=True) for shares in strayed)
        return float(np.quantile(self._between(first, second), _LIMITS[1]))

    def _between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return jensen_shannon(first, second) if self.values is None else wasserstein(first, second, self.values)


def _number_cells(*sides: _Counts) -> dict[Any, int]:
    numbers = {number for side in sides for given in side.values() for counts in given for number in counts}
    return {number: cell for cell, number in enumerate(sorted(numbers))}


def _ngram_cells(teacher: _Counts, min_prompts: int) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    num_prompts: Counter[Any] = Counter()
    for given in teacher.values():
        for counts in given:
            total.update(counts)
        num_prompts.update(set().union(*given))
    del total[_OTHER]
    common = [ngram for ngram in total if num_prompts[ngram] >= min_prompts]
    # Ties are broken by the n-gram itself, not by which text came first.
    frequent = sorted(common, key=lambda ngram: (-total[ngram], ngram))[:NUM_CELLS]
    return {ngram: cell for cell, ngram in enumerate([*frequent, _OTHER])}


def _shares(counts: _Counts, cells: Mapping[Any, int], prompts: _Prompts, weights: np.ndarray) -> np.ndarray:
    """[draw, cell]: shares of the cells, prompts weighted by each row of `weights`; NaN where nothing weighs."""
    other = cells.get(_OTHER, -1)
    entries: Counter[tuple[int, int]] = Counter()
    for prompt, given in counts.items():
        for held in given:
            for kind, number in held.items():
                entries[prompts.index[prompt], cells.get(kind, other)] += number
    keys = np.array(list(entries), dtype=np.int64)
    rows, columns, numbers = keys[:, 0], keys[:, 1], np.array(list(entries.values()), dtype=np.float64)
    totals = np.array([np.bincount(columns, numbers * weight[rows], minlength=len(cells)) for weight in weights])
    sums = totals.sum(axis=1, keepdims=True)
    return np.divide(totals, sums, out=np.full_like(totals, np.nan), where=sums > 0)


def _distance(
    measure: Measure, responses: Responses, teacher: Responses, prompts: _Prompts, weights: np.ndarray
) -> Distance:
    side, reference = _counted(responses, measure), _counted(teacher, measure)
    sizes = (sum(map(len, side.values())), sum(map(len, reference.values())))
    pair = _Pair.of(side, reference, measure, prompts, weights)
    if pair is None:
        return Distance(NOTHING_MEASURED, None, None, *sizes)
    values, floor = pair.distances(), pair.floor()
    mean, low, high = _corrected(values)
    most = np.inf if measure.is_number else 1.0
    if low is not None and high is not None and floor is not None:
        low = 0.0 if values[0] <= floor else low
        high = min(most, high)
    interval = Interval(min(most, max(0.0, mean)), low, high, len(side))
    return Distance(interval, float(values[0]), floor, *sizes)


def _corrected(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and limits of a value that was measured as `values[0]` and resampled as the others. The limits
    hold both the quantiles and their reflections; there are none where resampling changes nothing."""
    plug_in, drawn = float(values[0]), values[1:]
    if len(drawn) < 2 or np.ptp(drawn) <= 1e-12 * np.abs(drawn).max():
        return plug_in, None, None
    low, high = np.quantile(drawn, _LIMITS)
    limits = min(low, 2 * plug_in - high), max(high, 2 * plug_in - low)
    return float(2 * plug_in - drawn.mean()), float(limits[0]), float(limits[1])
