"""How hard each problem is for reference models: those that none ever solves are taught, those in between serve RL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from prism.config.curation import DifficultyRecipe
from prism.curation.asking import OpenMeter, open_meter
from prism.curation.concurrency import Work, concurrently
from prism.curation.pass_rate import Band, Tries, is_never_solved, set_of_first
from prism.curation.rows import Outcome, Row, doubts, dropped, kept, passed
from prism.curation.running import run_step
from prism.curation.sampling import Reference, Sampled, Sampler, named
from prism.curation.store import Part, Store
from prism.curation.templates import load_template
from prism.errors import DataError
from prism.records import Prompt
from prism.rewards import Verdict, answer_of_free_text, parse_response, verify_answer
from prism.rewards.verdict import Rule
from prism.rollout.sampling import Sampling

STEP = "difficulty"


def run_difficulty(store: Store, recipe: DifficultyRecipe, part: Part) -> None:
    """Rates the part's rows; raises what `run_step` and `Difficulty` raise."""
    meter = open_meter(store, part, STEP, recipe)
    run_step(store, Difficulty(recipe, meter), part, resolve_doubts=recipe.ask_in_doubt)


class Difficulty:
    """Keeps every problem whose set is clear; findings: `set`, the first model's `num_correct`, `num_samples`,
    `num_unverifiable`, `pass_rate` with its interval (`low`, `high`), and the same of every model asked in `models`.

    Models are asked in their order, `wave` samples at a time, until the set is certain: it is the one that all samples
    would give. Further models are asked only about what the first never solves.
    """

    name = STEP

    def __init__(self, recipe: DifficultyRecipe, meter: OpenMeter) -> None:
        self._recipe = recipe
        self._band = Band(recipe.rl_low, recipe.rl_high)
        self._template = load_template("problem", "{question}", recipe.template)
        self._references = [Reference(config) for config in recipe.models]
        self._meter = meter

    @property
    def settings(self) -> Mapping[str, Any]:
        own = self._recipe.model_dump(
            include={"num_samples", "wave", "rl_low", "rl_high", "temperature", "max_response_tokens", "seed"}
        )
        models = [reference.identity for reference in self._references]
        return {"models": models, "template": self._template.sha256} | own

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        concurrency = max(reference.concurrency for reference in self._references)
        width = concurrency // min(self._recipe.wave, self._recipe.num_samples) + concurrency // 4 + 1
        return concurrently(rows, self._open, width)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Work]:
        sampling = Sampling(self._recipe.temperature, self._recipe.max_response_tokens)
        async with AsyncExitStack() as stack:
            meter = await stack.enter_async_context(self._meter())
            samplers = {
                reference.name: await stack.enter_async_context(reference.open(meter, sampling, self._recipe.seed))
                for reference in self._references
            }
            yield partial(self._rate, samplers)

    async def _rate(self, samplers: Mapping[str, Sampler], row: Row) -> Outcome:
        if not row.prompt.answer.strip():
            return passed(row, "has no answer to check")
        prompt = named(self._template.fill_prompt(row.prompt), row.id)
        (first, sampler), *others = samplers.items()
        try:
            tries = {first: await self._try(sampler, prompt, lambda found: self._set_of_first(found) is not None)}
            found = self._set_of_first(tries[first])
            for name, sampler in others if found == "hard" else ():
                tries[name] = await self._try(sampler, prompt, lambda found: self._is_never_solved(found) is not None)
                is_never_solved = self._is_never_solved(tries[name])
                found = {True: "hard", False: "between", None: None}[is_never_solved]
                if found != "hard":
                    break
        except DataError as error:
            return dropped(row, "cannot be put to a model", str(error))
        models = {name: each.to_dict() for name, each in tries.items()}
        num_in_doubt = sum(each.num_in_doubt for each in tries.values())
        in_doubt = doubts(num_in_doubt, sum(each.num_unanswered for each in tries.values()))
        if found is None:
            unknown = max(each.num_unverifiable for each in tries.values())
            detail = f"{unknown} samples"
            return dropped(row, "too many samples cannot be verified", detail, models=models, **in_doubt)
        return kept(row, set=found, models=models, **models[first], **in_doubt)

    def _set_of_first(self, tries: Tries) -> str | None:
        return set_of_first(tries, self._recipe.num_samples, self._band)

    def _is_never_solved(self, tries: Tries) -> bool | None:
        return is_never_solved(tries, self._recipe.num_samples)

    async def _try(self, sampler: Sampler, prompt: Prompt, is_clear: Callable[[Tries], bool]) -> Tries:
        tries = Tries()
        for start in range(0, self._recipe.num_samples, self._recipe.wave):
            draws = range(start, min(start + self._recipe.wave, self._recipe.num_samples))
            samples = await sampler.sample(prompt, draws)
            for sample, verdict in zip(samples, await _verdicts(samples, prompt), strict=True):
                tries = tries.add(verdict, is_in_doubt=sample.is_in_doubt, is_unanswered=sample.is_unanswered)
            if is_clear(tries):
                break
        return tries


async def _verdicts(samples: Sequence[Sampled], prompt: Prompt) -> list[Verdict]:
    """In threads, since computer algebra may take its time."""
    return await asyncio.gather(*(asyncio.to_thread(check_sample, sample, prompt) for sample in samples))


def check_sample(sample: Sampled, prompt: Prompt) -> Verdict:
    """By the answer, whatever the format; a sample that there is not is unverifiable."""
    if sample.text is None:
        return Verdict("unverifiable", Rule.CHECKER_ERROR)
    response = parse_response(sample.text)
    answer = response.answer if response.answer is not None else answer_of_free_text(sample.text)
    return verify_answer(answer, prompt.answer, equivalents=prompt.equivalents, choices=prompt.choices or None)
