import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest

from prism.errors import RewardError
from prism.rewards.answer import verify_answer
from prism.rewards.symbolic import SymbolicChecker, SymbolicResult

HANGS = "1000000000!"


@pytest.fixture(scope="module")
def checker() -> Iterator[SymbolicChecker]:
    checker = SymbolicChecker(timeout_seconds=20.0)
    yield checker
    checker.close()


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "result"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}", "equal"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", "different"),  # equal to math-verify alone
        ("3x-y+13=0", "3x+4y+14=0", "different"),  # equal to math-verify alone
        ("2y-4x=6", "y=2x+3", "equal"),
        (r"\begin{pmatrix}1&\frac{1}{2}\end{pmatrix}", r"\begin{bmatrix}1&0.5\end{bmatrix}", "equal"),
        (r"\{\sqrt{4}, 3\}", r"\{3, 2\}", "equal"),
        (r"\{2, 3\}", r"\{3, 2, 1\}", "different"),
        ("[1, 2]", "(1, 2)", "different"),
        (r"\sqrt{x^2}", "x", "different"),
        (r"\frac{x^2-1}{x-1}", "x+1", "equal"),
        (r"\frac{1}{0}", "5", "different"),
        ("x", r"\frac{", "unreadable_ground_truth"),
        (r"\frac{", "x", "unreadable_prediction"),
        ("1$+$1", "2", "unreadable_prediction"),
        ("x+" * 300 + "1", "x", "too_long"),
    ],
)
def test_comparisons(checker: SymbolicChecker, prediction: str, ground_truth: str, result: str):
    assert checker.check(prediction, ground_truth) == result


def test_tolerance_is_for_constants(checker: SymbolicChecker):
    assert checker.check(r"\pi", "3.14", Fraction(1, 200)) == "equal"
    assert checker.check(r"\pi", "3.15", Fraction(1, 200)) == "different"


def test_a_result_is_remembered_until_forgotten():
    checker = SymbolicChecker(timeout_seconds=20.0)
    for _ in range(3):
        assert checker.check(r"\sin 0", "0") is SymbolicResult.EQUAL
    assert (checker.counts.comparisons, checker.counts.remembered) == (1, 2)
    checker.forget()
    assert checker.check(r"\sin 0", "0") is SymbolicResult.EQUAL
    assert (checker.counts.comparisons, checker.counts.remembered) == (2, 2)
    checker.close()


def test_a_timeout_is_not_remembered():
    checker = SymbolicChecker(timeout_seconds=0.5)
    assert [checker.check(HANGS, "5") for _ in range(2)] == [SymbolicResult.TIMEOUT] * 2
    assert (checker.counts.comparisons, checker.counts.remembered) == (2, 0)
    checker.close()


def test_a_thread_does_not_wait_for_ever():
    checker = SymbolicChecker(timeout_seconds=0.01)
    with checker._lock:
        assert checker.check("x", "y") is SymbolicResult.TIMEOUT


def test_a_hang_is_killed_counted_and_the_worker_replaced():
    checker = SymbolicChecker(timeout_seconds=1.0)
    started = time.monotonic()
    assert checker.check(HANGS, "5") is SymbolicResult.TIMEOUT
    assert time.monotonic() - started < 30
    checker.timeout_seconds = 20.0
    assert checker.check("x+x", "2x") is SymbolicResult.EQUAL
    assert (checker.counts.comparisons, checker.counts.timeouts) == (2, 1)
    checker.close()


def test_a_timeout_is_unverifiable_and_does_not_hide_a_correct_equivalent():
    checker = SymbolicChecker(timeout_seconds=1.0)
    assert verify_answer(HANGS, "5 + x", checker=checker) == "unverifiable"
    assert verify_answer("2x", "x + x", equivalents=("2x",), checker=checker) == "correct"
    checker.close()


def test_a_dead_worker_is_replaced(checker: SymbolicChecker):
    assert checker.check("x+x", "2x") is SymbolicResult.EQUAL
    worker = checker._worker
    assert worker is not None
    worker._process.kill()
    worker._process.wait()
    assert checker.check("x+x", "2x") is SymbolicResult.EQUAL


def test_threads_share_one_worker(checker: SymbolicChecker):
    results = {}

    def check(number: int) -> None:
        results[number] = checker.check(rf"{number}\sqrt{{4}}", str(2 * number + number % 2))

    threads = [threading.Thread(target=check, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: "different" if number % 2 else "equal" for number in range(12)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_leaves_its_parents_worker_alone(checker: SymbolicChecker):
    assert checker.check("x+x", "2x") is SymbolicResult.EQUAL
    child = os.fork()
    if child == 0:
        checker.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    worker = checker._worker
    assert checker.check("x+x", "2x") is SymbolicResult.EQUAL
    assert checker._worker is worker


def test_a_worker_that_cannot_start_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RewardError, match="import math_verify"):
        SymbolicChecker().check("x", "y")


def test_neither_caller_nor_worker_loads_torch_and_the_worker_ends_with_its_caller():
    script = (
        "import sys, prism.rewards as r; from prism.rewards.symbolic import default_checker\n"
        "assert r.verify_answer(r'\\sin^2 x + \\cos^2 x', '1') == 'correct'\n"
        "pid = default_checker()._worker._process.pid\n"
        "assert 'torch' not in sys.modules and 'sympy' not in sys.modules\n"
        "try: maps = open(f'/proc/{pid}/maps').read()\n"
        "except OSError: maps = ''\n"
        "assert 'torch' not in maps\n"
        "print(pid)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
