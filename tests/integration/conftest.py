"""One run of the micro recipe in one process, for all tests that look at what a run leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest

MICRO = Path(__file__).with_name("micro.toml")


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "micro"
    command = [sys.executable, "-m", "prism", "run", str(MICRO), f"output={directory}", "threads=1"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return directory
