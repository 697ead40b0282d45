"""A whole run killed again and again ends in the bytes of one that never was."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MICRO = Path(__file__).with_name("micro.toml")
NUM_KILLS = 20
NOT_DETERMINISTIC = ("timings.jsonl", "manifest.json", "recipe.json")
"""Wall-clock times, and the only files that may name the directory of a run."""


def start(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prism", "run", str(MICRO), f"output={directory}"]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file() and path.name not in NOT_DETERMINISTIC]
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.startswith(".") and path.name != "report.html"
    }


@pytest.mark.slow
def test_twenty_kills_over_all_stages_change_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import prism.stages.pipeline"], check=True)
    imports = time.monotonic() - started

    started = time.monotonic()
    uninterrupted = start(tmp_path / "uninterrupted")
    assert uninterrupted.wait() == 0
    total = time.monotonic() - started

    random_source = random.Random(0)
    killed_in = []
    while True:
        process = start(tmp_path / "killed")
        limit = imports + random_source.uniform(0, total / 16) if len(killed_in) < NUM_KILLS else None
        try:
            assert process.wait(timeout=limit) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            stages = (tmp_path / "killed" / "seed-0").glob("*/manifest.json")
            killed_in.append(max(stages, key=lambda path: path.stat().st_mtime).parent.name)
    print(f"killed {len(killed_in)} times, in {killed_in}")
    assert len(killed_in) >= NUM_KILLS
    assert len(set(killed_in)) > 3
    assert contents(tmp_path / "killed") == contents(tmp_path / "uninterrupted")
