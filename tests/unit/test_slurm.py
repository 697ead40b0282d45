"""The job script with stand-ins for SLURM's commands, which write down how they are called."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes" / "paper" / "slurm.sh"
Submit = Callable[[str], "subprocess.Popen[bytes]"]
STAND_INS = {
    "scontrol": 'echo "scontrol $*" >> calls; [ "$1" != show ] || printf "node7\\nnode8\\n"',
    "scancel": 'echo "scancel $*" >> calls; kill -TERM "$(cat step)"',
    "srun": 'echo "srun $*" >> calls; echo $$ > step; trap "echo saved >> calls; exit 143" TERM; eval "$STEP"',
}


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    for name, body in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)

    def start(step: str) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_ID": "42",
            "STEP": step,
        }
        return subprocess.Popen(["bash", SCRIPT, "mine.toml", "seeds=[1]"], cwd=tmp_path, env=environment)

    return start


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize("status", [0, 2])
def test_every_machine_gets_a_torchrun_and_the_jobs_status_is_the_runs(
    submit: Submit, tmp_path: Path, status: int
) -> None:
    assert submit(f"exit {status}").wait(30) == status
    [command] = [line for line in calls(tmp_path) if line.startswith("srun")]
    assert command.startswith("srun torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id 42 ")
    assert "--rdzv-endpoint node7:29500 " in command
    assert command.endswith(" -m prism run mine.toml seeds=[1]")
    assert "scontrol requeue 42" not in calls(tmp_path)


def test_out_of_time_the_run_saves_first_and_is_queued_again(submit: Submit, tmp_path: Path) -> None:
    job = submit("while true; do sleep 0.05; done")
    while not (tmp_path / "step").exists():
        time.sleep(0.05)
    time.sleep(0.2)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 143
    assert calls(tmp_path)[2:] == ["scancel --signal TERM 42.0", "saved", "scontrol requeue 42"]
