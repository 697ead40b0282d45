"""Collapse control on the command line: a reacting game killed midway ends alike, a failed one stays stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import stages_of

MICRO = Path(__file__).with_name("micro.toml")
NOT_DETERMINISTIC = ("timings.jsonl", "manifest.json")
REACTING = """
[align.control]
window = 1
low = 0.96
high = 0.98
hysteresis = 0.0
reactions = [
    { type = "replay", on = "below", share = 0.5, capacity = 6 },
    { type = "update-ratio", after = 1 },
    { type = "learning-rate", model = "policy" },
    { type = "label-smoothing" },
]

[align.control.limits]
valid_fraction = 0.0
truncated_fraction = 1.0
length = [0.01, 100]
entropy = [0.01, 100]
distinct = [0.01, 100]
repetition = 1.0
"""
"""A game that is outside its band in every step, and that nothing stops."""


def start(command: str, recipe: Path, directory: Path, *overrides: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "prism", command, str(recipe), f"output={directory}", "threads=1", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and the last line of what was said."""
    _, said = process.communicate()
    return process.returncode, said.splitlines()[-1]


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def warmed_up(run_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro run up to alignment; to be copied."""
    return stages_of(run_directory, tmp_path_factory.mktemp("runs") / "micro", "data", "base", "sft", "warmup")


@pytest.fixture
def reacting(tmp_path: Path) -> Path:
    recipe = tmp_path / "reacting.toml"
    recipe.write_text(f'extends = "{MICRO}"\n{REACTING}', encoding="utf-8")
    return recipe


def contents(stage: Path) -> dict[str, bytes]:
    files = [path for path in stage.rglob("*") if path.is_file() and path.name not in NOT_DETERMINISTIC]
    return {str(path.relative_to(stage)): path.read_bytes() for path in files if not path.name.startswith(".")}


def kill_after(num_steps: int, recipe: Path, directory: Path, *overrides: str) -> None:
    """Plays on until that many steps are recorded, and kills the process in the middle of what follows."""
    process = start("align", recipe, directory, *overrides)
    log = directory / "seed-0" / "align" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < num_steps:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


# Five alignments in processes of their own take some minutes; `make test` is to stay below ten.
@pytest.mark.slow
def test_a_reacting_game_that_is_killed_ends_in_the_same_bytes(warmed_up: Path, reacting: Path, tmp_path: Path) -> None:
    """Its memory of rollouts, its scaled rates, its events and audits come back from checkpoints of every second step;
    and audits change nothing else."""
    settings = ("evaluation=none", "align.num_steps=6", "align.checkpoint_every=2")
    audited = (*settings, "audit.every=1", "audit.num_prompts=4", "audit.stop_on_flags=false")
    plain, whole, killed = (Path(shutil.copytree(warmed_up, tmp_path / name)) for name in ("plain", "whole", "killed"))
    for directory, chosen in ((plain, settings), (whole, audited)):
        status, line = finish(start("align", reacting, directory, *chosen))
        assert status == 0, line
    for num_steps in (3, 5):
        kill_after(num_steps, reacting, killed, *audited)
    assert finish(start("align", reacting, killed, *audited))[0] == 0
    expected = contents(whole / "seed-0" / "align")
    assert contents(killed / "seed-0" / "align") == expected
    assert {"metrics.jsonl", "events.jsonl", "router.jsonl", "model/model.safetensors"} <= set(expected)
    assert expected.pop("audits.jsonl").count(b"\n") == 6
    assert contents(plain / "seed-0" / "align") == expected
    played = rows(whole / "seed-0" / "align" / "metrics.jsonl")
    assert sum(row["control/replayed"] > 0 for row in played) >= 2
    assert len({row["control/policy_rate"] for row in played}) >= 3
    assert {row["control/discriminator_updates"] for row in played} - {1}


def test_a_game_that_has_failed_stops_with_its_diagnosis_and_stays_stopped(warmed_up: Path, tmp_path: Path) -> None:
    """A hundred times the learning rate throws the discriminator's weights about."""
    directory = Path(shutil.copytree(warmed_up, tmp_path / "failed"))
    settings = ("evaluation=none", "align.control.window=2", "align.discriminator_learning_rate=1e-2")
    status, line = finish(start("align", MICRO, directory, *settings))
    assert status == 2
    assert line.startswith(
        "prism: align: stopped after step 2: discriminator-overshooting: the discriminator's weights"
    )
    assert "lower align.discriminator_learning_rate" in line
    stage = directory / "seed-0" / "align"
    [event] = rows(stage / "events.jsonl")
    assert (event["event"], event["diagnosis"]) == ("stop", "discriminator-overshooting")
    metrics = (stage / "metrics.jsonl").read_bytes()
    assert [row["step"] for row in rows(stage / "metrics.jsonl")] == [1, 2]
    assert [path.name for path in (stage / "checkpoints").iterdir()] == ["step-000002"]
    assert finish(start("run", MICRO, directory, *settings)) == (2, line)
    assert (stage / "metrics.jsonl").read_bytes() == metrics and not (stage / "model").exists()
    report = subprocess.run([sys.executable, "-m", "prism", "report", str(directory)], capture_output=True, check=True)
    page = Path(report.stdout.decode().strip()).read_text(encoding="utf-8")
    assert "stopped: discriminator-overshooting" in page and "This run is not complete." in page
