"""Real processes, really killed, must end with the same bytes as one that was left in peace."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("toy_training.py")
SOURCE = Path(__file__).parents[2] / "src"
RESULTS = ("metrics.jsonl", "samples.jsonl", "model/weights.bin")


def _command(*arguments: object) -> list[str]:
    return [sys.executable, str(PROGRAM), *map(str, arguments)]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def fast_disk(tmp_path):
    """Memory where there is such a disk: waiting for a real one hundreds of times proves nothing more."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def _report(*arguments: object) -> dict:
    done = subprocess.run(_command(*arguments), env=_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_random_moments(tmp_path):
    report = _report("kill-at-random", tmp_path, 6)
    assert report["last_code"] == 0
    assert report["kills"] == 6
    assert report["lengths"][-1] > 0  # it had begun
    assert report["is_equal"]


def test_killed_before_every_single_operation_on_the_file_system(fast_disk):
    report = _report("kill-at-each-operation", fast_disk)
    assert report["kills"] > 50
    assert report["differing"] == []


def _wait_for_steps(process: subprocess.Popen, log: Path, num_steps: int) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < num_steps:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The results of a run that was left in peace."""
    directory = tmp_path_factory.mktemp("reference")
    subprocess.run(_command("train", directory / "run"), env=_environment(), check=True, capture_output=True)
    return [(directory / "run" / name).read_bytes() for name in RESULTS]


def test_the_same_command_after_sigterm(tmp_path, reference):
    run = tmp_path / "run"
    with subprocess.Popen(
        _command("train", run, 0.05), env=_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_for_steps(process, run / "metrics.jsonl", 5)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "give the same command again to go on" in said and "Traceback" not in said
    subprocess.run(_command("train", run), env=_environment(), check=True, capture_output=True)
    assert [(run / name).read_bytes() for name in RESULTS] == reference


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1) to mount a small disk")
def test_a_disk_that_fills_up(tmp_path, reference):
    """The run stops with a StorageError, keeps its last checkpoint and goes on once there is room."""
    disk, run = tmp_path / "disk", tmp_path / "disk" / "run"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size=200k tmpfs {disk} || exit 77
        head -c {110 * 1024} /dev/zero > {disk}/other
        "$@" 2> {tmp_path}/said && exit 1
        tail -n 1 {tmp_path}/said
        ls {run}/checkpoints
        rm {disk}/other
        "$@" && cp -r {run}/. {tmp_path}/copy
    """
    arguments = ["unshare", "-rm", "sh", "-c", script, "sh", *_command("train", run)]
    done = subprocess.run(arguments, env=_environment(), capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 0, done.stderr
    last_line, *checkpoints = done.stdout.splitlines()
    assert "prism.errors.StorageError: cannot write" in last_line and "free some space" in last_line
    assert len(checkpoints) == 1
    assert f"goes on after step {int(checkpoints[0].removeprefix('step-'))} of 20" in done.stderr
    assert [(tmp_path / "copy" / name).read_bytes() for name in RESULTS] == reference
