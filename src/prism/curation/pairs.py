"""Warm-up pairs: the demonstrations reserved for alignment, each against one valid rollout of an SFT model."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from prism.config.selection import PairsRecipe
from prism.curation import split
from prism.curation.asking import OpenMeter, open_meter
from prism.curation.concurrency import Work, concurrently
from prism.curation.rows import Outcome, Row, doubts, kept, passed
from prism.curation.running import run_step
from prism.curation.sampling import Reference, Sampled, Sampler, named
from prism.curation.store import Part, Store
from prism.curation.texts import check_response
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.rewards import parse_response
from prism.rollout.sampling import Sampling

STEP = "pairs"


def run_pairs(store: Store, recipe: PairsRecipe, part: Part) -> None:
    """Raises what `run_step` and `Pairs` raise, and DataError for a store that is not split yet."""
    store.newest_run(split.STEP)
    meter = open_meter(store, part, STEP, recipe)
    run_step(store, Pairs(recipe, meter), part, resolve_doubts=recipe.ask_in_doubt)


class Pairs:
    """Keeps rows with the finding `student`, the first valid of `num_samples` rollouts, as the warm-up stage takes it.

    The prompt is the bare one that the model was trained on, without a template. Every other row is passed on, so
    that no demonstration is lost because the model did not answer well.
    """

    name = STEP

    def __init__(self, recipe: PairsRecipe, meter: OpenMeter) -> None:
        self._recipe = recipe
        self._student = Reference(recipe.model)
        self._meter = meter

    @property
    def settings(self) -> Mapping[str, Any]:
        own = self._recipe.model_dump(include={"num_samples", "temperature", "max_response_tokens", "seed"})
        return {"model": self._student.identity} | own

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        return concurrently(rows, self._open, self._student.concurrency // self._recipe.num_samples + 1)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Work]:
        sampling = Sampling(self._recipe.temperature, self._recipe.max_response_tokens)
        async with (
            self._meter() as meter,
            self._student.open(meter, sampling, self._recipe.seed) as sampler,
        ):
            yield partial(self._pair, sampler)

    async def _pair(self, sampler: Sampler, row: Row) -> Outcome:
        if row.findings.get(split.STEP, {}).get("split") != "alignment":
            return passed(row, "is not reserved for alignment")
        try:
            samples = await sampler.sample(named(row.prompt, row.id), range(self._recipe.num_samples))
        except DataError:
            return passed(row, "cannot be put to the model")
        num_in_doubt = sum(sample.is_in_doubt for sample in samples)
        found = doubts(num_in_doubt, sum(sample.is_unanswered for sample in samples))
        reasons: Counter[str] = Counter()
        for sample in samples:
            failure = _failure(sample)
            if failure is None:
                return kept(row, student=sample.text, model=self._student.name, **found)
            reasons[failure] += 1
        [(reason, _)] = reasons.most_common(1)
        return passed(row, f"no rollout is valid: {reason}", **found)


def _failure(sample: Sampled) -> str | None:
    """Why the sample is no valid response, by the rules of the warm-up stage; None for a valid one."""
    if sample.text is None:
        return f"request failed: {sample.failure}"
    if not sample.is_finished:
        return "truncated"
    response = parse_response(sample.text)
    if not response.is_valid:
        return response.reason
    try:
        check_response(sample.text, "the response")
    except RowError as error:  # the file of pairs would be read without this one
        return error.reason
    return None
