"""Requests to any number of servers that serve one model: shared out, paced, repeated, and metered.

What may pass is asked again after a pause: 408, 409, 425, 429 and 5xx, servers that cannot be reached, replies that are
no chat completion, and, unless the books forbid it, cut connections and time-outs, which the model may have answered at
its price. What will not pass (400, 401, 404, …) raises RequestError.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from prism.errors import ConfigError, RolloutError
from prism.rollout.openai_failures import PASSING, Failure, diagnose
from prism.rollout.openai_messages import ChatReply, ChatRequest, request_body
from prism.rollout.openai_server import ChatServer
from prism.rollout.openai_session import Session
from prism.runtime.progress import make_console, say

_T = TypeVar("_T")

_LONGEST_BACKOFF_S = 30.0
_LOST_BY_CHANCE = 3
"""Replies in a row."""
_OF_ALL_REQUESTS = (401, 402, 403, 404, 429)
"""Of final refusals: the key, the bill, the address, the quota."""


class RequestError(RolloutError):
    """A request that has failed for good, by `failure`.

    `is_its_own` says that it is the matter of this request: others are answered, or may be.
    """

    def __init__(self, message: str, failure: Failure, *, is_its_own: bool) -> None:
        super().__init__(message)
        self.failure = failure
        self.is_its_own = is_its_own

    @property
    def is_passing(self) -> bool:
        """Whether it may be answered at another time. Where others were, it may still have been the server's matter."""
        return not self.failure.is_final


class InDoubtError(RequestError):
    """The request may have been answered and paid for, but no reply has arrived, and it is not to be paid for twice."""

    def __init__(self, message: str, failure: Failure, *, is_its_own: bool = True) -> None:
        super().__init__(message, failure, is_its_own=is_its_own)


class Call(Protocol):
    """The books of one request, over all attempts at it."""

    @property
    def may_pay_twice(self) -> bool:
        """Whether to ask again when an answer may have been lost on its way."""
        ...

    async def recall(self) -> ChatReply | None:
        """The reply, where an earlier run has paid for it. May raise, and then the request is not sent."""
        ...

    async def begin(self, address: str) -> str:
        """Returns, with the attempt written down, the name to send it under. May raise, and then it is not sent."""
        ...

    async def end(self, name: str, result: ChatReply | Failure, seconds: float) -> None: ...


class Meter(Protocol):
    """Keeps the books of what is sent."""

    def call(self, request: ChatRequest, body: Mapping[str, Any]) -> Call: ...


class ChatPool:
    """Use as an async context manager. A request goes to the server with the most room.

    `servers` differ in their addresses only. After a 429 that names a time all requests to that server wait; of
    several servers one that cannot be reached is left alone for a while.
    """

    def __init__(self, servers: Sequence[ChatServer], meter: Meter | None = None) -> None:
        if not servers:
            raise ConfigError("no server is named: give at least one base_url")
        self._sessions = [Session(server) for server in servers]
        self._meter = meter
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._jitter = random.Random()
        self._end: RequestError | None = None
        """Why nothing is sent any more."""

    async def __aenter__(self) -> "ChatPool":
        return self

    async def __aexit__(self, *error: object) -> None:
        for session in self._sessions:
            await session.close()

    async def ask(self, request: ChatRequest) -> ChatReply:
        """Raises RequestError, and what the meter raises."""
        body = request_body(self._sessions[0].server, request)
        if self._meter is None:
            return await self._persist(request.label, lambda session: session.complete(body))
        call = self._meter.call(request, body)
        known = await call.recall()
        if known is not None:
            return known
        return await self._persist(
            request.label, lambda session: _metered(session, body, call), asks_lost_again=call.may_pay_twice
        )

    async def models(self) -> list[dict[str, Any]]:
        return await self._persist("list of models", lambda session: session.models())

    async def _persist(
        self, label: str, send: Callable[[Session], Awaitable[_T]], *, asks_lost_again: bool = True
    ) -> _T:
        failures, answered = 0, self._num_answered()
        first_answered, is_cut_off = answered, False
        while True:
            session = await self._take()
            sent_at = time.monotonic()
            try:
                result = await send(session)
            except PASSING as error:
                failure = diagnose(error, session.server.timeout_s)
            else:
                session.pace.grow()
                return result
            finally:
                self._give_back(session)
            # Outside the handler: the library's error holds the key and must not follow a RolloutError in a traceback.
            if failure.is_overload:
                session.pace.shrink(sent_at)
            if failure.is_rate_limit and self._num_answered() > answered:
                failures = 0  # slow, but the requests are getting through
            if failure.is_lost and not asks_lost_again:
                raise self._in_doubt(session, label, failure)
            failures += 1
            answered = self._num_answered()
            if failure.is_unreachable and not is_cut_off:
                # What was answered before a server went is no sign that it is there.
                first_answered, is_cut_off = answered, True
            if _is_hopeless(session.server, failure, failures):
                is_its_own = (failure.is_final and failure.status not in _OF_ALL_REQUESTS) or (
                    not failure.is_final and answered > first_answered
                )
                raise RequestError(session.describe(label, failure, failures), failure, is_its_own=is_its_own)
            await self._pause(session, failure, failures)

    def _in_doubt(self, session: Session, label: str, failure: Failure) -> InDoubtError:
        """A server that has lost more in a row than it is given at a time, and a few, is gone and given nothing more;
        once all are, it is everybody's matter.

        It fails faster than others answer, so that it would be given more and more of the requests: it rests before.
        """
        session.pace.num_lost += 1
        server, num_lost = session.server, session.pace.num_lost
        if num_lost > _LOST_BY_CHANCE:
            self._rest(session, min(_LONGEST_BACKOFF_S, server.backoff_s * 2 ** (num_lost - _LOST_BY_CHANCE - 1)))
        failure = replace(failure, is_final=True, advice="it may have been paid for: ask_in_doubt sends it again")
        message = session.describe(label, failure, 1)
        if num_lost > max(server.concurrency, server.max_attempts) and not session.pace.is_gone:
            session.pace.is_gone = True
            say(make_console(), f"{message}; {num_lost} in a row, so that this server is given nothing more")
        if all(session.pace.is_gone for session in self._sessions):
            self._end = RequestError(message, failure, is_its_own=False)
            self._wake()
        return InDoubtError(message, failure, is_its_own=self._end is None)

    async def _take(self) -> Session:
        while True:
            if self._end is not None:
                raise self._end
            free = [session for session in self._sessions if session.pace.has_room()]
            if free:
                session = min(free, key=lambda session: session.pace.load)
                session.pace.num_open += 1
                return session
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def _give_back(self, session: Session) -> None:
        session.pace.num_open -= 1
        self._wake()

    def _wake(self) -> None:
        """As many of those who wait as there is room for; who finds none, because another came first, waits again."""
        rooms = (session.pace.limit - session.pace.num_open for session in self._sessions if session.pace.has_room())
        room = sum(rooms) if self._end is None else len(self._waiting)
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                room -= 1

    async def _pause(self, session: Session, failure: Failure, failures: int) -> None:
        if failure.wait_s is not None:
            self._rest(session, failure.wait_s)
            return
        longest = min(_LONGEST_BACKOFF_S, session.server.backoff_s * 2 ** (failures - 1))
        if failure.is_unreachable and len(self._sessions) > 1:
            self._rest(session, longest)
            return
        # Requests that failed together must not come back together.
        await asyncio.sleep(longest * self._jitter.uniform(0.5, 1.0))

    def _rest(self, session: Session, seconds: float) -> None:
        session.pace.pause_until(time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds + 0.001, self._wake)

    def _num_answered(self) -> int:
        return sum(session.pace.num_answered for session in self._sessions)


async def _metered(session: Session, body: Mapping[str, Any], call: Call) -> ChatReply:
    name = await call.begin(session.server.address)
    start = time.monotonic()
    try:
        reply = await session.complete(body, {"X-Client-Request-Id": name})
    except PASSING as error:
        await call.end(name, diagnose(error, session.server.timeout_s), time.monotonic() - start)
        raise
    await call.end(name, reply, time.monotonic() - start)
    return reply


def _is_hopeless(server: ChatServer, failure: Failure, failures: int) -> bool:
    """Where asking again cannot help or has not helped."""
    if failure.wait_s is not None and failure.wait_s > server.longest_wait_s:
        return True
    return failure.is_final or failures >= server.max_attempts
