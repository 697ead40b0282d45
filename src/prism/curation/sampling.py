"""Samples of reference models, behind servers or in this process, through one interface."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from prism.config.benchmarks import LocalModel
from prism.config.curation import AskedServers
from prism.curation.asking import chat_servers
from prism.curation.concurrency import finish_all
from prism.errors import PrismError
from prism.records import Prompt
from prism.rollout.openai_engine import chat_messages
from prism.rollout.openai_messages import ChatRequest
from prism.rollout.openai_pool import ChatPool, InDoubtError, Meter, RequestError
from prism.rollout.sampling import RolloutEngine, Sampling
from prism.runtime.hashing import path_sha256
from prism.runtime.seeding import derive_seed, derive_small_seed

_GATHER_S = 0.01


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sample, or the reason why there is none. One that is not finished was cut off by the limit of tokens; one in
    doubt may have been paid for; for one that is unanswered it is worth asking again."""

    text: str | None
    failure: str | None = None
    is_finished: bool = True
    is_in_doubt: bool = False
    is_unanswered: bool = False


class Sampler(Protocol):
    """One reference model. `prompt.id` is the row's id."""

    async def sample(self, prompt: Prompt, draws: Sequence[int]) -> list[Sampled]:
        """One sample per draw. Raises DataError for a prompt that cannot be put to the model, and RolloutError."""
        ...


class ServedSampler:
    def __init__(self, pool: ChatPool, sampling: Sampling, seed: int) -> None:
        self._pool, self._sampling, self._seed = pool, sampling, seed

    async def sample(self, prompt: Prompt, draws: Sequence[int]) -> list[Sampled]:
        messages = chat_messages(prompt)
        requests = [
            ChatRequest(
                label=f"row {prompt.id!r}",
                messages=messages,
                temperature=self._sampling.temperature,
                max_tokens=self._sampling.max_tokens,
                seed=derive_small_seed(self._seed, prompt.id, draw),
                owner=prompt.id,
                draw=draw,
            )
            for draw in draws
        ]
        return await finish_all(map(self._ask, requests))

    async def _ask(self, request: ChatRequest) -> Sampled:
        try:
            reply = await self._pool.ask(request)
            return Sampled(reply.content, is_finished=reply.ending == "stop")
        except RequestError as error:
            if not error.is_its_own:
                raise
            is_in_doubt = isinstance(error, InDoubtError)
            return Sampled(None, error.failure.kind, is_in_doubt=is_in_doubt, is_unanswered=error.is_passing)


class LocalSampler:
    """An engine of this process: what rows ask for within a moment is sampled as one batch."""

    def __init__(self, engine: RolloutEngine, sampling: Sampling, seed: int) -> None:
        self._engine, self._sampling, self._seed = engine, sampling, seed
        self._waiting: list[_Asked] = []
        self._open: set[asyncio.Future[list[Sampled]]] = set()
        self._serving: asyncio.Task[None] | None = None

    async def sample(self, prompt: Prompt, draws: Sequence[int]) -> list[Sampled]:
        asked = _Asked(prompt, tuple(draws), asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._open.add(asked.samples)
        asked.samples.add_done_callback(self._open.discard)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
            self._serving.add_done_callback(self._pass_on)
        return await asked.samples

    async def _serve(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_S)
            waiting, self._waiting = self._waiting, []
            for draws in sorted({asked.draws for asked in waiting}):
                await self._sample_batch([asked for asked in waiting if asked.draws == draws], draws)

    async def _sample_batch(self, batch: list["_Asked"], draws: tuple[int, ...]) -> None:
        try:
            samples = await asyncio.to_thread(self._generate, [asked.prompt for asked in batch], draws)
        except PrismError as error:
            if len(batch) == 1:
                batch[0].samples.set_exception(error)
                return
            for asked in batch:  # one prompt is at fault, and only its row shall suffer
                await self._sample_batch([asked], draws)
        else:
            for asked, texts in zip(batch, samples, strict=True):
                if not asked.samples.done():  # else its row was given up
                    asked.samples.set_result(texts)

    def _generate(self, prompts: list[Prompt], draws: tuple[int, ...]) -> list[list[Sampled]]:
        seed = derive_seed(self._seed, draws[0])
        groups = self._engine.generate(prompts, num_samples=len(draws), sampling=self._sampling, seed=seed)
        return [
            [Sampled(rollout.text, is_finished=rollout.is_finished) for rollout in group.rollouts] for group in groups
        ]

    def _pass_on(self, serving: asyncio.Task[None]) -> None:
        """A defect of the engine ends those who wait for it."""
        if not serving.cancelled() and (error := serving.exception()) is not None:
            for future in list(self._open):
                future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Asked:
    prompt: Prompt
    draws: tuple[int, ...]
    samples: asyncio.Future[list[Sampled]]


class Reference:
    """A reference model as the recipe names it: what it is, and how to open it."""

    def __init__(self, config: AskedServers | LocalModel) -> None:
        """Raises ConfigError for servers that cannot be asked."""
        self.config = config
        self.servers = chat_servers(config) if isinstance(config, AskedServers) else []

    @property
    def name(self) -> str:
        return str(self.config.path) if isinstance(self.config, LocalModel) else self.config.model

    @property
    def identity(self) -> dict[str, object]:
        """What decides its samples: weights by content, or what they are called behind the servers."""
        if isinstance(self.config, LocalModel):
            return {"sha256": path_sha256(self.config.path), **self.config.changed_precision}
        return {"model": self.config.model, **self.config.model_dump(include={"extra_body", "takes_seed"})}

    @property
    def concurrency(self) -> int:
        """Samples at a time."""
        if isinstance(self.config, LocalModel):
            return self.config.batch_size
        return sum(server.concurrency for server in self.servers)

    @asynccontextmanager
    async def open(self, meter: Meter, sampling: Sampling, seed: int) -> AsyncIterator[Sampler]:
        if isinstance(self.config, LocalModel):
            # Here, since asking servers needs no torch.
            from prism.rollout.transformers_engine import TransformersEngine

            own = self.config
            engine = TransformersEngine.of_checkpoint(own.path, batch_size=own.batch_size, precision=own.precision)
            yield LocalSampler(engine, sampling, seed)
            return
        async with ChatPool(self.servers, meter) as pool:
            yield ServedSampler(pool, sampling, seed)


def named(prompt: Prompt, row_id: str) -> Prompt:
    """The prompt under the id of its row, which no other source's row has."""
    return replace(prompt, id=row_id)
