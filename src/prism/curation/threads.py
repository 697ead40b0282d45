"""A function over many things in a few threads, for work that libraries do without the interpreter's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from prism.runtime.processors import num_processors

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")

_AT_ONCE = 32
"""Things that a thread is handed together, as that costs as much as some of them."""


def in_threads(
    function: Callable[[_Thing], _Result], things: Iterable[_Thing], num_threads: int | None = None
) -> Iterator[_Result]:
    """The results in order; `things` are taken a little ahead of them only. By default a thread per processor."""
    num_threads = num_threads or num_processors()
    source = iter(things)

    def work(batch: list[_Thing]) -> list[_Result]:
        return [function(thing) for thing in batch]

    with ThreadPoolExecutor(num_threads) as pool:
        running: deque[Future[list[_Result]]] = deque()
        while True:
            while len(running) < 2 * num_threads and (batch := list(islice(source, _AT_ONCE))):
                running.append(pool.submit(work, batch))
            if not running:
                return
            yield from running.popleft().result()
