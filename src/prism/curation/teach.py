"""Demonstrations from a teacher that can only be asked: several a problem, in the format, their failures told apart."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from prism.config.curation import TeachRecipe
from prism.curation.asking import OpenMeter, chat_servers, num_rows_at_once, open_meter, open_pool
from prism.curation.concurrency import Work, concurrently, finish_all
from prism.curation.demonstration import NO_REPLY, REQUEST_FAILED
from prism.curation.rows import Outcome, Row, doubts, dropped, kept, passed
from prism.curation.running import run_step
from prism.curation.store import Part, Store
from prism.curation.templates import load_template
from prism.curation.texts import check_response
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.rewards import parse_response
from prism.rollout.openai_engine import chat_messages
from prism.rollout.openai_messages import ChatReply, ChatRequest
from prism.rollout.openai_pool import ChatPool, InDoubtError, RequestError
from prism.runtime.seeding import derive_small_seed

STEP = "teach"
_LONGEST_REFUSAL = 1000
"""Characters: a longer text without the format is an attempt at an answer."""

_REFUSAL = re.compile(
    r"\b(?:I(?:'|’)?m sorry|I am sorry|I apologi[sz]e|as an AI|I(?:'m| am) (?:unable|not able)|"
    r"I (?:can(?:no|')t|can’t|won(?:'|’)t|must decline))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of one sample: a text in the format, or a `failure`, a fixed phrase, with its `detail`. Where it is
    unanswered, it is worth asking again."""

    draw: int
    text: str | None = None
    is_repaired: bool = False
    failure: str | None = None
    detail: str | None = None
    is_unanswered: bool = False


def run_teach(store: Store, recipe: TeachRecipe, part: Part) -> None:
    """Teaches the part's rows; raises what `run_step` and `Teach` raise, with everything kept that was answered."""
    meter = open_meter(store, part, STEP, recipe)
    run_step(store, Teach(recipe, meter), part, resolve_doubts=recipe.ask_in_doubt)


class Teach:
    """Keeps rows with at least one sample whose format is valid; findings: `samples`, and `failures` by reason.

    A sample has `text`, `draw` and `is_repaired`. Nothing is said of its answer: that is for the steps behind. Raises,
    from `run`, BudgetError, and RolloutError where the server refuses everybody.
    """

    name = STEP

    def __init__(self, recipe: TeachRecipe, meter: OpenMeter) -> None:
        self._recipe = recipe
        self._template = load_template("demonstration", "{question}", recipe.template)
        self._repair = load_template("repair", "{failure}", recipe.repair_template)
        self._servers = chat_servers(recipe.teacher)
        self._meter = meter

    @property
    def settings(self) -> Mapping[str, Any]:
        recipe = self._recipe
        return {
            "model": recipe.teacher.model,
            "extra_body": recipe.teacher.extra_body,
            "takes_seed": recipe.teacher.takes_seed,
            "template": self._template.sha256,
            "repair_template": self._repair.sha256,
        } | recipe.model_dump(include={"num_samples", "temperature", "max_response_tokens", "rows", "seed"})

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        return concurrently(rows, self._open, num_rows_at_once(self._servers, self._recipe.num_samples))

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Work]:
        async with open_pool(self._servers, self._meter) as pool:
            yield partial(self._demonstrate, pool)

    async def _demonstrate(self, pool: ChatPool, row: Row) -> Outcome:
        reason = self._reason_to_pass(row)
        if reason is not None:
            return passed(row, reason)
        try:
            messages = chat_messages(self._template.fill_prompt(row.prompt))
        except DataError as error:
            return dropped(row, "cannot be put to the teacher", str(error))
        draws = range(self._recipe.num_samples)
        samples = await finish_all(self._sample(pool, row, messages, draw) for draw in draws)
        return _outcome(row, samples, self._recipe.teacher.model)

    def _reason_to_pass(self, row: Row) -> str | None:
        if self._recipe.rows == "all":
            return None
        if row.completion is not None:
            return "has a demonstration"
        is_hard = row.findings.get("difficulty", {}).get("set", "hard") == "hard"
        return None if is_hard else "is not in the hard set"

    async def _sample(self, pool: ChatPool, row: Row, messages: list[dict[str, Any]], draw: int) -> Sample:
        try:
            reply = await pool.ask(self._request(row, messages, draw, self._recipe.temperature))
            sample = judge_reply(reply, draw)
            if sample.failure != MALFORMED:
                return sample
            repair = {"role": "user", "content": self._repair.fill(sample.detail or "")}
            conversation = [*messages, {"role": "assistant", "content": reply.content}, repair]
            repaired = judge_reply(await pool.ask(self._request(row, conversation, draw, 0.0)), draw)
        except RequestError as error:
            if not error.is_its_own:
                raise
            failure = NO_REPLY if isinstance(error, InDoubtError) else f"{REQUEST_FAILED}: {error.failure.kind}"
            return Sample(draw, failure=failure, detail=error.failure.reason, is_unanswered=error.is_passing)
        if repaired.text is None:
            return Sample(draw, failure="malformed, also after repair", detail=repaired.detail or repaired.failure)
        return Sample(draw, repaired.text, is_repaired=True)

    def _request(self, row: Row, messages: list[dict[str, Any]], draw: int, temperature: float) -> ChatRequest:
        return ChatRequest(
            label=f"row {row.id!r}",
            messages=messages,
            temperature=temperature,
            max_tokens=self._recipe.max_response_tokens,
            seed=derive_small_seed(self._recipe.seed, row.id, draw),
            owner=row.id,
            draw=draw,
        )


MALFORMED, REFUSED, TRUNCATED, FILTERED = "malformed", "refused", "truncated", "filtered by the server"


def judge_reply(reply: ChatReply, draw: int) -> Sample:
    """A reply as a sample: in the format, or what is wrong with it. Its reasoning apart, if any, is no part of it."""
    text = reply.content.strip()
    if reply.ending == "content_filter":
        return Sample(draw, failure=FILTERED)
    if reply.ending == "length":
        return Sample(draw, failure=TRUNCATED, detail=f"after {len(text):,} characters")
    if reply.ending != "stop":
        return Sample(draw, failure="ended for another reason", detail=reply.ending)
    response = parse_response(text)
    if response.is_valid:
        return _valid_sample(draw, text)
    if not text or (len(text) <= _LONGEST_REFUSAL and _REFUSAL.search(text)):
        return Sample(draw, failure=REFUSED, detail=text[:200] or "an empty reply")
    return Sample(draw, failure=MALFORMED, detail=response.reason)


def _valid_sample(draw: int, text: str) -> Sample:
    """Malformed where an imported demonstration would be rejected, so that what is exported can be imported."""
    try:
        check_response(text, "the response")
    except RowError as error:
        return Sample(draw, failure=MALFORMED, detail=str(error))
    return Sample(draw, text)


def _outcome(row: Row, samples: list[Sample], model: str) -> Outcome:
    texts = [
        {"text": sample.text, "draw": sample.draw, "is_repaired": sample.is_repaired}
        for sample in samples
        if sample.text is not None
    ]
    failures = Counter(sample.failure for sample in samples if sample.failure is not None)
    num_unanswered = sum(sample.is_unanswered for sample in samples)
    found = {"failures": dict(failures), **doubts(failures[NO_REPLY], num_unanswered)}
    if texts:
        return kept(row, model=model, samples=texts, **found)
    reason, _ = failures.most_common(1)[0]
    detail = next(sample.detail for sample in samples if sample.failure == reason)
    return dropped(row, f"no sample is usable: {reason}", detail, **found)
