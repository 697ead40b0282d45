"""Which of a row's demonstrations hold, and which one is taken: rules first, a judge where these cannot decide."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prism.config.curation import VerifyRecipe
from prism.curation.agreement import count_same, is_enough, verdicts_by_majority
from prism.curation.asking import OpenMeter, chat_servers, num_rows_at_once, open_meter, open_pool
from prism.curation.concurrency import Work, concurrently, finish_all
from prism.curation.demonstration import num_failed_samples
from prism.curation.grounding import Grounding, check_grounding
from prism.curation.ledger import IN_DOUBT
from prism.curation.rows import Outcome, Row, doubts, dropped, kept, passed
from prism.curation.running import Execute, here, run_step
from prism.curation.store import Part, Store
from prism.evals.judge import Case, fill, parse_verdict, reference_answer, template_sha256
from prism.records import Prompt, Response
from prism.rewards import parse_response, verify_answer
from prism.rollout.openai_messages import ChatRequest
from prism.rollout.openai_pool import ChatPool, InDoubtError, RequestError

STEP = "verify"
_RULES = 3
"""Raised when the same rows would be judged otherwise."""

_JUDGED = {"correct": "correct", "incorrect": "wrong"}
_NO_AGREEMENT = "has no answer, and its demonstrations do not agree"
_TIED = "has no answer, and its demonstrations agree on several"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A demonstration whose format is valid. `num_agreeing` counts those with its answer, itself included.

    `judge_failure` is the kind of failure for which the judge has said nothing, or `IN_DOUBT` for a reply that may have
    been paid for and has not arrived; where it `is_unanswered`, it is worth asking again.
    """

    draw: int
    is_repaired: bool
    response: Response
    grounding: Grounding
    verdict: str
    decided_by: str
    num_agreeing: int = 1
    judge_failure: str | None = None
    is_unanswered: bool = False

    @property
    def answer(self) -> str:
        return self.response.answer or ""


def run_verify(store: Store, recipe: VerifyRecipe, part: Part, execute: Execute = here) -> None:
    """Verifies the part's rows; raises what `run_step` and `Verify` raise. With a judge this process does the work,
    whatever `execute` says, since the books of the requests are kept here."""
    verify = Verify(recipe, open_meter(store, part, STEP, recipe))
    run_step(store, verify, part, here if recipe.judge else execute, resolve_doubts=recipe.ask_in_doubt)


class Verify:
    """Keeps rows with a demonstration that is in the format, has the right answer and rests on what it describes.

    Findings: the `text` that was taken, its `draw`, `why` it and no other, who decided (`decided_by`: rules, judge or
    agreement), the `agreement` of all samples, those that came to nothing included (the share that has the most
    frequent answer), counts of samples in the format by `verdicts`, and what `Grounding` has. Where the judge was asked
    in vain, whatever became of the row, counts of `judge_failures` by kind, and what `doubts` says of its replies. A
    row's samples are those of `teach`, or the one it was imported with. Raises, from `run`, BudgetError, and
    RolloutError where the judge's server refuses everybody.
    """

    name = STEP

    def __init__(self, recipe: VerifyRecipe, meter: OpenMeter) -> None:
        self._recipe = recipe
        self._meter = meter
        self._servers = chat_servers(recipe.judge) if recipe.judge else []

    @property
    def settings(self) -> Mapping[str, Any]:
        recipe = self._recipe
        judge = recipe.judge and {
            "model": recipe.judge.model,
            "extra_body": recipe.judge.extra_body,
            "template": template_sha256("answer"),
            "max_tokens": recipe.judge_max_tokens,
        }
        own = {"min_agreement", "min_caption_words", "min_caption_items", "max_numbers_from_nowhere"}
        return {"rules": _RULES, "judge": judge, **recipe.model_dump(include=own)}

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        if self._recipe.judge is not None:
            return concurrently(rows, self._open, num_rows_at_once(self._servers, 1))
        return (self._conclude(row, _check(row)) for row in rows)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Work]:
        async with open_pool(self._servers, self._meter) as pool:
            yield partial(self._judge, pool)

    async def _judge(self, pool: ChatPool, row: Row) -> Outcome:
        candidates = await asyncio.to_thread(_check, row)
        if candidates and row.prompt.answer.strip():
            candidates = await finish_all(self._ask(pool, row, candidate) for candidate in candidates)
        return await asyncio.to_thread(self._conclude, row, candidates)

    async def _ask(self, pool: ChatPool, row: Row, candidate: Candidate) -> Candidate:
        """With the judge's verdict where rules had none, or with why it has said nothing; as it was where the judge
        cannot decide either."""
        if candidate.verdict != "unverifiable":
            return candidate
        content = fill(Case(row.prompt.question, reference_answer(row.prompt), candidate.answer))
        request = ChatRequest(
            label=f"row {row.id!r}",
            messages=[{"role": "user", "content": content}],
            temperature=0.0,
            max_tokens=self._recipe.judge_max_tokens,
            owner=row.id,
            draw=candidate.draw,
        )
        try:
            reply = await pool.ask(request)
        except RequestError as error:
            if not error.is_its_own:
                raise
            failure = IN_DOUBT if isinstance(error, InDoubtError) else error.failure.kind
            decided_by = f"judge failed: {failure}"
            return replace(candidate, judge_failure=failure, decided_by=decided_by, is_unanswered=error.is_passing)
        verdict = _JUDGED.get(parse_verdict(reply.content) or "") if reply.ending == "stop" else None
        return candidate if verdict is None else replace(candidate, verdict=verdict, decided_by="judge")

    def _conclude(self, row: Row, candidates: Sequence[Candidate] | None) -> Outcome:
        if candidates is None:
            return passed(row, "has no demonstration")
        if not candidates:
            return dropped(row, "no demonstration is in the format", parse_response(_samples(row)[0][1]).reason)
        candidates = self._compare(row, candidates)
        evidence = _evidence(row, candidates)
        faults = [self._fault(row.prompt, candidate) for candidate in candidates]
        judged = list(zip(candidates, faults, strict=True))
        right = [(candidate, fault) for candidate, fault in judged if candidate.verdict == "correct"]
        sound = [candidate for candidate, fault in right if fault is None]
        if sound:
            chosen = min(sound, key=_preference)
            return kept(row, **_findings(chosen, len(sound), len(candidates)), **evidence)
        # A demonstration that does not hold whatever the judge had said of it does not hang on the judge.
        missing = Counter(each.judge_failure for each, fault in judged if each.judge_failure and fault is None)
        if missing:
            kind = IN_DOUBT if IN_DOUBT in missing else missing.most_common(1)[0][0]
            return dropped(row, f"judge failed: {kind}", _answers(row, candidates), **evidence)
        if right:
            reason, detail = next(fault for _, fault in right if fault is not None)
            return dropped(row, reason, detail, **evidence)
        return dropped(row, self._reason_not_right(row, candidates), _answers(row, candidates), **evidence)

    def _compare(self, row: Row, candidates: Sequence[Candidate]) -> list[Candidate]:
        """How many agree with each; where the row has no answer to check against, that is the verdict."""
        answers = [candidate.answer for candidate in candidates]
        counts = count_same(answers)
        compared = [replace(each, num_agreeing=count) for each, count in zip(candidates, counts, strict=True)]
        if row.prompt.answer.strip():
            return compared
        verdicts = verdicts_by_majority(answers, counts, self._recipe.min_agreement, _num_failed(row, candidates))
        return [
            replace(each, verdict=verdict, decided_by="agreement")
            for each, verdict in zip(compared, verdicts, strict=True)
        ]

    def _reason_not_right(self, row: Row, candidates: Sequence[Candidate]) -> str:
        if not row.prompt.answer.strip():
            counts = [candidate.num_agreeing for candidate in candidates]
            is_tied = is_enough(counts, self._recipe.min_agreement, _num_failed(row, candidates))
            return _TIED if is_tied else _NO_AGREEMENT
        if any(candidate.verdict == "unverifiable" for candidate in candidates):
            return "no demonstration's answer can be verified as right"
        return "no demonstration's answer is right"

    def _fault(self, prompt: Prompt, candidate: Candidate) -> tuple[str, str] | None:
        recipe, found = self._recipe, candidate.grounding
        if found.num_caption_words < recipe.min_caption_words:
            return "description is too short", f"{found.num_caption_words} words"
        if found.num_caption_items < recipe.min_caption_items:
            return "description has too few items", f"{found.num_caption_items}"
        if len(found.from_nowhere) > recipe.max_numbers_from_nowhere:
            return "numbers in the reasoning are in no evidence", ", ".join(found.from_nowhere[:10])
        return None


def _samples(row: Row) -> list[tuple[int, str, bool]]:
    """Draw, text, and whether it was repaired."""
    taught = row.findings.get("teach", {}).get("samples")
    if taught:
        return [(sample["draw"], sample["text"], sample["is_repaired"]) for sample in taught]
    return [] if row.completion is None else [(0, row.completion, False)]


def _check(row: Row) -> list[Candidate] | None:
    """The demonstrations in the format, by the rules; None where there are no demonstrations at all."""
    samples = _samples(row)
    if not samples:
        return None
    prompt, candidates = row.prompt, []
    for draw, text, is_repaired in samples:
        response = parse_response(text)
        if response.is_valid:
            verdict = verify_answer(
                response.answer or "",
                prompt.answer,
                equivalents=prompt.equivalents,
                choices=prompt.choices or None,
            )
            grounding = check_grounding(prompt, response)
            candidates.append(Candidate(draw, is_repaired, response, grounding, str(verdict), f"rules: {verdict.rule}"))
    return candidates


def _num_failed(row: Row, candidates: Sequence[Candidate]) -> int:
    """Of the row's samples, how many are not among the candidates, since they have no answer."""
    return num_failed_samples(row) + len(_samples(row)) - len(candidates)


def _evidence(row: Row, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What is told of every row with a demonstration in the format."""
    failures = Counter(candidate.judge_failure for candidate in candidates if candidate.judge_failure)
    evidence: dict[str, Any] = {
        "agreement": max(each.num_agreeing for each in candidates) / (len(candidates) + _num_failed(row, candidates)),
        "verdicts": dict(Counter(candidate.verdict for candidate in candidates)),
    }
    if failures:
        evidence["judge_failures"] = dict(failures)
    evidence |= doubts(failures[IN_DOUBT], sum(candidate.is_unanswered for candidate in candidates))
    return evidence


def _answers(row: Row, candidates: Sequence[Candidate]) -> str:
    answers = Counter(candidate.answer[:100] for candidate in candidates)
    detail = ", ".join(f"{answer} ({count})" for answer, count in answers.most_common(5))
    return f"{detail} for {row.prompt.answer[:100]}"


def _preference(candidate: Candidate) -> tuple[int, int, bool, int]:
    """The least is taken: with the most frequent answer, fewest numbers from nowhere, never repaired, first drawn."""
    return -candidate.num_agreeing, len(candidate.grounding.from_nowhere), candidate.is_repaired, candidate.draw


def _findings(chosen: Candidate, num_sound: int, num_valid: int) -> dict[str, Any]:
    found = chosen.grounding
    why = (
        f"first of {num_sound} sound among {num_valid} in the format, by agreement ({chosen.num_agreeing}), "
        f"numbers from nowhere ({len(found.from_nowhere)}), {'' if chosen.is_repaired else 'not '}repaired"
    )
    return {
        "text": chosen.response.text,
        "draw": chosen.draw,
        "why": why,
        "decided_by": chosen.decided_by,
        "num_sound": num_sound,
        "num_valid": num_valid,
        "num_caption_words": found.num_caption_words,
        "num_caption_items": found.num_caption_items,
        "num_steps": found.num_steps,
        "from_nowhere": list(found.from_nowhere),
    }
