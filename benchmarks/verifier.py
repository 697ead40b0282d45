"""Verifications per second over labelled answers, easy and hard ones mixed as they come in the file.

    python benchmarks/verifier.py [CASES] [--passes 31] [--core 0]

`warm` repeats the same answers, as the rollouts of a group do; for `cold` everything the verifier
remembers is dropped before each pass. Verifier and worker process share one core. Reports medians over
the passes, and the share of cases that needed the worker when nothing was remembered.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

from prism.rewards import verify_answer
from prism.rewards.symbolic import default_checker

CASES = Path(__file__).parents[1] / "tests" / "golden" / "answer_cases.jsonl"


def forget() -> None:
    """Empties every cache of the verifier; the worker process stays."""
    default_checker().forget()
    for name in [name for name in sys.modules if name.startswith("prism.rewards.")]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def rate(pairs: list[tuple[str, str]], *, is_cold: bool) -> float:
    if is_cold:
        forget()
    started = time.perf_counter()
    for prediction, ground_truth in pairs:
        verify_answer(prediction, ground_truth)
    return len(pairs) / (time.perf_counter() - started)


def num_slow(pairs: list[tuple[str, str]]) -> int:
    """Cases that ask the worker at least once."""
    forget()
    count = 0
    for prediction, ground_truth in pairs:
        comparisons = default_checker().counts.comparisons
        verify_answer(prediction, ground_truth)
        count += default_checker().counts.comparisons > comparisons
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="?", default=CASES)
    parser.add_argument("--passes", type=int, default=31)
    parser.add_argument("--core", type=int, default=0)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    rows = [json.loads(line) for line in arguments.cases.read_text("utf-8").splitlines()]
    pairs = [(row["prediction"], row["ground_truth"]) for row in rows]
    slow = num_slow(pairs)  # starts the worker as well
    print(f"{platform.processor() or platform.machine()}, one core; Python {platform.python_version()}")
    print(f"math-verify {version('math-verify')}, sympy {version('sympy')}")
    print(f"{len(pairs)} cases, {slow} of them ({slow / len(pairs):.1%}) by the worker process")
    for name, is_cold in (("warm", False), ("cold", True)):
        rates = [rate(pairs, is_cold=is_cold) for _ in range(arguments.passes)]
        low, median, high = min(rates), statistics.median(rates), max(rates)
        print(f"{name}: median {median:,.0f} verifications per second ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()
