"""A step's work in several processes of this machine.

Rows go to a process in batches and their outcomes come back, each process having one batch at a time. None outlives
the one that started it, however that ends, and the end of any of them is an error at once.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler

from prism.curation.rows import Outcome, Row
from prism.curation.running import Work
from prism.errors import StorageError
from prism.parallel import num_processors

BATCH_ROWS = 64
"""Rows that are handed over together, as that costs as much as some of them."""

ALONE_S = 1.0
"""Work that is done sooner is done before processes have started."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_Batches = Iterator[list[Row]]


class Processes:
    """For `run_step(…, execute=Processes(8))`: as many processes, by default one per processor.

    They start when this one has worked for a second. `work` must look at each row by itself, as steps do, and be
    something that pickle knows; outcomes come in any order. What it raises ends the step; StorageError where a process
    has ended. A script that uses this needs the guard `if __name__ == "__main__":`, as processes import it.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or num_processors()
        self.num_at_work = 1
        """In the last call."""

    def __call__(self, work: Work, rows: Iterator[Row]) -> Iterator[Outcome]:
        self.num_at_work = 1
        batches = iter(lambda: list(islice(rows, BATCH_ROWS)), [])
        start = time.monotonic()
        for batch in batches:
            yield from work(iter(batch))
            if self._count > 1 and time.monotonic() - start > ALONE_S:
                break
        else:
            return
        self.num_at_work = self._count
        yield from _share(work, batches, self._count)


def _share(work: Work, batches: _Batches, count: int) -> Iterator[Outcome]:
    with ExitStack() as stack:
        connections = [stack.enter_context(_started()) for _ in range(count)]
        # Made ready once: it may hold the sketches of all evaluation sets.
        message = ForkingPickler.dumps(work)
        waiting = []
        for connection in connections:
            with _ended_is_an_error():
                connection.send_bytes(message)
            if _give(connection, batches):
                waiting.append(connection)
        while waiting:
            for connection in wait(waiting):
                assert isinstance(connection, Connection)
                with _ended_is_an_error():
                    found = connection.recv()
                if isinstance(found, Exception):
                    raise found
                if not _give(connection, batches):
                    waiting.remove(connection)
                yield from found


def _give(connection: Connection, batches: _Batches) -> bool:
    """Whether there was a batch to give."""
    batch = next(batches, None)
    if batch is None:
        return False
    with _ended_is_an_error():
        connection.send(batch)
    return True


@contextmanager
def _ended_is_an_error() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise StorageError(
            "a process that did a part of the step has ended: by an error above, or by the system for want of memory; "
            "what was done is kept: give the same command again, with fewer --workers"
        ) from error


@contextmanager
def _started() -> Iterator[Connection]:
    """A process at work and the way to it, until the end of the block."""
    # Not forked: it would hold this process's locks and databases.
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_work, args=(its,), daemon=True)
    # Signals are for the process that hands out rows. Blocked here, they stay so there, from the first moment on; but
    # the first process would start multiprocessing's tracker, which unblocks them.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with _one_thread_each():
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    its.close()
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Of NumPy's and torch's own, in processes that start in the block: there are as many processes as processors."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection: Connection) -> None:
    """What a process does until nobody gives it anything more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Work = connection.recv()
    while True:
        try:
            batch = connection.recv()
        except EOFError:
            return
        connection.send(_outcomes(work, batch))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcomes(work: Work, batch: list[Row]) -> list[Outcome] | Exception:
    try:
        return list(work(iter(batch)))
    except Exception as error:  # whatever it is, it is raised where the step was begun
        error.add_note(f"in a process of the step:\n{traceback.format_exc()}")
        return error
