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

from prism.stages.datasets import DECODED

MICRO = Path(__file__).with_name("micro.toml")
KILLS = {
    "data": 1,
    "sft": 4,
    "sft/evaluation": 1,
    "warmup": 3,
    "align": 4,
    "sft-grpo": 3,
    "prism-grpo": 2,
    "prism-dapo": 2,
    "prism-dapo/evaluation": 1,
    "prism-gspo": 2,
}
"""How often the run is killed at a random moment of each stage."""
NOT_DETERMINISTIC = ("timings.jsonl", "manifest.json", "recipe.json")
"""Wall-clock times, and the only files that may name the directory of a run."""


def start(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prism", "run", str(MICRO), f"output={directory}"]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def contents(directory: Path) -> dict[str, str]:
    # What decoding told is kept with the times at which image files were written.
    files = [path for path in directory.rglob("*") if path.is_file() and DECODED not in path.parts]
    files = [path for path in files if path.name not in NOT_DETERMINISTIC]
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.startswith(".") and path.name != "report.html"
    }


def kill_within(stages: list[Path], directory: Path, delay: float) -> bool:
    """Runs the pipeline until it writes in one of `stages` and kills it `delay` seconds later; False if it ended."""
    started = time.time()
    process = start(directory)
    try:
        while process.poll() is None:
            files = [path for stage in stages for path in list(stage.glob("*")) if path.is_file()]
            if any(path.stat().st_mtime > started for path in files):
                time.sleep(delay)
                if process.poll() is None:
                    return True
            time.sleep(0.02)
        return False
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_kills_in_all_stages_change_nothing(tmp_path: Path) -> None:
    assert start(tmp_path / "uninterrupted").wait() == 0
    random_source = random.Random(0)
    seed, names = tmp_path / "killed" / "seed-0", list(KILLS)
    kills = [
        # A stage may be over before its second kill; the next one is then hit instead.
        (name, kill_within([seed / later for later in names[index:]], seed.parent, random_source.uniform(0, 1.0)))
        for index, name in enumerate(names)
        for _ in range(KILLS[name])
    ]
    print(kills)
    assert sum(is_killed for _, is_killed in kills) >= 20
    assert start(tmp_path / "killed").wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "uninterrupted")
