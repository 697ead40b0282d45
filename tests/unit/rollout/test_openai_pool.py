"""The pool against real servers: several of them, too busy, gone, and with books kept of every attempt."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from prism.errors import ConfigError, RolloutError
from prism.rollout.openai_failures import Failure
from prism.rollout.openai_messages import ChatReply, ChatRequest, read_completion
from prism.rollout.openai_pool import ChatPool, InDoubtError, Meter, RequestError
from prism.rollout.openai_server import ChatServer
from prism.rollout.openai_session import Pace
from servers.openai_stub import Received, Reply, Stub, completion, refusal, serving


def server(stub: Stub, **changes: Any) -> ChatServer:
    return ChatServer(stub.base_url, "tiny", **({"backoff_s": 0.01, "timeout_s": 5.0, "max_attempts": 4} | changes))


def request(number: int) -> ChatRequest:
    return ChatRequest(f"r{number}", [{"role": "user", "content": f"question {number}"}], 1.0, 10)


def ask_all(servers: list[ChatServer], count: int, meter: Meter | None = None) -> list[ChatReply | BaseException]:
    async def ask() -> list[ChatReply | BaseException]:
        async with ChatPool(servers, meter) as pool:
            return await asyncio.gather(*(pool.ask(request(n)) for n in range(count)), return_exceptions=True)

    return asyncio.run(ask())


def contents(results: list[ChatReply | BaseException]) -> list[str]:
    return [result.content if isinstance(result, ChatReply) else repr(result) for result in results]


def echo(received: Received) -> Reply:
    return Reply(completion(received.question).body, delay_s=0.01)


def test_servers_share_the_requests_by_their_room() -> None:
    with serving(echo) as large, serving(echo) as small:
        results = ask_all([server(large, concurrency=12), server(small, concurrency=4)], 160)
        assert contents(results) == [f"question {n}" for n in range(160)]
        assert large.busiest <= 12 and small.busiest <= 4
        assert len(large.received) > 1.5 * len(small.received) > 0


def test_a_server_that_is_gone_leaves_the_work_to_the_others() -> None:
    with serving(echo) as alive:
        gone = ChatServer("http://127.0.0.1:9/v1", "tiny", backoff_s=0.05)
        assert contents(ask_all([gone, server(alive)], 60)) == [f"question {n}" for n in range(60)]


def test_a_pool_of_no_server() -> None:
    with pytest.raises(ConfigError, match="no server"):
        ChatPool([])


def test_a_server_that_refuses_more_than_five_at_a_time_is_given_about_five() -> None:
    lock, state = threading.Lock(), Counter[str]()

    def answer(received: Received) -> Reply:
        with lock:
            state["open"] += 1
            is_too_much = state["open"] > 5
        if not is_too_much:
            time.sleep(0.01)
        with lock:
            state["open"] -= 1
            state["refused" if is_too_much else "answered"] += 1
        return refusal(429, "too many") if is_too_much else completion("x")

    with serving(answer) as stub:
        results = ask_all([server(stub, concurrency=64)], 400)
    assert contents(results) == ["x"] * 400
    # Without pacing, 59 of the first 64 are refused again and again: several refusals for every answer.
    assert state["refused"] < 200


def test_the_pace_halves_once_for_what_was_under_way_and_grows_by_one_a_round() -> None:
    pace = Pace(16)
    sent = time.monotonic()
    for _ in range(10):
        pace.shrink(sent)
    assert pace.limit == 8
    for _ in range(8):
        pace.grow()
    assert pace.limit == 8  # a little less than one more, since the limit grows meanwhile
    pace.grow()
    assert pace.limit == 9
    for _ in range(1000):
        pace.grow()
    assert pace.limit == 16
    for _ in range(20):
        pace.shrink(time.monotonic() + 1)
    assert pace.limit == 1


@pytest.mark.parametrize(
    ("status", "is_its_own"),
    [(400, True), (413, True), (422, True), (401, False), (402, False), (403, False), (404, False)],
)
def test_whose_matter_a_refusal_is(status: int, is_its_own: bool) -> None:
    with serving(lambda received: refusal(status, "no")) as stub:
        [error] = ask_all([server(stub)], 1)
    assert isinstance(error, RequestError) and error.failure.status == status
    assert error.is_its_own is is_its_own and not error.is_passing


def test_a_quota_that_is_used_up_is_everybodys_matter() -> None:
    body = {"error": {"message": "no more money", "type": "error", "code": "insufficient_quota"}}
    with serving(lambda received: Reply(body, 429)) as stub:
        results = ask_all([server(stub)], 3)
        assert len(stub.received) == 3
    assert all(isinstance(error, RequestError) and not error.is_its_own for error in results)


@pytest.mark.parametrize("others_are_answered", [True, False])
def test_a_request_that_keeps_failing_while_others_are_answered_is_at_fault_itself(others_are_answered: bool) -> None:
    def answer(received: Received) -> Reply:
        if received.question == "question 0" or not others_are_answered:
            return refusal(500, "crash")
        return Reply(completion("x").body, delay_s=0.02)

    with serving(answer) as stub:
        first, *others = ask_all([server(stub, concurrency=2)], 12 if others_are_answered else 1)
    assert isinstance(first, RequestError) and first.is_its_own is others_are_answered and first.is_passing
    assert contents(others) == ["x"] * len(others)


class Books:
    """A meter that writes down what it is told, and knows one reply already."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: dict[str, ChatReply | Failure] = {}

    def call(self, request: ChatRequest, body: Mapping[str, Any]) -> "Entry":
        assert body["messages"] == request.messages
        return Entry(self, request.label)


class Entry:
    may_pay_twice = True

    def __init__(self, books: Books, label: str) -> None:
        self.books, self.label = books, label

    async def recall(self) -> ChatReply | None:
        if self.label == "r1":
            return ChatReply("known", None, "stop")
        if self.label == "r2":
            raise RolloutError("no more money")
        return None

    async def begin(self, address: str) -> str:
        self.books.begun.append(f"{self.label}-{len(self.books.begun)}")
        return self.books.begun[-1]

    async def end(self, name: str, result: ChatReply | Failure, seconds: float) -> None:
        assert 0 <= seconds < 5
        self.books.ended[name] = result


class Strict:
    """Books that forbid to pay twice."""

    may_pay_twice = False

    def call(self, request: ChatRequest, body: Any) -> "Strict":
        return self

    async def recall(self) -> ChatReply | None:
        return None

    async def begin(self, address: str) -> str:
        return "name"

    async def end(self, name: str, result: ChatReply | Failure, seconds: float) -> None:
        pass


def test_a_server_that_loses_replies_does_not_swallow_the_requests() -> None:
    with (
        serving(lambda received: Reply(completion("x").body, delay_s=0.02)) as good,
        serving(lambda received: Reply(completion("lost").body, cut=True)) as bad,
    ):

        async def run() -> list[Any]:
            servers = [server(stub, concurrency=6, backoff_s=0.5) for stub in (good, bad)]
            async with ChatPool(servers, Strict()) as pool:
                return await asyncio.gather(*(pool.ask(request(n)) for n in range(300)), return_exceptions=True)

        results = asyncio.run(run())
    lost = [result for result in results if isinstance(result, InDoubtError)]
    # Gone after 6 in a row, when as many more may be under way.
    assert len(lost) == len(bad.received) <= 13 and len(good.received) == 300 - len(lost)
    assert all(error.is_its_own for error in lost)


@pytest.mark.parametrize(
    ("finish_reason", "ending"),
    [
        ("stop", "stop"), ("STOP", "stop"), ("end_turn", "stop"), ("MAX_TOKENS", "length"), ("length", "length"),
        ("SAFETY", "content_filter"), ("content_filter: RECITATION", "content_filter"), ("tool_calls", "tool_calls"),
    ],
)  # fmt: skip
def test_an_answer_that_ended_in_any_way_is_an_answer(finish_reason: str, ending: str) -> None:
    body = completion("text \ud83d", finish_reason, tokens=7).body
    assert read_completion(body) == ChatReply("text ?", None, ending, (), 11, 7)


def test_every_attempt_is_in_the_books_before_it_is_sent_and_after() -> None:
    books = Books()

    def answer(received: Received) -> Reply:
        assert received.headers["x-client-request-id"] in books.begun
        assert received.headers["x-client-request-id"] not in books.ended
        return refusal(503, "busy") if received.attempt < 3 else completion("x", tokens=7)

    with serving(answer) as stub:
        results = ask_all([server(stub)], 5, books)
    assert contents(results[:2]) == ["x", "known"] and "no more money" in str(results[2])
    assert contents(results[3:]) == ["x", "x"]
    assert sorted(books.ended) == sorted(books.begun) and len(books.begun) == 9
    assert sorted(received.headers["x-client-request-id"] for received in stub.received) == sorted(books.begun)
    kinds = Counter(result.kind if isinstance(result, Failure) else "reply" for result in books.ended.values())
    assert kinds == {"server error": 6, "reply": 3}
