"""The books of every request to a server that may cost money: one line per attempt, written before it is sent.

Each shard has a ledger beside its rows, `ledger.sqlite`. A request is known by the hash of its body and of the row it
was asked for; its reply is kept, so that no run pays for it again. Of an attempt that timed out, was cut off, or was
under way when a process died, nobody knows whether it was paid for. It counts as paid, at the most it can have cost,
and is not sent again unless the user says so. Which runs of steps have made use of a request is noted beside it.

Writes are committed together by a thread of the ledger's own, so that the disk is waited for once for all requests
that begin or end meanwhile. A write-ahead log is safe here, on network file systems too, because one process alone
has the file open.
"""

import asyncio
import dataclasses
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prism.curation.budget import Account, Fund, Spent
from prism.curation.shard import database_errors
from prism.rollout.openai_failures import LOST_KINDS, Failure
from prism.rollout.openai_messages import ChatReply, ChatRequest
from prism.rollout.openai_pool import InDoubtError
from prism.runtime.hashing import canonical_json

_T = TypeVar("_T")
Operation = Callable[[sqlite3.Connection], _T]

FILE = "ledger.sqlite"
ANSWERED, IN_DOUBT = "answered", "in doubt"
_BUSY_TIMEOUT_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    name TEXT PRIMARY KEY, request TEXT NOT NULL, number INTEGER NOT NULL, step TEXT NOT NULL, row TEXT NOT NULL,
    model TEXT NOT NULL, server TEXT NOT NULL, started REAL NOT NULL, seconds REAL,
    outcome TEXT, status INTEGER, detail TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER,
    tokens INTEGER NOT NULL, cost REAL NOT NULL, is_estimate INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS attempts_of_request ON attempts (request);
CREATE TABLE IF NOT EXISTS replies (request TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uses (run TEXT NOT NULL, request TEXT NOT NULL, PRIMARY KEY (run, request)) WITHOUT ROWID;
"""


class Ledger:
    """A meter for `ChatPool` over some shards. Use as an async context manager, within one event loop.

    `directories` are those of the shards by number, locked by this process; `shard_of` finds a row's. `step` is on
    whose account requests go, `run` its run that makes use of them. `fund` is what the account's limits are drawn from.
    """

    def __init__(
        self,
        directories: Mapping[int, Path],
        shard_of: Callable[[str], int],
        *,
        step: str,
        account: Account,
        run: str = "",
        fund: Fund | None = None,
        ask_in_doubt: bool = False,
    ) -> None:
        self.account, self.step, self.ask_in_doubt = account, step, ask_in_doubt
        self.step_run, self._fund = run, fund
        self._directories, self._shard_of = directories, shard_of
        self._databases: dict[int, sqlite3.Connection] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._queue: list[tuple[int, Operation[Any], asyncio.Future[Any]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Ledger":
        """Counts what was spent before, and puts in doubt what an earlier process left open."""
        spent = {number: await self._do(number, self._settle) for number in self._directories}
        for cost, tokens in spent.values():
            self.account.charge(cost, tokens)
        if self._fund is not None:
            # The ledgers are open by now, so that nobody else takes them for ones that are not in use.
            self.account.restrict(*await self._in_thread(partial(self._fund.claim, spent)))
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._flusher is not None:
            await self._flusher  # until nothing is queued
        try:
            if self._fund is not None:
                read = partial(spent_by, step=self.step)
                spent = {number: await self._do(number, read) for number in self._directories}
                await self._in_thread(partial(self._fund.settle, spent))
        finally:
            await self._in_thread(self._close)
            self._thread.shutdown()

    def call(self, request: ChatRequest, body: Mapping[str, Any]) -> "LedgerCall":
        return LedgerCall(self, request, body)

    async def run(self, row: str, operation: Operation[_T]) -> _T:
        """The result of `operation` on the ledger of the row's shard, once it is on the disk."""
        return await self._do(self._shard_of(row), operation)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _do(self, number: int, operation: Operation[_T]) -> _T:
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._queue.append((number, operation, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        # What was begun is carried out even if nobody waits for it any more.
        return await asyncio.shield(future)

    async def _flush(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            operations = [(number, operation) for number, operation, _ in batch]
            results = await self._in_thread(partial(self._commit, operations))
            for (_, _, future), result in zip(batch, results, strict=True):
                _settle_future(future, result)

    def _commit(self, operations: Sequence[tuple[int, Operation[Any]]]) -> list[Any]:
        """In the ledger's thread: all operations, in one transaction per file. What each came to, or its error."""
        results: list[Any] = [None] * len(operations)
        places: dict[int, list[int]] = {}
        for place, (number, _) in enumerate(operations):
            places.setdefault(number, []).append(place)
        for number, own in places.items():
            try:
                with database_errors(self._directories[number] / FILE):
                    found = _carry_out(self._database(number), [operations[place][1] for place in own])
            except Exception as error:  # whatever it is, it is for those who wait, and they must not wait for ever
                found = [error] * len(own)
            for place, result in zip(own, found, strict=True):
                results[place] = result
        return results

    def _database(self, number: int) -> sqlite3.Connection:
        if number not in self._databases:
            self._databases[number] = open_ledger(self._directories[number])
        return self._databases[number]

    def _settle(self, database: sqlite3.Connection) -> Spent:
        database.execute("UPDATE attempts SET outcome = ? WHERE outcome IS NULL", (IN_DOUBT,))
        return spent_by(database, self.step)

    def _close(self) -> None:
        for database in self._databases.values():
            database.close()


def _carry_out(database: sqlite3.Connection, operations: Sequence[Operation[Any]]) -> list[Any]:
    """In one transaction; an operation that fails is undone and leaves its error in place of a result."""
    results = []
    database.execute("BEGIN")
    try:
        for operation in operations:
            database.execute("SAVEPOINT operation")
            try:
                results.append(operation(database))
            except sqlite3.OperationalError:
                raise  # the disk, not the operation
            except Exception as error:  # one operation's matter, told to whoever waits for it
                database.execute("ROLLBACK TO operation")
                results.append(error)
            database.execute("RELEASE operation")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    return results


def open_ledger(directory: Path, *, timeout_s: float = _BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """For the one process that may use it. Raises sqlite3.Error."""
    database = sqlite3.connect(directory / FILE, timeout=timeout_s, isolation_level=None)
    try:
        # Exclusive before write-ahead: then the log's index is kept in this process and not in shared memory.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {pragma}")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def spent_by(database: sqlite3.Connection, step: str) -> Spent:
    """Cost and tokens, in all runs of the step."""
    sums = "SELECT coalesce(sum(cost), 0), coalesce(sum(tokens), 0) FROM attempts WHERE step = ?"
    return Spent(*database.execute(sums, (step,)).fetchone())


class LedgerCall:
    """One request's entries; see `openai_pool.Call`."""

    def __init__(self, ledger: Ledger, request: ChatRequest, body: Mapping[str, Any]) -> None:
        self._ledger, self._request, self._model = ledger, request, str(body["model"])
        identity = canonical_json([request.owner, request.draw, dict(body)])
        self.key = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()
        self._num_attempts = 0
        self._reserved: dict[str, tuple[float, int]] = {}

    @property
    def may_pay_twice(self) -> bool:
        return self._ledger.ask_in_doubt

    async def recall(self) -> ChatReply | None:
        """Raises InDoubtError."""
        doubtful = (IN_DOUBT, *LOST_KINDS)

        def look(database: sqlite3.Connection) -> tuple[str | None, int, int]:
            reply = database.execute("SELECT reply FROM replies WHERE request = ?", (self.key,)).fetchone()
            query = "SELECT count(*), coalesce(sum(outcome IN (?, ?, ?)), 0) FROM attempts WHERE request = ?"
            num_attempts, num_in_doubt = database.execute(query, (*doubtful, self.key)).fetchone()
            if num_attempts:  # else it is noted with the first
                self._note_use(database)
            return reply and reply[0], num_attempts, num_in_doubt

        reply, self._num_attempts, num_in_doubt = await self._ledger.run(self._request.owner, look)
        if reply is not None:
            fields = json.loads(reply)
            return ChatReply(**fields | {"token_ids": tuple(fields["token_ids"])})
        if num_in_doubt and not self._ledger.ask_in_doubt:
            reason = "was under way when an earlier run ended or lost it, and may have been paid for"
            failure = Failure("cut", reason, "ask_in_doubt sends it again", is_final=True)
            raise InDoubtError(f"{self._request.label}: {reason}; {failure.advice}", failure)
        return None

    async def begin(self, address: str) -> str:
        """Raises BudgetError where the attempt could pass the budget."""
        cost, tokens = await self._ledger.account.reserve(self._request)
        self._num_attempts += 1
        name = f"{self.key[:32]}-{self._num_attempts}"
        self._reserved[name] = cost, tokens
        values = {
            "name": name,
            "request": self.key,
            "number": self._num_attempts,
            "step": self._ledger.step,
            "row": self._request.owner,
            "model": self._model,
            "server": address,
            "started": time.time(),
            "tokens": tokens,
            "cost": cost,
            "is_estimate": 1,
        }
        statement = f"INSERT INTO attempts ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"

        def write(database: sqlite3.Connection) -> None:
            database.execute(statement, (*values.values(),))
            self._note_use(database)

        try:
            await self._ledger.run(self._request.owner, write)
        except BaseException:
            self._ledger.account.release(self._reserved.pop(name))
            raise
        return name

    async def end(self, name: str, result: ChatReply | Failure, seconds: float) -> None:
        reserved = self._reserved.pop(name)
        cost, tokens, is_estimate = self._ledger.account.settle(reserved, result)
        is_reply = isinstance(result, ChatReply)
        values = {
            "seconds": round(seconds, 4),
            "outcome": ANSWERED if is_reply else result.kind,
            "status": 200 if is_reply else result.status,
            "detail": result.ending if is_reply else result.reason,
            "prompt_tokens": result.num_prompt_tokens if is_reply else None,
            "completion_tokens": result.num_completion_tokens if is_reply else None,
            "tokens": tokens,
            "cost": cost,
            "is_estimate": int(is_estimate),
        }
        statement = f"UPDATE attempts SET {', '.join(f'{column} = ?' for column in values)} WHERE name = ?"

        def write(database: sqlite3.Connection) -> None:
            database.execute(statement, (*values.values(), name))
            if isinstance(result, ChatReply):
                reply = json.dumps(dataclasses.asdict(result))
                database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (self.key, reply))

        await self._ledger.run(self._request.owner, write)

    def _note_use(self, database: sqlite3.Connection) -> None:
        database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (self._ledger.step_run, self.key))


def _settle_future(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # cancelled meanwhile
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
