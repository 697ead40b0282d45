"""What a process may do at a time: how many processors it has, and a function over many things in threads.

For work that libraries do without the interpreter's lock, as decoding images.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")

_MOST_THREADS = 16

_CGROUPS = Path("/sys/fs/cgroup")


def num_processors(cgroups: Path = _CGROUPS) -> int:
    """Those it may run on, or as many as the quota of its container comes to: containers and schedulers often allow
    fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return allowed if quota is None else min(allowed, max(1, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time, by cgroups of version 2 or 1 as a container sees its own."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            time, period = " ".join((cgroups / name).read_text() for name in files).split()
        except (OSError, ValueError):
            continue
        if time.isdecimal() and period.isdecimal() and int(period):
            return int(time) / int(period)
    return None


def num_threads() -> int:
    """For one of the processes that torchrun started on this machine: its share of the processors, two at least, since
    threads also wait for files."""
    return max(2, min(_MOST_THREADS, num_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def in_threads(
    function: Callable[[_Thing], _Result], things: Iterable[_Thing], num: int | None = None, *, at_once: int = 1
) -> Generator[_Result]:
    """The results in order; `things` are taken a little ahead of them only. By default in `num_threads()`.

    A thread is handed `at_once` things, as that costs as much as some of them. What `function` or `things` raise is
    raised in its turn, after the results before it. Close it to be rid of its threads before its end.
    """
    num = num or num_threads()
    source, error = iter(things), None

    def work(batch: list[_Thing]) -> list[_Result]:
        return [function(thing) for thing in batch]

    running: deque[Future[list[_Result]]] = deque()
    pool = ThreadPoolExecutor(num)
    try:
        while True:
            while error is None and len(running) < 2 * num:
                batch: list[_Thing] = []
                try:
                    batch.extend(islice(source, at_once))
                except Exception as raised:  # whatever it is: it is raised below
                    error = raised
                if not batch:
                    break
                running.append(pool.submit(work, batch))
            if not running:
                break
            yield from running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    if error is not None:
        raise error
