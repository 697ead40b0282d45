import io
import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from prism.errors import CheckpointError, NumericsError, StorageError
from prism.runtime import manifest as manifest_module
from prism.runtime.atomic import atomic_directory
from prism.runtime.generators import generator
from prism.runtime.interrupt import Interrupted
from prism.runtime.optimizer import make_optimizer, make_schedule
from prism.runtime.stage import StageRun

STEPS = 7

# Newer Pythons warn of fork beside threads; the children here only write files and leave.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


class Toy:
    """A stage in small: a linear model, counter-based data, dropout from the global generator, bookkeeping."""

    def __init__(self, directory: Path, *, every: int = 3, show=(), **changes) -> None:
        self.screen = io.StringIO()
        arguments = {"config": {"rate": 0.1}, "inputs": {"data": "d" * 64}, "seed": 0, "num_steps": STEPS} | changes
        self.run = StageRun(
            directory,
            name="toy",
            kind="toy",
            checkpoint_every=every,
            console=Console(file=self.screen),
            show=show,
            **arguments,
        )

    def attach(self) -> None:
        self.model = nn.Linear(3, 1)
        with torch.no_grad():
            self.model.weight.fill_(0.5)
            self.model.bias.zero_()
        optimizer = make_optimizer(self.model, learning_rate=0.1, weight_decay=0.01)
        schedule = make_schedule(optimizer, kind="cosine", num_steps=STEPS, warmup_fraction=0.2)
        self.optimizer, self.schedule, self.state = optimizer, schedule, {"seen": []}
        self.run.attach(
            modules={"toy": self.model}, optimizers={"toy": optimizer}, schedulers={"toy": schedule}, state=self.state
        )
        self.run.record(0, {"loss/before": 1.0})

    def body(self, step: int) -> None:
        batch = torch.dropout(torch.randn(8, 3, generator=generator(0, "toy", step)), 0.2, train=True)
        loss = (self.model(batch) - 1).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.state["seen"].append(step)
        self.run.record(step, {"loss/nll": loss.detach(), "loss/dev": None}, tokens=24)
        self.run.sample(step, {"seen": len(self.state["seen"])})
        if step % 2:
            self.run.log("items.jsonl").append({"item": step})

    def train(self, stop_in: int | None = None, at_end=lambda step: None) -> None:
        self.attach()
        for step in self.run.steps():
            self.body(step)
            if step == stop_in:
                raise KeyError("cut off in the middle of a step")
            at_end(step)
        self.run.record(STEPS, {"loss/after": float(self.model.bias.detach())})

    def finish(self) -> dict[str, Path]:
        with atomic_directory(self.run.directory / "model") as path:
            (path / "weights").write_bytes(self.model.weight.detach().numpy().tobytes())
        return self.run.finish({"model": "model"})

    def said(self) -> str:
        return self.screen.getvalue()


def _results(directory: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "samples.jsonl", "items.jsonl", "model/weights")
    return {name: (directory / name).read_bytes() for name in names}


@pytest.fixture
def reference(tmp_path):
    toy = Toy(tmp_path / "reference")
    toy.train()
    toy.finish()
    return _results(tmp_path / "reference")


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_complete_directory(tmp_path, reference):
    directory = tmp_path / "reference"
    names = {".lock", "manifest.json", "metrics.jsonl", "samples.jsonl", "timings.jsonl", "items.jsonl", "model"}
    assert {path.name for path in directory.iterdir()} == names
    rows = _rows(directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, *range(1, STEPS + 1), STEPS]
    assert list(rows[1]) == ["step", "loss/nll", "loss/dev"] and rows[1]["loss/dev"] is None
    assert _rows(directory / "samples.jsonl") == [{"step": step, "seen": step} for step in range(1, STEPS + 1)]
    timings = _rows(directory / "timings.jsonl")
    assert [row["step"] for row in timings] == list(range(1, STEPS + 1))
    for row in timings:
        assert row["time/tokens_per_second"] == pytest.approx(24 / row["time/step_seconds"])
    manifest = json.loads((directory / "manifest.json").read_text())
    assert (manifest["status"], manifest["outputs"]["model"]["path"]) == ("complete", "model")


def test_a_complete_stage_is_not_run_again(tmp_path, reference):
    toy = Toy(tmp_path / "reference", every=1)
    assert toy.run.is_complete
    assert toy.run.outputs == {"model": tmp_path / "reference" / "model"}
    assert toy.run.output_hashes.keys() == {"model"}
    assert "not run again" in toy.said()
    with pytest.raises(RuntimeError):
        toy.run.attach()
    assert _results(tmp_path / "reference") == reference


def test_steps_that_follow_from_the_data_are_asked_for_once(tmp_path):
    asked = []

    def num_steps():
        asked.append(1)
        return STEPS

    for data, rate in (("d", 0.1), ("d", 0.1), ("e", 0.1), ("d", 0.2)):
        toy = Toy(tmp_path / "toy", num_steps=num_steps, inputs={"data": data * 64}, config={"rate": rate})
        assert toy.run.num_steps == STEPS
        if not toy.run.is_complete:
            toy.train()
            toy.finish()
    assert len(asked) == 3
    assert Toy(tmp_path / "toy", config={"rate": 0.2}).run.is_complete
    # A stage that will be run again, since what it wrote is gone, asks what there is now.
    shutil.rmtree(tmp_path / "toy" / "model")
    assert not Toy(tmp_path / "toy", num_steps=num_steps, config={"rate": 0.2}).run.is_complete
    assert len(asked) == 4


@pytest.mark.parametrize("stop_in", range(1, STEPS + 1))
def test_cut_off_in_any_step_it_ends_the_same(tmp_path, reference, stop_in):
    directory = tmp_path / "run"
    with pytest.raises(KeyError):
        Toy(directory).train(stop_in=stop_in)
    toy = Toy(directory)
    assert not toy.run.is_complete
    toy.train()
    assert toy.run.start_step == (stop_in - 1) // 3 * 3
    assert toy.state["seen"] == list(range(1, STEPS + 1))
    toy.finish()
    assert _results(directory) == reference
    assert not list(tmp_path.glob("*.stale-*"))


def test_cut_off_after_the_last_step_only_the_end_is_repeated(tmp_path, reference):
    directory = tmp_path / "run"
    Toy(directory).train()
    toy = Toy(directory)
    toy.train(stop_in=STEPS)
    assert toy.run.start_step == STEPS
    toy.finish()
    assert _results(directory) == reference


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", [1, 3, 5, STEPS])
def test_a_signal_saves_at_the_step_boundary(tmp_path, reference, number, when):
    directory = tmp_path / "run"
    toy = Toy(directory)
    with pytest.raises(Interrupted) as stop:
        toy.train(at_end=lambda step: os.kill(os.getpid(), number) if step == when else None)
    assert stop.value.code == 128 + number
    assert f"saved after step {when} of {STEPS}; give the same command again" in toy.said()
    again = Toy(directory)
    again.train()
    assert again.run.start_step == when
    again.finish()
    assert _results(directory) == reference


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config": {"rate": 0.2}}, "config.rate 0.1 → 0.2"),
        ({"inputs": {"data": "e" * 64}}, "inputs.data"),
        ({"seed": 1}, "seed 0 → 1"),
        ({}, "the code of this package"),
    ],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_changed_stage_starts_afresh_and_keeps_the_old_results_apart(
    tmp_path, monkeypatch, changes, reason, is_finished
):
    directory = tmp_path / "run"
    toy = Toy(directory)
    toy.train()
    if is_finished:
        toy.finish()
    before = (directory / "metrics.jsonl").read_bytes()
    if not changes:
        monkeypatch.setattr(manifest_module, "code_version", lambda: "0" * 64)
    changed = Toy(directory, **changes)
    stale = list(tmp_path.glob("run.stale-*"))
    assert len(stale) == 1 and (stale[0] / "metrics.jsonl").read_bytes() == before
    assert (
        changed.said() == f"toy: changed: {reason}; starts at step 1, the earlier results are now in {stale[0].name}\n"
    )
    changed.train()
    assert changed.run.start_step == 0
    assert len(_rows(directory / "metrics.jsonl")) == STEPS + 2


@pytest.mark.parametrize("damage", ["alter", "remove"])
def test_altered_outputs_are_made_again(tmp_path, reference, damage):
    weights = tmp_path / "reference" / "model" / "weights"
    weights.unlink() if damage == "remove" else weights.write_bytes(b"other")
    toy = Toy(tmp_path / "reference")
    assert not toy.run.is_complete and "output model was altered" in toy.said()
    toy.train()
    toy.finish()
    assert _results(tmp_path / "reference") == reference


def test_the_checkpoint_interval_is_free_to_change(tmp_path, reference):
    directory = tmp_path / "run"
    with pytest.raises(KeyError):
        Toy(directory, every=2).train(stop_in=5)
    toy = Toy(directory, every=5)
    toy.train()
    assert toy.run.start_step == 4
    toy.finish()
    assert _results(directory) == reference


def test_killed_while_tidying_up(tmp_path, reference, monkeypatch):
    directory = tmp_path / "run"
    toy = Toy(directory)
    toy.train()
    monkeypatch.setattr(StageRun, "_tidy", lambda self: None)
    toy.finish()
    assert (directory / "checkpoints").exists()
    monkeypatch.undo()
    assert Toy(directory).run.is_complete
    assert not (directory / "checkpoints").exists()
    assert _results(directory) == reference


def test_checkpoints_are_kept_on_request(tmp_path):
    toy = Toy(tmp_path / "run", keep_checkpoints=True)
    toy.train()
    toy.finish()
    assert Toy(tmp_path / "run", keep_checkpoints=True).run.is_complete
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{STEPS:06d}"]


def test_nan_stops_the_run_with_name_and_step(tmp_path):
    toy = Toy(tmp_path / "run")
    toy.attach()
    with pytest.raises(NumericsError, match=r"toy: loss/nll is nan at step 2"):
        for step in toy.run.steps():
            toy.run.record(step, {"loss/nll": 1.0 if step == 1 else math.nan})
    assert [row["step"] for row in _rows(tmp_path / "run" / "metrics.jsonl")] == [0, 1]


def test_a_damaged_checkpoint_stops_the_command(tmp_path):
    with pytest.raises(KeyError):
        Toy(tmp_path / "run").train(stop_in=4)
    (tmp_path / "run" / "checkpoints" / "step-000003" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        Toy(tmp_path / "run").train()


def test_an_edited_log_stops_the_command(tmp_path):
    with pytest.raises(KeyError):
        Toy(tmp_path / "run").train(stop_in=4)
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(log.read_text().replace("loss/nll", "loss/abc"))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl no longer holds"):
        Toy(tmp_path / "run").train()


@pytest.mark.parametrize("stop_in", [2, 5])
def test_what_was_logged_for_the_first_time_after_the_checkpoint_is_gone(tmp_path, stop_in):
    """Before there was one, too. Who repeats the step may come to another end, on a GPU or with other processes."""
    cut = Toy(tmp_path / "run")
    cut.attach()
    with pytest.raises(KeyError):
        for step in cut.run.steps():
            cut.body(step)
            if step == stop_in:
                cut.run.log("events.jsonl").append({"step": step, "event": "stop"})
                raise KeyError("killed")
    del cut
    toy = Toy(tmp_path / "run")
    toy.train()
    toy.finish()
    assert not (tmp_path / "run" / "events.jsonl").exists()
    assert [row["item"] for row in _rows(tmp_path / "run" / "items.jsonl")] == [1, 3, 5, 7]


def test_files_of_something_else_are_not_touched(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(StorageError, match=r"holds thesis\.tex but no manifest"):
        Toy(tmp_path / "run")
    assert (tmp_path / "run" / "thesis.tex").read_text() == "x"


def test_two_processes_do_not_share_a_directory(tmp_path):
    toy = Toy(tmp_path / "run")
    child = os.fork()
    if child == 0:
        try:
            Toy(tmp_path / "run")
        except StorageError as error:
            os._exit(0 if "in use" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not toy.run.is_complete


def test_a_stage_without_steps(tmp_path):
    def stage():
        return StageRun(
            tmp_path / "base", name="base", kind="base", config={}, inputs={}, num_steps=0, checkpoint_every=1, seed=0
        )

    run = stage()
    (run.directory / "out.txt").write_text("x")
    assert run.finish({"text": "out.txt"}) == {"text": tmp_path / "base" / "out.txt"}
    assert stage().is_complete


def test_finishing_early_is_a_mistake(tmp_path):
    toy = Toy(tmp_path / "run")
    toy.attach()
    with pytest.raises(RuntimeError, match="step 0 of 7"):
        toy.run.finish({})
    with pytest.raises(RuntimeError, match="not complete"):
        _ = toy.run.outputs


def test_another_thread_count_is_mentioned(tmp_path):
    with pytest.raises(KeyError):
        Toy(tmp_path / "run").train(stop_in=4)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        toy = Toy(tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    assert "last bits may differ" in toy.said()


def test_progress_shows_the_chosen_metrics(tmp_path):
    toy = Toy(tmp_path / "run", show=("loss/before",))
    toy.train()
    last = toy.said().splitlines()[-1]
    assert last.startswith("toy 7/7  loss/before 1  ") and last.endswith("tokens/s  0:00:00 left")


def test_a_stage_that_stops_by_itself_saves_first(tmp_path, reference):
    """Between two checkpoints, all logs included: the next process is after that step."""
    directory = tmp_path / "run"
    toy = Toy(directory)
    toy.attach()
    with pytest.raises(NumericsError, match="stops here"):
        for step in toy.run.steps():
            toy.body(step)
            if step == 4:
                toy.run.save(step)
                raise NumericsError("stops here")
    assert [path.name for path in (directory / "checkpoints").iterdir()] == ["step-000004"]
    again = Toy(directory)
    again.train()
    assert again.run.start_step == 4
    again.finish()
    assert _results(directory) == reference
