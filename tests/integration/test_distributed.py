"""Two processes that do a run together, against one process that does it alone; all in float64."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prism.config import WorldData
from prism.stages.datasets import write_world

from .conftest import Program, listening, stages_of

MICRO = Path(__file__).with_name("micro.toml")
COMMAND = str(Path(__file__).with_name("double_precision.py"))
FORKED = Path(__file__).with_name("forked_prism.py")
ALONE = (sys.executable, COMMAND)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", COMMAND)
TOLERANCE = 1e-9
AUDITED = ("audit.num_prompts=4", "audit.samples_per_prompt=2", "audit.every=2", "audit.stop_on_flags=false")
SMALLER = (
    *("rollout.batch_size=4", "align.num_steps=3", "rlvr.num_steps=2", "rlvr.baselines=[]", "evaluation.limit=1"),
    *AUDITED,
)
"""What a step samples is several batches, so that both processes have some. The baseline is GRPO of more steps."""
MODELS = (
    "warmup/model",
    "align/model",
    "align/discriminator",
    *(f"{stage}/model" for stage in ("prism-grpo", "prism-dapo", "prism-gspo")),
)
FINE_TUNED = ("data", "base", "sft")
"""What both runs begin with; fine-tuning is compared on rows of more kinds below."""
LEFT_OUT = ("accuracy/", "heldout/", "weight_change")
"""Compares scores that may be equal but for round-off, those of the same words; or looks at the first process's
shards."""


@contextmanager
def running(command: Sequence[str], directory: Path, recipe: Path = MICRO) -> Iterator[subprocess.Popen[str]]:
    arguments = [*command, "run", str(recipe), f"output={directory}", "threads=1"]
    if recipe == MICRO:
        arguments += SMALLER
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(command: Sequence[str], directory: Path, recipe: Path = MICRO) -> None:
    with running(command, directory, recipe) as process:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not (path.exists() and any(path.iterdir())):
        assert process.poll() is None, f"ended before there was {path}: {process.communicate()[1]}"
        time.sleep(0.02)


def stop_in(stage: str, command: Sequence[str], directory: Path, number: signal.Signals) -> int:
    """Runs until `stage` has a checkpoint and sends the signal; the exit status."""
    with running(command, directory) as process:
        wait_for(directory / "seed-0" / stage / "checkpoints", process)
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.communicate()
        return process.returncode


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def metric_rows(directory: Path, stage: str) -> list[dict[str, float]]:
    """What each step measured, without what it could not."""
    lines = (directory / "seed-0" / stage / "metrics.jsonl").read_text().splitlines()
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if value is not None and not any(part in name for part in LEFT_OUT)
        }
        for line in lines
    ]


def assert_same_metrics(alone: Path, shared: Path, stage: str) -> None:
    for one, other in zip(metric_rows(alone, stage), metric_rows(shared, stage), strict=True):
        assert other == pytest.approx(one, abs=TOLERANCE, rel=TOLERANCE)


def assert_same_weights(alone: Path, shared: Path) -> None:
    for file in ("model.safetensors", "head.safetensors"):
        if not (alone / file).exists():
            continue
        one, other = load_file(alone / file), load_file(shared / file)
        assert one.keys() == other.keys()
        assert all(weight.dtype == torch.float64 for weight in one.values())
        assert max(float((one[name] - other[name]).abs().max()) for name in one) < TOLERANCE


@pytest.fixture(scope="module")
def alone(run_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = stages_of(run_directory, tmp_path_factory.mktemp("runs") / "alone", *FINE_TUNED)
    finish(ALONE, directory)
    return directory


@pytest.fixture(scope="module")
def together(run_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes, by one, and by two again; stopped in alignment, killed in RLVR."""
    directory = stages_of(run_directory, tmp_path_factory.mktemp("runs") / "together", *FINE_TUNED)
    assert stop_in("align", TORCHRUN, directory, signal.SIGTERM) != 0
    assert not (directory / "seed-0" / "align" / "model").exists()
    assert stop_in("prism-grpo", ALONE, directory, signal.SIGKILL) != 0
    assert not (directory / "seed-0" / "prism-grpo" / "model").exists()
    finish(TORCHRUN, directory)
    return directory


@pytest.mark.parametrize("name", MODELS)
def test_final_weights_are_those_of_one_process(alone: Path, together: Path, name: str) -> None:
    assert_same_weights(alone / "seed-0" / name, together / "seed-0" / name)


@pytest.mark.parametrize("stage", ["warmup", "align", "prism-grpo", "prism-dapo", "prism-gspo"])
def test_every_step_measured_what_one_process_measures(alone: Path, together: Path, stage: str) -> None:
    assert_same_metrics(alone, together, stage)


def test_a_game_is_audited_alike(alone: Path, together: Path) -> None:
    """But for shares of pairs whose scores may be equal but for round-off."""
    one, other = (
        [json.loads(line) for line in (run / "seed-0" / "align" / "audits.jsonl").read_text().splitlines()]
        for run in (alone, together)
    )
    assert [found["step"] for found in one] == [found["step"] for found in other] == [2]
    for part in ("subject", "flags", "warnings", "inputs", "shortcuts"):
        assert one[0][part] == other[0][part]
    for view, probes in one[0]["probes"].items():
        for name, probe in probes.items():
            assert probe["shift"] == pytest.approx(other[0]["probes"][view][name]["shift"], rel=1e-6, abs=1e-9)


def test_evaluations_have_the_same_answers(alone: Path, together: Path) -> None:
    for stage in ("sft", "align", "prism-grpo"):
        path = Path("seed-0") / stage / "evaluation" / "items.jsonl"
        assert (together / path).read_text() == (alone / path).read_text()


def mixed_rows(directory: Path) -> str:
    """A recipe of fine-tuning on rows of which every other has no image; each fills a sequence of its own."""
    write_world(WorldData(public=8, curated=0, alignment=1, rl=1, dev=1, test_per_benchmark=1), directory, seed=0)
    file = directory / "sft" / "public.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[::2]:
        row["images"] = []
        row["messages"][0]["content"] = row["messages"][0]["content"].replace("<image>", "")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"""
        data = {{ type = "files", sft = ["{file}"] }}
        base = {{ type = "tiny" }}
        sft = {{ num_steps = 3, batch_size = 5, max_response_tokens = 240, token_budget = 400, learning_rate = 1e-4 }}
    """


def adapted_rows(directory: Path) -> str:
    """The same by adapters, which are whole in every process."""
    return f"lora = {{ rank = 2 }}\n{mixed_rows(directory)}"


def pretraining(directory: Path) -> str:
    """Lessons with images and without, of a model whose weights are not sharded."""
    return """
        data = { type = "world", public = 8, curated = 0, alignment = 1, rl = 1, dev = 1, test_per_benchmark = 1 }
        base = { type = "tiny", source = "pretrain", pretrain = { num_steps = 4, batch_size = 6, token_budget = 400 } }
    """


@pytest.fixture(scope="module")
def forked() -> Iterator[Program]:
    with listening(FORKED) as program:
        yield program


@pytest.mark.parametrize(("make", "stage"), [(mixed_rows, "sft"), (adapted_rows, "sft"), (pretraining, "base")])
def test_rows_with_and_without_images(forked: Program, tmp_path: Path, make: Callable[[Path], str], stage: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "mixed"\nmax_prompt_tokens = 160\n{make(tmp_path / "data")}')
    for name, num_processes in (("alone", 1), ("together", 2)):
        arguments = ["run", str(recipe), f"output={tmp_path / name}", "threads=1"]
        assert forked(num_processes=num_processes, arguments=arguments) == [""] * num_processes
    assert_same_metrics(tmp_path / "alone", tmp_path / "together", stage)
    assert_same_weights(*(tmp_path / name / "seed-0" / stage / "model" for name in ("alone", "together")))


def test_a_process_that_dies_ends_the_run(tmp_path: Path) -> None:
    with running(TORCHRUN, tmp_path / "dying") as process:
        wait_for(tmp_path / "dying" / "seed-0" / "sft" / "checkpoints", process)
        started = time.monotonic()
        os.kill(workers(process)[1], signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode != 0
        assert time.monotonic() - started < 60


def test_an_error_of_one_process_ends_the_run_and_is_told(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "failing"\nmax_prompt_tokens = 160\n{mixed_rows(tmp_path / "data")}')
    command = [*TORCHRUN[:-1], str(Path(__file__).with_name("unreadable_image.py"))]
    with running(command, tmp_path / "failing", recipe) as process:
        wait_for(tmp_path / "failing" / "seed-0" / "sft", process)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
    told = [line for line in errors.splitlines() if line.startswith("prism: ")]
    assert len(told) == 1 and re.fullmatch("prism: prompt '.+': its image is gone", told[0])
    assert not (tmp_path / "failing" / "seed-0" / "sft" / "model").exists()
