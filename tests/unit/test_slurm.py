"""The job script with stand-ins for SLURM's commands, which write down how they are called."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.launcher.api import LaunchConfig
from torch.distributed.run import get_args_parser

SCRIPT = Path(__file__).parents[2] / "recipes" / "paper" / "slurm.sh"
Submit = Callable[[str], "subprocess.Popen[bytes]"]
SRUN = """
echo "srun $*" >> calls
kills=no cpus=1 status=0
while [ "$1" != torchrun ]; do
    case "$1" in
        --kill-on-bad-exit=1) kills=yes ;;
        --cpus-per-task) cpus=$2; shift ;;
        *) exit 64 ;;
    esac
    shift
done
for machine in 7 8; do
    MACHINE=$machine CPUS=$cpus "$@" &
    tasks+=($!)
done
echo "${tasks[@]}" > tasks
for task in "${tasks[@]}"; do
    wait -n
    code=$?
    [ "$code" -eq 0 ] && continue
    [ "$status" -ne 0 ] || status=$code
    [ "$kills" = no ] || kill -KILL "${tasks[@]}" 2> /dev/null
done
exit "$status"
"""
"""Runs the command on two machines: with the CPUs that it is asked for, else with one, as SLURM 22.05 does; where one
fails the other goes on, unless it is to be ended."""
TORCHRUN = """
trap "echo saved >> calls; exit 143" TERM
echo "torchrun on $CPUS CPUs, waits $TORCH_ELASTIC_SHUTDOWN_TIMEOUT s" >> calls
eval "$STEP"
"""
STAND_INS = {
    "scontrol": 'echo "scontrol $*" >> calls; [ "$1" != show ] || printf "node7\\nnode8\\n"',
    "scancel": 'echo "scancel $*" >> calls; kill -TERM $(cat tasks)',
    "srun": SRUN,
    "torchrun": TORCHRUN,
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
            "SLURM_CPUS_PER_TASK": "64",
            "STEP": step,
        }
        return subprocess.Popen(["bash", SCRIPT, "mine.toml", "seeds=[1]"], cwd=tmp_path, env=environment)

    return start


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("status", [0, 2])
def test_every_machine_gets_a_torchrun_and_the_jobs_status_is_the_runs(
    submit: Submit, tmp_path: Path, status: int
) -> None:
    assert submit(f"exit {status}").wait(30) == status
    [command] = [line for line in calls(tmp_path) if line.startswith("srun")]
    words = shlex.split(command)
    arguments = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.rdzv_id) == ("2", "8", "42")
    assert (arguments.rdzv_backend, arguments.rdzv_endpoint) == ("c10d", "node7:29500")
    assert arguments.module and arguments.training_script == "prism"
    assert arguments.training_script_args == ["run", "mine.toml", "seeds=[1]"]
    assert "scontrol requeue 42" not in calls(tmp_path)


def test_a_torchrun_has_the_jobs_cpus_and_waits_long_enough_for_a_checkpoint(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert submit("exit 0").wait(30) == 0
    assert calls(tmp_path)[-2:] == ["torchrun on 64 CPUs, waits 840 s"] * 2
    if not hasattr(LaunchConfig, "shutdown_timeout"):
        pytest.skip("this torch always waits 30 seconds")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "840")
    assert LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=1).shutdown_timeout == 840


def test_what_fails_on_one_machine_ends_the_other(submit: Submit) -> None:
    assert submit('[ "$MACHINE" = 7 ] || exit 2; exec sleep 60').wait(30) == 2


def test_out_of_time_the_run_saves_first_and_is_queued_again(submit: Submit, tmp_path: Path) -> None:
    job = submit("while true; do sleep 0.05; done")
    while sum(line.startswith("torchrun") for line in calls(tmp_path)) < 2 or not (tmp_path / "tasks").exists():
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 143
    said = calls(tmp_path)
    after = said[said.index("scancel --signal TERM 42.0") + 1 :]
    assert after[0] == "saved" and after[-1] == "scontrol requeue 42"
