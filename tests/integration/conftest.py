"""One run of the micro recipe by one process, for all tests that look at what a run leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

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
