"""Algebra in a process of its own: the slow path of answer verification.

sympy can take for ever and math-verify's own time-out works only in a main thread, so both run in a
worker process that is started when first needed, killed when a comparison takes too long and replaced
for the next one. A plain child process with JSON lines is used rather than multiprocessing: nothing of
the caller's main module is imported again (a trainer would load torch there) and nothing is pickled.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

from prism.errors import RewardError

MAX_EXPRESSION_CHARS = 400
TIMEOUT_SECONDS = 3.0
_START_TIMEOUT_SECONDS = 120.0
_MAX_WAITING = 20
"""Time limits that a thread waits for its turn before it gives up, as for an answer that takes too long."""
_MAX_REMEMBERED = 4096
_WORKER = Path(__file__).with_name("symbolic_worker.py")


class SymbolicResult(StrEnum):
    EQUAL = "equal"
    DIFFERENT = "different"
    UNREADABLE_PREDICTION = "unreadable_prediction"
    UNREADABLE_GROUND_TRUTH = "unreadable_ground_truth"
    ERROR = "error"
    TIMEOUT = "timeout"
    TOO_LONG = "too_long"


@dataclass(frozen=True, slots=True)
class SymbolicCounts:
    """What the slow path met since the process began."""

    comparisons: int = 0
    remembered: int = 0
    """Answered from an earlier comparison; not among the comparisons."""
    timeouts: int = 0
    errors: int = 0
    too_long: int = 0
    unreadable_ground_truths: int = 0


_COUNTED = {
    SymbolicResult.TIMEOUT: "timeouts",
    SymbolicResult.ERROR: "errors",
    SymbolicResult.TOO_LONG: "too_long",
    SymbolicResult.UNREADABLE_GROUND_TRUTH: "unreadable_ground_truths",
}


# What a second attempt would only repeat; a time-out or an error may be the machine's fault.
_REMEMBERED = frozenset(
    {
        SymbolicResult.EQUAL,
        SymbolicResult.DIFFERENT,
        SymbolicResult.UNREADABLE_PREDICTION,
        SymbolicResult.UNREADABLE_GROUND_TRUTH,
    }
)


class SymbolicChecker:
    """Compares LaTeX expressions one at a time; safe to share between threads, which wait for one another.

    A comparison takes at most `timeout_seconds`. The call after one that was cut off also waits for the
    new process, which takes about a second to start.
    """

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._counts = SymbolicCounts()
        self._results: dict[tuple[str, str, Fraction], SymbolicResult] = {}

    @property
    def counts(self) -> SymbolicCounts:
        return self._counts

    def check(
        self,
        prediction: str,
        ground_truth: str,
        tolerance: Fraction = Fraction(0),
        *,
        timeout_seconds: float | None = None,
    ) -> SymbolicResult:
        """Raises RewardError only if the worker cannot be started at all."""
        key = (prediction, ground_truth, tolerance)
        if not self._lock.acquire(timeout=_MAX_WAITING * self.timeout_seconds):
            return SymbolicResult.TIMEOUT
        try:
            result = self._results.get(key)
            if result is not None:
                self._counts = replace(self._counts, remembered=self._counts.remembered + 1)
                return result
            result = self._check(prediction, ground_truth, tolerance, timeout_seconds or self.timeout_seconds)
            self._count(result)
            if result in _REMEMBERED:
                if len(self._results) >= _MAX_REMEMBERED:
                    del self._results[next(iter(self._results))]  # the oldest
                self._results[key] = result
            return result
        finally:
            self._lock.release()

    @property
    def worker_process_id(self) -> int | None:
        worker = self._worker
        return worker.process_id if worker else None

    def forget(self) -> None:
        """Drop remembered results, for measuring."""
        with self._lock:
            self._results.clear()

    def close(self) -> None:
        with self._lock:
            self._discard()

    def _check(self, prediction: str, ground_truth: str, tolerance: Fraction, timeout_seconds: float) -> SymbolicResult:
        if max(len(prediction), len(ground_truth)) > MAX_EXPRESSION_CHARS:
            return SymbolicResult.TOO_LONG
        if self._worker is None or not self._worker.is_usable:
            self._discard()
            self._worker = _Worker()
        request = {
            "prediction": prediction,
            "ground_truth": ground_truth,
            "tolerance": str(tolerance),
            "timeout_seconds": timeout_seconds,
        }
        reply = self._worker.ask(json.dumps(request), timeout_seconds)
        if reply is None:
            result = SymbolicResult.TIMEOUT if self._worker.is_timed_out else SymbolicResult.ERROR
            self._discard()
            return result
        return SymbolicResult(reply["result"])

    def _count(self, result: SymbolicResult) -> None:
        counts = replace(self._counts, comparisons=self._counts.comparisons + 1)
        name = _COUNTED.get(result)
        self._counts = replace(counts, **{name: getattr(counts, name) + 1}) if name else counts

    def _discard(self) -> None:
        if self._worker is not None:
            self._worker.kill()
        self._worker = None


class _Worker:
    """One child process. Unusable once it timed out, died or was inherited through a fork."""

    def __init__(self) -> None:
        self.is_timed_out = False
        self._owner = os.getpid()
        # -P: the folder of the script must not shadow modules; a process group of its own keeps Ctrl-C from it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        if self._receive(_START_TIMEOUT_SECONDS) is None:
            self.kill()
            raise RewardError(
                "the answer verifier could not start its worker process: check that "
                f"`{sys.executable} -c 'import math_verify'` works"
            )

    @property
    def is_usable(self) -> bool:
        return not self.is_timed_out and self._owner == os.getpid() and self._process.poll() is None

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, line: str, timeout_seconds: float) -> dict[str, str] | None:
        """The reply, or None if the worker died or was killed for taking too long."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")  # a pipe takes more than the longest request at once
        except OSError:  # the worker died since the last request
            return None
        return self._receive(timeout_seconds)

    def kill(self) -> None:
        if self._owner != os.getpid():  # a fork of the owner must leave the owner's worker alone
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _receive(self, timeout_seconds: float) -> dict[str, str] | None:
        """One line. Polling costs no thread, which a timer would."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.is_timed_out = True
                self._process.kill()
                return None
            piece = self._process.stdout.read(65536)
            if not piece:  # the worker died
                return None
            line += piece
        return json.loads(line)


_checker = SymbolicChecker()


def default_checker() -> SymbolicChecker:
    """The checker `verify_answer` uses; its `counts` are for metrics."""
    return _checker


def _replace_after_fork() -> None:
    # The lock may have been held by another thread when the process forked.
    global _checker
    _checker = SymbolicChecker(_checker.timeout_seconds)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_after_fork)
atexit.register(lambda: _checker.close())
