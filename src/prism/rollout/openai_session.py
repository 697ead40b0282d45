"""The connections to one server: one attempt at a request, and how many may be under way."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import openai
from pydantic import BaseModel

from prism.rollout.openai_failures import Failure
from prism.rollout.openai_messages import ChatReply, read_completion
from prism.rollout.openai_server import ChatServer

_CONNECT_TIMEOUT_S = 10.0
_KEEP_IDLE_S = 1.0
"""Shorter than any server keeps an idle connection: one that it closes as a request goes out takes the reply along."""
_NO_MODEL_LIST = (404, 405, 501)
_SHRINK = 0.5


class Pace:
    """How many requests one server may be given at a time: as many as `ceiling` until it says that it is too much.

    Additive increase, multiplicative decrease, as TCP shares a line: a refusal for load (429, 502, 503, 504, 529)
    halves the limit, once for all requests that were under way together; every answer raises it by 1/limit. After a
    refusal that names a time nothing is sent until then.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = float(ceiling)
        self._shrunk_at = float("-inf")
        self.resume_at = float("-inf")
        self.num_open = 0
        self.num_answered = 0
        self.num_lost = 0
        """Replies in a row that may have been lost on their way."""
        self.is_gone = False

    @property
    def limit(self) -> int:
        return int(self._limit)

    @property
    def load(self) -> float:
        return self.num_open / self.limit

    def has_room(self) -> bool:
        return not self.is_gone and self.num_open < self.limit and time.monotonic() >= self.resume_at

    def grow(self) -> None:
        self.num_answered += 1
        self.num_lost = 0
        self._limit = min(float(self._ceiling), self._limit + 1 / self._limit)

    def shrink(self, sent_at: float) -> None:
        """After the refusal of a request sent at `sent_at` (monotonic)."""
        if sent_at > self._shrunk_at:
            self._limit = max(1.0, self._limit * _SHRINK)
            self._shrunk_at = time.monotonic()

    def pause_until(self, moment: float) -> None:
        self.resume_at = max(self.resume_at, moment)


class Session:
    """Open until `close`. Errors and replies never hold the API key.

    Over `aiohttp`, which takes two thirds of the processor time that the library's own transport needs for a request,
    and does not take more with the number of connections.
    """

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.pace = Pace(server.concurrency)
        self._key = server.api_key()
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
            http_client=openai.DefaultAioHttpClient(
                trust_env=not server.is_loopback,
                limits=httpx2.Limits(max_connections=server.concurrency, keepalive_expiry=_KEEP_IDLE_S),
            ),
        )

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> ChatReply:
        """One attempt. Raises one of `openai_failures.PASSING`."""
        options: Any = {"headers": dict(headers)} if headers else {}
        async with asyncio.timeout(self.server.timeout_s):
            return read_completion(
                await self._client.post("/chat/completions", body=dict(body), cast_to=object, options=options)
            )

    async def models(self) -> list[dict[str, Any]]:
        """One attempt at the list of models, empty where the server has none."""
        try:
            async with asyncio.timeout(self.server.timeout_s):
                payload = await self._client.get("/models", cast_to=object)
        except openai.APIStatusError as error:
            if error.status_code in _NO_MODEL_LIST:
                return []
            raise
        return _Models.model_validate(payload).data

    def describe(self, label: str, failure: Failure, failures: int) -> str:
        """One line about a request that is given up after so many failures, the last one `failure`."""
        server, reason, advice = self.server, failure.reason, failure.advice
        if failure.wait_s is not None and failure.wait_s > server.longest_wait_s:
            advice = f"it asks to wait {failure.wait_s:.0f} s; give the same command again after that"
        elif not failure.is_final:
            reason = f"still failing after {failures} attempts: {reason}"
        return f"{server.address}, model {server.model!r}, {label}: {reason.replace(self._key, '***')}; {advice}"


class _Models(BaseModel):
    data: list[dict[str, Any]]
