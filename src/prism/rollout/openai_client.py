"""Chat completions from any OpenAI-compatible server: vLLM, SGLang, OpenAI, Gemini's compatible endpoint.

Many requests are under way at once. What may pass is asked again after a pause: 408, 409, 425, 429 and
5xx, cut connections, time-outs, replies that are no chat completion. What will not pass (400, 401, 404, …)
ends the call with a RolloutError. Neither errors nor records ever hold the API key.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import openai
from pydantic import BaseModel, Field

from prism.errors import RolloutError
from prism.rollout.openai_failures import PASSING, BadReply, Failure, diagnose, words_of
from prism.rollout.openai_server import ChatServer

_T = TypeVar("_T")

_CONNECT_TIMEOUT_S = 10.0
_LONGEST_BACKOFF_S = 30.0
_ENDINGS = ("stop", "length", "content_filter")
_NO_MODEL_LIST = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`label` is how errors name the request; `messages` are as the API takes them."""

    label: str
    messages: list[dict[str, Any]]
    temperature: float
    max_tokens: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ChatReply:
    """`reasoning` is what a server with a reasoning parser took out of the text, None from any other.

    `ending` is the API's finish_reason: "stop", "length" or "content_filter". `token_ids` is empty unless
    the server was asked for them (vLLM: `extra_body = {"return_token_ids": true}`). A count that the
    server does not give is None.
    """

    content: str
    reasoning: str | None
    ending: str
    token_ids: tuple[int, ...] = ()
    num_prompt_tokens: int | None = None
    num_completion_tokens: int | None = None


def chat(server: ChatServer, requests: Iterable[ChatRequest], on_reply: Callable[[int, ChatReply], None]) -> None:
    """Ask all `requests`, at most `server.concurrency` at a time; `on_reply` gets each one's index and reply.

    Replies come in any order, each as it arrives, so that what was answered before an error can be kept.
    `requests` is read lazily: only those under way are in memory. Works inside a running event loop, too.
    Raises RolloutError for the first request that fails for good; the others are given up.
    """
    _run(_chat(server, requests, on_reply))


def served_model(server: ChatServer) -> dict[str, str] | None:
    """What the server's list of models says about `server.model`: `id` and, from vLLM, `root`, the weights' place.

    None where the server has no such list or the model is not in it.
    """
    return _run(_served_model(server))


async def _chat(
    server: ChatServer, requests: Iterable[ChatRequest], on_reply: Callable[[int, ChatReply], None]
) -> None:
    numbered = enumerate(requests)

    async def work(session: "_Session") -> None:
        for number, request in numbered:
            on_reply(number, await session.complete(request))

    try:
        async with _Session(server) as session, asyncio.TaskGroup() as workers:
            for _ in range(server.concurrency):
                workers.create_task(work(session))
    except BaseExceptionGroup as errors:
        # The first failure cancelled the other workers: it is the one that matters.
        raise errors.exceptions[0] from None


async def _served_model(server: ChatServer) -> dict[str, str] | None:
    async with _Session(server) as session:
        models = await session.models()
    for model in models:
        if model.get("id") == server.model:
            return {key: model[key] for key in ("id", "root") if isinstance(model.get(key), str)}
    return None


def _run(task: Coroutine[Any, Any, _T]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(task)
    # A loop cannot be entered twice, and the caller's is busy with the call to us: a thread has its own.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, task).result()


class _Session:
    """The connections of one call. After a 429 that names a time all its requests wait, not only the refused one."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._key = server.api_key()
        self._resume_at = 0.0
        self._num_answered = 0
        self._jitter = random.Random()
        self._client = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=self._key,
            timeout=openai.Timeout(server.timeout_s, connect=min(_CONNECT_TIMEOUT_S, server.timeout_s)),
            max_retries=0,
            # The library would add OpenAI's account names, and headers of any kind, from the environment.
            default_headers={  # pyright: ignore[reportArgumentType]
                "Authorization": f"Bearer {self._key}",
                "OpenAI-Organization": openai.Omit(),
                "OpenAI-Project": openai.Omit(),
            },
            # A proxy for the outside world cannot reach this machine's own servers.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not server.is_loopback),
        )

    async def __aenter__(self) -> "_Session":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def complete(self, request: ChatRequest) -> ChatReply:
        body = _body(self._server, request)

        async def send() -> object:
            return await self._client.post("/chat/completions", body=body, cast_to=object)

        return await self._persist(request.label, send, _read_completion)

    async def models(self) -> list[dict[str, Any]]:
        async def send() -> object:
            try:
                return await self._client.get("/models", cast_to=object)
            except openai.APIStatusError as error:
                if error.status_code in _NO_MODEL_LIST:
                    return {"data": []}
                raise

        return await self._persist("list of models", send, lambda payload: _Models.model_validate(payload).data)

    async def _persist(self, label: str, send: Callable[[], Awaitable[object]], read: Callable[[object], _T]) -> _T:
        failures = answered = 0
        while True:
            await self._wait_until_allowed()
            try:
                async with asyncio.timeout(self._server.timeout_s):
                    result = read(await send())
            except PASSING as error:
                failure = diagnose(error, self._server.timeout_s)
            else:
                self._num_answered += 1
                return result
            # Outside the handler: the library's error holds the key and must not follow a RolloutError in a traceback.
            if failure.is_rate_limit and self._num_answered > answered:
                failures = 0  # slow, but the requests are getting through
            failures += 1
            answered = self._num_answered
            self._check_hope(label, failure, failures)
            await self._pause(failure, failures)

    def _check_hope(self, label: str, failure: Failure, failures: int) -> None:
        """Raises RolloutError where asking again cannot help or has not helped."""
        reason, advice = failure.reason, failure.advice
        if failure.wait_s is not None and failure.wait_s > self._server.longest_wait_s:
            advice = f"it asks to wait {failure.wait_s:.0f} s; give the same command again after that"
        elif not failure.is_final:
            if failures < self._server.max_attempts:
                return
            reason = f"still failing after {failures} attempts: {reason}"
        reason = reason.replace(self._key, "***")
        raise RolloutError(f"{self._server.address}, model {self._server.model!r}, {label}: {reason}; {advice}")

    async def _wait_until_allowed(self) -> None:
        while (wait := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _pause(self, failure: Failure, failures: int) -> None:
        if failure.wait_s is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + failure.wait_s)
            return
        longest = min(_LONGEST_BACKOFF_S, self._server.backoff_s * 2 ** (failures - 1))
        # Requests that failed together must not come back together.
        await asyncio.sleep(longest * self._jitter.uniform(0.5, 1.0))


def _body(server: ChatServer, request: ChatRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": server.model,
        "messages": request.messages,
        "temperature": request.temperature,
        # Stated because vLLM would otherwise take the checkpoint's own, which cuts the distribution.
        "top_p": 1.0,
        server.token_limit_field: request.max_tokens,
    }
    if request.seed is not None and server.takes_seed:
        body["seed"] = request.seed
    return body | dict(server.extra_body)


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    token_ids: tuple[int, ...] | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Models(BaseModel):
    data: list[dict[str, Any]]


def _read_completion(payload: object) -> ChatReply:
    if isinstance(payload, Mapping) and payload.get("choices") is None and words_of(payload):
        raise BadReply(words_of(payload))  # some proxies send an error as a success
    completion = _Completion.model_validate(payload)
    choice = completion.choices[0]
    if choice.finish_reason not in _ENDINGS:
        raise BadReply(f"finish_reason {choice.finish_reason!r}, which is no end of an answer")
    usage = completion.usage or _Usage()
    return ChatReply(
        content=choice.message.content or "",
        # vLLM renamed the field; SGLang and others keep the older name.
        reasoning=choice.message.reasoning or choice.message.reasoning_content,
        ending=choice.finish_reason,
        token_ids=choice.token_ids or (),
        num_prompt_tokens=usage.prompt_tokens,
        num_completion_tokens=usage.completion_tokens,
    )
