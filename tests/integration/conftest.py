"""One run of the micro recipe by one process, for all tests that look at what a run leaves behind; and programs that
fork others."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

Program = Callable[..., list[str]]
"""Takes an order; what each of its processes ended with."""
MICRO = Path(__file__).with_name("micro.toml")


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Of several processes that test the first makes it, and the others wait."""
    root = tmp_path_factory.getbasetemp()
    directory = (root if worker_id == "master" else root.parent) / "micro"
    with FileLock(f"{directory}.lock"):
        if not (directory / "report.html").exists():
            command = [sys.executable, "-m", "prism", "run", str(MICRO), f"output={directory}", "threads=1"]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            assert finished.returncode == 0, finished.stderr
    return directory


def stages_of(run_directory: Path, directory: Path, *stages: str) -> Path:
    """A run in `directory` that has come as far as these stages of the micro run."""
    for stage in stages:
        shutil.copytree(run_directory / "seed-0" / stage, directory / "seed-0" / stage)
    return directory


@contextmanager
def listening(program: Path) -> Iterator[Program]:
    """A program that takes orders as lines of JSON and answers each with one; it imports once for all."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, str(program)], **pipes) as process:

        def give_order(**order: object) -> list[str]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield give_order
