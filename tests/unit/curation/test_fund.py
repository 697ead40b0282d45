"""One budget for all runs of a step, whole or of parts, one after the other or at once: sums by hand.

Every request costs 1 at most, and 1 it costs: 64 tokens at 15,625 a million.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from prism.config import TeachRecipe, build_config
from prism.curation import Part, Store
from prism.curation.asking import open_meter
from prism.curation.fund import FILE
from prism.curation.spending import count_spending
from prism.errors import BudgetError, StorageError
from prism.rollout.openai_messages import ChatReply, ChatRequest
from prism.rollout.openai_pool import Meter

WHOLE = Part()


def recipe(**budget: Any) -> TeachRecipe:
    table = {"teacher": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    return build_config(
        TeachRecipe, table | {"budget": {"price": {"completion": 15_625.0}} | budget}, (), source="test"
    )


@asynccontextmanager
async def books(store: Store, part: Part, step: str = "teach", **budget: Any) -> AsyncIterator[Meter]:
    async with open_meter(store, part, step, recipe(**budget))() as meter:
        yield meter


def row_of(store: Store, shard: int, number: int) -> str:
    """The id of the `number`-th of the rows that belong to the shard."""
    names = (f"made/{n}" for n in range(10_000))
    found = (name for name in names if store.shard_of(name) == shard)
    return next(name for place, name in enumerate(found) if place == number)


async def spend(store: Store, meter: Meter, shard: int, most: int = 1000, *, draw: int = 0) -> int:
    """So many requests for rows of a shard, or fewer where the budget is spent before; how many were sent."""
    for number in range(most):
        owner = row_of(store, shard, number % 10)
        request = ChatRequest(owner, [{"role": "user", "content": ""}], 0.0, 64, owner=owner, draw=draw + number)
        call = meter.call(request, {"model": "m"})
        assert await call.recall() is None
        try:
            name = await call.begin("address")
        except BudgetError:
            return number
        await call.end(name, ChatReply("x", None, "stop", (), 0, 64), 0.1)
    return most


def run(store: Store, part: Part, shard: int, most: int = 1000, *, draw: int = 0, **budget: Any) -> int:
    async def work() -> int:
        async with books(store, part, **budget) as meter:
            return await spend(store, meter, shard, most, draw=draw)

    return asyncio.run(work())


def spent(store: Store, step: str = "teach") -> float:
    return count_spending(store, step).cost


def test_parts_after_a_whole_run_have_what_it_has_left(store: Store) -> None:
    for shard, number in ((0, 12), (1, 12), (2, 6)):
        assert run(store, WHOLE, shard, number, max_cost=40.0) == number
    # 10 are left. Of shards 0 and 1, which have had more than their share, each gets a quarter of what is left: 2.5,
    # then 2 of 8. Shard 2 has the rest of its share, 4 of 6, and shard 3 what is left of all, 2 of its 10.
    left = [run(store, Part(shard, 4), shard, draw=100, max_cost=40.0) for shard in range(4)]
    assert left == [2, 2, 4, 2] and spent(store) == 40.0
    assert [run(store, Part(shard, 4), shard, draw=200, max_cost=40.0) for shard in range(4)] == [0, 0, 0, 0]
    assert run(store, WHOLE, 3, draw=300, max_cost=45.0) == 5


def test_parts_alone_have_their_share(store: Store) -> None:
    assert [run(store, Part(part, 3), part, max_cost=40.0) for part in (2, 0, 1)] == [10, 20, 10]
    assert run(store, WHOLE, 0, draw=100, max_cost=41.0) == 1


def test_parts_at_once_count_what_the_others_may_still_spend(store: Store) -> None:
    assert run(store, WHOLE, 0, 30, max_cost=40.0) == 30

    async def work() -> tuple[int, int, int]:
        async with books(store, Part(1, 4), max_cost=40.0) as first:
            assert await spend(store, first, 1, 1) == 1
            async with books(store, Part(2, 4), max_cost=40.0) as second:
                refused = await spend(store, second, 2)
            more = await spend(store, first, 1, 2, draw=100)
        async with books(store, Part(2, 4), max_cost=40.0) as second:
            return refused, more, await spend(store, second, 2, draw=100)

    # The first part may take all that is left, 10, and leaves 7 of it.
    assert asyncio.run(work()) == (0, 2, 7) and spent(store) == 40.0


def test_parts_at_once_from_the_beginning_share_evenly(store: Store) -> None:
    async def work() -> list[int]:
        async with AsyncExitStack() as stack:
            parts = [await stack.enter_async_context(books(store, Part(n, 4), max_cost=10.0)) for n in range(4)]
            return await asyncio.gather(*(spend(store, meter, n) for n, meter in enumerate(parts)))

    assert asyncio.run(work()) == [2, 2, 2, 2]  # 2.5 each


def test_tokens_are_shared_like_money(store: Store) -> None:
    # A prompt is estimated at 32 tokens, and has none.
    assert run(store, WHOLE, 0, 4, max_tokens=640) == 4
    left = [run(store, Part(shard, 4), shard, draw=100, max_tokens=640) for shard in range(4)]
    # 384 are left. A quarter of these, 96, is one request of shard 0; shards 1 and 2 have their 160; 64 and 32 are not
    # left for shard 3.
    assert left == [1, 2, 2, 0] and spent(store) == 9.0


def test_what_other_steps_spend_is_their_own_affair(store: Store) -> None:
    async def work() -> list[int]:
        async with books(store, WHOLE, "difficulty", max_cost=20.0) as meter:
            sent = [await spend(store, meter, 0, draw=100)]
        async with books(store, Part(0, 4), "difficulty", max_cost=30.0) as meter:  # a quarter of the 10 that are left
            async with books(store, Part(1, 4), max_cost=8.0) as teacher:
                sent.append(await spend(store, teacher, 1))
            async with books(store, Part(1, 4), "difficulty", max_cost=24.0) as another:  # 24 - 22.5
                sent.append(await spend(store, another, 1, draw=200))
            return [*sent, await spend(store, meter, 0, draw=300)]

    assert asyncio.run(work()) == [20, 2, 1, 2]


def test_a_ledger_that_another_step_is_using_counts_as_it_was_left(store: Store) -> None:
    assert run(store, WHOLE, 0, 5, max_cost=40.0) == 5

    async def work() -> int:
        async with books(store, Part(0, 4), "difficulty"), books(store, Part(1, 4), max_cost=12.0) as meter:
            return await spend(store, meter, 1)

    assert (
        asyncio.run(work()) == 3
    )  # its share of 12: 7 are left, and not none, which is what the whole run had claimed


KILLED = """
import asyncio, sys
sys.path[:0] = {path!r}
from prism.curation import Part, Store
from unit.curation.test_fund import books, spend

async def work():
    store = Store(sys.argv[1])
    async with books(store, Part(0, 2), max_cost=12.0) as meter:
        print(await spend(store, meter, 0, 1), flush=True)
        sys.stdin.read()

asyncio.run(work())
"""


def test_what_a_process_that_was_killed_had_claimed_is_free_again(store: Store) -> None:
    root = Path(__file__).parents[3]
    script = KILLED.format(path=[str(root / "src"), str(root / "tests")])
    command = [sys.executable, "-c", script, str(store.directory)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == "1\n"
        assert run(store, Part(1, 2), 1, max_cost=12.0) == 6  # the others have claimed 6
        os.kill(process.pid, signal.SIGKILL)
    # Its 1 is in the ledger. Of 20 there are 13 left, of which half are more than what is missing to half of 20.
    assert run(store, Part(1, 2), 1, draw=100, max_cost=20.0) == 6
    assert run(store, WHOLE, 3, max_cost=20.0) == 7 and spent(store) == 20.0


def test_without_limits_nothing_is_held_back_and_everything_counted(store: Store) -> None:
    async def work() -> int:
        async with books(store, Part(0, 4)) as unlimited:
            assert await spend(store, unlimited, 0, 7) == 7
            async with books(store, Part(1, 4), max_cost=12.0) as meter:
                return await spend(store, meter, 1)

    assert asyncio.run(work()) == 3
    assert run(store, Part(2, 4), 2, max_cost=12.0) == 2  # 12 - 7 - 3


def test_a_damaged_file_is_told(store: Store) -> None:
    (store.directory / FILE).write_bytes(b"rubbish" * 1000)
    with pytest.raises(StorageError, match=r"budget\.sqlite is damaged"):
        run(store, WHOLE, 0, max_cost=1.0)
