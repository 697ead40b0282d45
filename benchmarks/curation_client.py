"""How many requests a second the curation client keeps under way on one core, books included, and its memory.

    PYTHONPATH=src:tests python benchmarks/curation_client.py [--rows 20000] [--latency 0.05] [--concurrency 64]

A teacher in a process of its own answers each request after `--latency` seconds. Rows without images are taught from a
store on this disk, ledger and all, by one thread. Beside it, on the same server: the rate of bare requests, without
store and ledger. Prints requests per second of wall time and of processor time (what one free core would reach), and
the resident memory after a tenth of the rows and at the end.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curated_world import Teacher, teaching
from prism.config import TeachRecipe, build_config
from prism.curation import Outcome, Part, Row, Store, count_step, run_step
from prism.curation.asking import open_meter
from prism.curation.record import encode_row
from prism.curation.teach import STEP, Teach
from prism.records import Prompt
from prism.rollout.openai_client import ChatRequest, chat
from prism.rollout.openai_server import ChatServer


def fill(store: Store, count: int) -> None:
    with store.writing(Part()) as shards:
        for number in range(count):
            row = Row(f"made/{number}", Prompt(str(number), f"What is {number} + {number}?", answer=str(2 * number)))
            shard = shards[store.shard_of(row.id)]
            shard.add_row(row.id, "made", number, encode_row(row, store.images))


class Watched:
    """The step, with the resident memory whenever another tenth of the rows is done."""

    def __init__(self, step: Teach, count: int) -> None:
        self.name, self.settings = step.name, step.settings
        self.memory: list[float] = []
        self._step, self._every = step, max(1, count // 10)

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        for number, outcome in enumerate(self._step.run(rows), start=1):
            yield outcome
            if number % self._every == 0:
                self.memory.append(resident_mebibytes())


def resident_mebibytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def teach(directory: Path, teacher: Teacher, arguments: argparse.Namespace) -> dict[str, Any]:
    store = Store.create(directory / "store")
    fill(store, arguments.rows)
    server = {"base_url": teacher.base_url, "model": "scripted", "concurrency": arguments.concurrency}
    recipe = build_config(TeachRecipe, {"teacher": server, "num_samples": 1}, (), source="benchmark")
    meter = open_meter(store, Part(), STEP, recipe)
    step = Watched(Teach(recipe, meter), arguments.rows)
    before, wall, cpu = teacher.count(), time.perf_counter(), time.process_time()
    run_step(store, step)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    assert count_step(store, STEP).num_kept == arguments.rows == teacher.count() - before
    return rates(arguments.rows, seconds, cpu_seconds) | {
        "memory_after_a_tenth_mib": round(step.memory[0]),
        "memory_at_the_end_mib": round(step.memory[-1]),
    }


def ask_bare(teacher: Teacher, arguments: argparse.Namespace) -> dict[str, Any]:
    server = ChatServer(teacher.base_url, "scripted", concurrency=arguments.concurrency)
    message = [{"role": "user", "content": "What is 1 + 1? " * 100}]
    requests = (ChatRequest(f"r{n}", message, 1.0, 8192, seed=n) for n in range(arguments.rows))
    wall, cpu = time.perf_counter(), time.process_time()
    chat(server, requests, lambda number, reply: None)
    return rates(arguments.rows, time.perf_counter() - wall, time.process_time() - cpu)


def rates(count: int, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    return {
        "requests": count,
        "per_second": round(count / seconds),
        "per_cpu_second": round(count / cpu_seconds),
        "cpu_ms_each": round(1000 * cpu_seconds / count, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        with teaching(directory, None, None, "--latency", str(arguments.latency)) as teacher:
            print("bare    ", json.dumps(ask_bare(teacher, arguments)), flush=True)
            print("teaching", json.dumps(teach(directory, teacher, arguments)), flush=True)


if __name__ == "__main__":
    main()
