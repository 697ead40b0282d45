"""Many rows at once: a step's `run` out of a coroutine for one row."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from prism.curation.rows import Outcome, Row
from prism.errors import PrismError

Work = Callable[[Row], Awaitable[Outcome]]
_Result = TypeVar("_Result")


def concurrently(
    rows: Iterator[Row], open_work: Callable[[], AbstractAsyncContextManager[Work]], width: int
) -> Iterator[Outcome]:
    """The outcomes of at most `width` rows at a time, each as it comes; `open_work` is open meanwhile.

    The event loop runs only while the next outcome is waited for. After a PrismError no further row is begun, those
    under way are finished, since they may be paid for, and then the error is raised. Not for use inside a running
    event loop.
    """
    with asyncio.Runner() as runner:
        context = open_work()
        work = runner.run(context.__aenter__())
        tasks: set[asyncio.Task[Outcome]] = set()
        try:
            yield from _outcomes(runner, rows, work, width, tasks)
        finally:
            runner.run(_close(context, tasks))


def _outcomes(
    runner: asyncio.Runner, rows: Iterator[Row], work: Work, width: int, tasks: set[asyncio.Task[Outcome]]
) -> Iterator[Outcome]:
    """`tasks` are those under way."""
    loop = runner.get_loop()
    done: list[asyncio.Task[Outcome]] = []
    has_news = asyncio.Event()
    error: PrismError | None = None
    num_open = 0

    def note(task: asyncio.Task[Outcome]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: of several that fail the first is raised, and the others are not warned of
        done.append(task)
        has_news.set()

    async def wait() -> None:
        await has_news.wait()
        has_news.clear()

    async def finish(row: Row) -> Outcome:
        return await work(row)

    while True:
        while num_open < width and error is None and (row := next(rows, None)) is not None:
            task = loop.create_task(finish(row))
            tasks.add(task)
            task.add_done_callback(note)
            num_open += 1
        if not num_open:
            break
        runner.run(wait())
        while done:
            task = done.pop()
            num_open -= 1
            try:
                outcome = task.result()
            except PrismError as raised:
                error = error or raised
            else:
                yield outcome
    if error is not None:
        raise error


async def _close(context: AbstractAsyncContextManager[Work], tasks: set[asyncio.Task[Outcome]]) -> None:
    """Gives up the rows still under way, and closes: what the context does of its own goes on until then."""
    under_way = [*tasks]
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    await context.__aexit__(None, None, None)


async def finish_all(works: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """What all come to, in order. Where some fail the others are waited for all the same, since they may be paid for,
    and then the first error is raised."""
    results: list[_Result] = []
    errors: list[BaseException] = []
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            errors.append(result)
        else:
            results.append(result)
    if errors:
        raise errors[0]
    return results
