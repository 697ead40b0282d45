"""Books of requests to a real server: recalled, in doubt, and on the disk before anything is sent."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from curated_rows import made
from prism.curation import Outcome, Part, Row, Store
from prism.curation.budget import Account, Price
from prism.curation.concurrency import concurrently
from prism.curation.ledger import FILE, Ledger
from prism.curation.rows import kept
from prism.curation.spending import count_spending, read_ledger
from prism.errors import BudgetError, StorageError
from prism.rollout.openai_messages import ChatReply, ChatRequest
from prism.rollout.openai_pool import ChatPool, InDoubtError, RequestError
from prism.rollout.openai_server import ChatServer
from servers.openai_stub import Received, Reply, Stub, completion, refusal, serving

PRICE = Price(prompt=1.0, completion=10.0)


def request(number: int, draw: int = 0) -> ChatRequest:
    messages = [{"role": "user", "content": f"question {number}"}]
    return ChatRequest(f"r{number}", messages, 1.0, 10, owner=f"made/{number}", draw=draw)


def ask(store: Store, stub: Stub, requests: list[ChatRequest], **settings: Any) -> list[ChatReply | BaseException]:
    account = settings.pop("account", None) or Account(PRICE)
    of_server: dict[str, Any] = {"timeout_s": 20.0} | {
        name: settings.pop(name) for name in ("timeout_s", "concurrency") if name in settings
    }
    directories = {number: store.shard_directory(number) for number in range(store.num_shards)}

    async def run() -> list[ChatReply | BaseException]:
        ledger = Ledger(directories, store.shard_of, step="teach", account=account, **settings)
        server = ChatServer(stub.base_url, "tiny", backoff_s=0.01, max_attempts=4, **of_server)
        async with ledger, ChatPool([server], ledger) as pool:
            return await asyncio.gather(*(pool.ask(each) for each in requests), return_exceptions=True)

    return asyncio.run(run())


def test_what_was_answered_is_never_asked_again(store: Store) -> None:
    def answer(received: Received) -> Reply:
        return refusal(500, "again") if received.attempt == 1 else completion(received.question.upper(), tokens=7)

    requests = [request(number) for number in range(20)]
    with serving(answer) as stub:
        first = ask(store, stub, requests)
        assert len(stub.received) == 40
        assert ask(store, stub, requests) == first
        assert [reply.content for reply in first if isinstance(reply, ChatReply)] == [
            f"QUESTION {n}" for n in range(20)
        ]
        assert len(stub.received) == 40
        ask(store, stub, [request(0, draw=1), request(0)])
        assert len(stub.received) == 41  # the second draw's body had been sent before: it is answered at once
    spending = count_spending(store, "teach")
    assert dict(spending.attempts) == {"answered": 21, "server error": 20}
    assert (spending.num_requests, spending.prompt_tokens, spending.completion_tokens) == (21, 21 * 11, 21 * 7)
    assert spending.cost == pytest.approx(21 * (11 * 1 + 7 * 10) / 1e6) and spending.cost_at_most == 0
    assert count_spending(store, "difficulty").lines() == []


def test_an_attempt_is_on_the_disk_before_the_server_sees_it(store: Store) -> None:
    """The server looks into the very file. The ledger is locked, so it looks at a copy, which SQLite recovers."""

    def answer(received: Received) -> Reply:
        name = received.headers["x-client-request-id"]
        directory = store.shard_directory(store.shard_of("made/3"))
        copy = store.directory / "copy.sqlite"
        for suffix in ("", "-wal"):
            (store.directory / f"copy.sqlite{suffix}").write_bytes((directory / f"{FILE}{suffix}").read_bytes())
        found = sqlite3.connect(copy)
        rows = found.execute("SELECT outcome, row, step FROM attempts WHERE name = ?", (name,)).fetchall()
        found.close()
        return completion(json.dumps(rows))

    with serving(answer) as stub:
        [reply] = ask(store, stub, [request(3)])
    assert isinstance(reply, ChatReply) and json.loads(reply.content) == [[None, "made/3", "teach"]]


KILLED = """
import asyncio, os, sys
sys.path[:0] = {path!r}
from prism.curation import Store
from unit.curation.test_ledger import ask, request
from servers.openai_stub import Stub

class Address:
    base_url = sys.argv[2]

ask(Store(sys.argv[1]), Address(), [request(0), request(1)])
"""


def test_what_was_under_way_when_a_process_died_is_in_doubt(store: Store) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def answer(received: Received) -> Reply:
        if received.question == "question 1" and len(stub.received) <= 2:
            while not any(found == "question 0" for found in answered):
                pass
            os.kill(children[0].pid, signal.SIGKILL)
        answered.append(received.question)
        return Reply(completion("x", tokens=5).body, delay_s=0.0 if received.question == "question 0" else 0.3)

    answered: list[str] = []
    root = Path(__file__).parents[3]
    script = KILLED.format(path=[str(root / "src"), str(root / "tests")])
    with serving(answer) as stub:
        command = [sys.executable, "-c", script, str(store.directory), stub.base_url]
        children.append(subprocess.Popen(command))
        assert children[0].wait(60) == -signal.SIGKILL
        results = ask(store, stub, [request(1), request(2)])
        assert isinstance(results[0], InDoubtError) and "may have been paid" in str(results[0])
        assert isinstance(results[1], ChatReply)
        assert Counter(stub.questions)["question 1"] == 1  # not a second time
        spending = count_spending(store, "teach")
        assert spending.attempts["in doubt"] in (1, 2)  # the answer to the other may have come too late
        # It counts at the most it can have cost: 37 tokens of prompt ("question 1" has 10 bytes) and 10 of completion.
        assert spending.cost_at_most == pytest.approx(spending.attempts["in doubt"] * (37 + 10 * 10) / 1e6)
        [reply] = ask(store, stub, [request(1)], ask_in_doubt=True)
        assert isinstance(reply, ChatReply) and Counter(stub.questions)["question 1"] == 2


@pytest.mark.parametrize(
    "lost", [Reply(b"{}", delay_s=1.0), Reply(completion("lost").body, cut=True), refusal(504, "slow")]
)
def test_a_lost_reply_is_not_paid_for_twice(store: Store, lost: Reply) -> None:
    def answer(received: Received) -> Reply:
        return lost if received.question == "question 1" and received.attempt == 1 else completion("x")

    with serving(answer) as stub:
        for _ in range(2):  # not in this run, nor in the next
            results = ask(store, stub, [request(1), request(2)], timeout_s=0.5)
            assert isinstance(results[0], InDoubtError) and results[0].is_its_own
            assert isinstance(results[1], ChatReply)
        assert Counter(stub.questions) == {"question 1": 1, "question 2": 1}
        assert count_spending(store, "teach").cost_at_most == pytest.approx((37 + 10 * 10) / 1e6)
        [reply] = ask(store, stub, [request(1)], ask_in_doubt=True)
        assert isinstance(reply, ChatReply)
        assert ask(store, stub, [request(1)]) == [reply]
        assert Counter(stub.questions)["question 1"] == 2


def test_a_server_that_loses_everything_is_given_up(store: Store) -> None:
    with serving(lambda received: Reply(completion("lost").body, cut=True)) as stub:
        results = ask(store, stub, [request(number) for number in range(40)], concurrency=4)
    assert all(isinstance(result, RequestError) for result in results)
    # Of 4 at a time 4 may have been lost by chance; one more than that, and it is everybody's matter, at once.
    assert sum(result.is_its_own for result in results if isinstance(result, RequestError)) == 4
    assert len(stub.received) <= 8 and "may have been paid for" in str(results[-1])


def open_books(store: Store, account: Account | None = None) -> Ledger:
    directories = {number: store.shard_directory(number) for number in range(store.num_shards)}
    return Ledger(directories, store.shard_of, step="teach", account=account or Account(PRICE))


@pytest.mark.parametrize(
    ("values", "error"), [(("x", None), sqlite3.IntegrityError), (("x", "\ud83d"), UnicodeEncodeError)]
)
def test_one_operation_that_fails_is_undone_alone(store: Store, values: tuple[Any, ...], error: type) -> None:
    def write(database: sqlite3.Connection, *reply: Any) -> None:
        database.execute("INSERT INTO replies VALUES (?, ?)", (f"begun {reply[0]}", "y"))
        database.execute("INSERT INTO replies VALUES (?, ?)", reply)

    def read(database: sqlite3.Connection) -> list[str]:
        return [name for (name,) in database.execute("SELECT request FROM replies ORDER BY request")]

    async def run() -> None:
        async with open_books(store) as ledger, asyncio.timeout(20):
            works = [lambda database: write(database, "a", "b"), lambda database: write(database, *values), read]
            first, second, third = await asyncio.gather(
                *(ledger.run("made/1", work) for work in works), return_exceptions=True
            )
            assert first is None and isinstance(second, error) and third == ["a", "begun a"]
            assert await ledger.run("made/1", read) == third

    asyncio.run(run())


def test_a_ledger_that_could_not_be_written_goes_on_when_it_can(store: Store) -> None:
    def refuse(database: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def run() -> None:
        account = Account(PRICE, max_tokens=60)  # enough for one request at a time
        async with open_books(store, account) as ledger, asyncio.timeout(20):
            call = ledger.call(request(1), {"model": "m"})
            failures = await asyncio.gather(call.begin("x"), ledger.run("made/1", refuse), return_exceptions=True)
            assert [isinstance(failure, StorageError) for failure in failures] == [True, True]
            name = await call.begin("x")  # what was set aside for the failed attempt is free again
            await call.end(name, ChatReply("y", None, "stop", (), 11, 5), 0.1)
            assert account.tokens == 16

    asyncio.run(run())
    assert [row["outcome"] for row in read_ledger(store)] == ["answered"]


def test_a_run_that_is_given_up_closes_its_books(store: Store) -> None:
    """Rows under way are given up; what was answered by then is in the books, and its reply."""

    def answer(received: Received) -> Reply:
        return Reply(completion("x").body, delay_s=0.0 if received.question in ("question 0", "question 1") else 2.0)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        server = ChatServer(stub.base_url, "tiny", timeout_s=20.0)
        async with open_books(store) as ledger, ChatPool([server], ledger) as pool:

            async def work(row: Row) -> Outcome:
                await pool.ask(request(int(row.prompt.id)))
                return kept(row)

            yield work

    with serving(answer) as stub:
        outcomes = concurrently(iter(made(6)), opened, 6)
        assert {next(outcomes).row_id for _ in range(2)} == {"made/0", "made/1"}
        outcomes.close()  # pyright: ignore[reportAttributeAccessIssue]
        books = Counter(row["outcome"] for row in read_ledger(store))
        assert books["answered"] == 2 and books.keys() <= {"answered", None}
        results = ask(store, stub, [request(number) for number in range(6)])
    assert [isinstance(result, ChatReply) for result in results[:2]] == [True, True]
    assert sum(isinstance(result, InDoubtError) for result in results) == books[None]
    assert Counter(stub.questions)["question 0"] == 1


def test_a_budget_counts_what_earlier_runs_have_spent(store: Store) -> None:
    def limited() -> Account:
        return Account(PRICE, max_tokens=100)

    with serving(lambda received: completion("x", tokens=10)) as stub:
        first = ask(store, stub, [request(number) for number in range(20)], account=limited())
        num_answered = sum(isinstance(result, ChatReply) for result in first)
        # 21 tokens an answer, and 47 set aside for it: three fit, for a fourth 63 + 47 would be too much.
        assert num_answered == 3 == len(stub.received)
        assert all(isinstance(result, ChatReply | BudgetError) for result in first)
        assert all(isinstance(r, BudgetError) for r in ask(store, stub, [request(77)], account=limited()))
        again = ask(store, stub, [request(number) for number in range(20)], account=limited())
        assert again[:3] == first[:3] and len(stub.received) == 3


def test_a_ledger_in_use_is_left_out_of_the_sums(store: Store) -> None:
    with serving(lambda received: completion("x")) as stub:
        ask(store, stub, [request(number) for number in range(20)])
    assert len(list(read_ledger(store))) == 20
    script = f"""
import sys, time
from prism.curation import Part, Store
with Store({str(store.directory)!r}).writing(Part(0, 4)):
    print("held", flush=True)
    sys.stdin.read()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        spending = count_spending(store, "teach")
        assert spending.num_unread == 1 and 0 < spending.num_requests < 20
        assert "without 1 shards" in spending.lines()[-1]
        process.communicate()
    (store.shard_directory(2) / FILE).write_bytes(b"rubbish" * 1000)
    with pytest.raises(StorageError, match="damaged"):
        count_spending(store, "teach")
    assert count_spending(store, "teach", Part(1, 4)).num_unread == 0
