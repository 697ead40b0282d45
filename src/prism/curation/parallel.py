"""On all processors of this machine: a step's work in processes, and in threads what libraries do without the
interpreter's lock."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from prism.curation.rows import Outcome, Row
from prism.curation.running import Work
from prism.errors import StorageError

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")

NUM_PROCESSORS = len(os.sched_getaffinity(0))

_AT_ONCE = 64
"""Things that a worker is handed together, as that costs as much as some of them."""

MIN_ROWS = 1000
"""That take longer than to start processes."""


def in_threads(function: Callable[[_Thing], _Result], things: Iterable[_Thing]) -> Iterator[_Result]:
    """The results in order, from a thread per processor; `things` are taken a little ahead of them only."""
    with ThreadPoolExecutor(NUM_PROCESSORS) as pool:
        yield from _in_order(pool, partial(_each, function), things)


def in_processes(work: Work, rows: Iterator[Row]) -> Iterator[Outcome]:
    """For `run_step(…, execute=in_processes)`: `work` on batches of rows, in a process per processor.

    Fewer than `MIN_ROWS` are worked on here. `work` must look at each row by itself, as steps do, and be something
    that pickle knows. What it raises ends the step; StorageError where a process was killed.
    """
    first = list(islice(rows, MIN_ROWS))
    if len(first) < MIN_ROWS or NUM_PROCESSORS == 1:
        yield from work(chain(first, rows))
        return
    # Not forked: they would hold this process's locks and databases.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(NUM_PROCESSORS, context, _begin, (work,)) as pool:
        try:
            yield from _in_order(pool, _work_on, chain(first, rows))
        except BrokenProcessPool as error:
            raise StorageError(
                "a process that did a part of the step was ended from outside, often for want of memory; what was done "
                "is kept: give the same command again, on fewer processors (taskset)"
            ) from error


def _in_order(
    pool: Executor, function: Callable[[list[_Thing]], list[_Result]], things: Iterable[_Thing]
) -> Iterator[_Result]:
    source = iter(things)
    running: deque[Future[list[_Result]]] = deque()
    while True:
        while len(running) < 2 * NUM_PROCESSORS and (batch := list(islice(source, _AT_ONCE))):
            running.append(pool.submit(function, batch))
        if not running:
            return
        yield from running.popleft().result()


def _each(function: Callable[[_Thing], _Result], batch: list[_Thing]) -> list[_Result]:
    return [function(thing) for thing in batch]


_work: Work


def _begin(work: Work) -> None:
    """What a process does before its first batch. Signals are for the process that hands out rows: without it, however
    it ended, this one ends too."""
    global _work
    _work = work
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_on(batch: list[Row]) -> list[Outcome]:
    return list(_work(iter(batch)))
