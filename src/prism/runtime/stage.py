"""One stage of a run: skipped when done, resumed when cut off, started afresh when anything changed.

    run = StageRun(directory, name="sft", kind="sft", config=…, inputs=…, num_steps=…, checkpoint_every=…, seed=…)
    if run.is_complete:
        return run.outputs
    run.attach(modules={"policy": policy}, optimizers={"policy": optimizer}, schedulers={"policy": schedule})
    for step in run.steps():
        …                                   # all randomness from (seed, name, step, …)
        run.record(step, {"loss/nll": loss}, tokens=count)
    with atomic_directory(run.directory / "model") as path:
        policy.save_pretrained(path)
    return run.finish({"model": "model"})

A process killed at any moment and started again with the same command ends with the same bytes in
the weights, metrics.jsonl and samples.jsonl as one that was never killed: a checkpoint holds the
state after a step together with the length of each log, and a resumed run cuts the logs back to it.
Wall-clock times go to timings.jsonl, which alone differs.

Several processes that run a stage together (`runtime.distributed`) each have a StageRun; what is on the disk is the
first one's affair, but for their shards in a checkpoint.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from prism.errors import StorageError
from prism.runtime.atomic import discard, remove_temporaries, storage_errors
from prism.runtime.checkpoint import list_checkpoints, load_latest, save_checkpoint
from prism.runtime.distributed import from_first, largest
from prism.runtime.generators import restore_rng_state, seed_globals
from prism.runtime.interrupt import Interrupted, InterruptFlag
from prism.runtime.jsonl import JsonlLog, UnwrittenLog
from prism.runtime.launch import is_first
from prism.runtime.lock import DirectoryLock
from prism.runtime.manifest import (
    Identity,
    changed_outputs,
    environment,
    hash_outputs,
    read_manifest,
    set_aside,
    write_manifest,
)
from prism.runtime.metrics import metric_row
from prism.runtime.progress import StepProgress, make_console, say

METRICS, TIMINGS, SAMPLES = "metrics.jsonl", "timings.jsonl", "samples.jsonl"


class StageRun:
    """Owns a stage directory from construction until `finish` or the end of the process.

    `config` must be JSON-able and hold whatever the results depend on; `inputs` maps names to sha256
    digests or to paths. Any change of these, of `seed`, `num_steps` or the package's code moves the
    old directory to `<name>.stale-<hash8>` and starts at step 1. `checkpoint_every` may change freely.
    The newest checkpoint is deleted when the stage is complete, unless `keep_checkpoints`. `show` names
    the metrics to display.

    `num_steps` may be a function where it follows from how many rows the data have. Of a complete stage whose identity
    is otherwise the same, inputs included, it is not asked: what was recorded still follows.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        kind: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str | Path],
        num_steps: int | Callable[[], int],
        checkpoint_every: int,
        seed: int,
        keep_checkpoints: bool = False,
        show: Sequence[str] = (),
        console: Console | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.name, self.seed = name, seed
        self.start_step = 0
        """The last step the loaded checkpoint holds; 0 for a fresh start. Known after `attach`."""
        # By one process, which reads the inputs that are given by their paths.
        identity = from_first(
            partial(Identity.of, name=name, kind=kind, config=config, inputs=inputs, seed=seed, num_steps=0)
        )
        self.num_steps = self._settle_steps(identity, num_steps)
        self._identity = identity.with_steps(self.num_steps)
        self._checkpoints = self.directory / "checkpoints"
        self._checkpoint_every, self._keep_checkpoints = max(1, checkpoint_every), keep_checkpoints
        self._show, self._console = tuple(show), console or make_console()
        self._training: dict[str, Any] | None = None
        self._state: MutableMapping[str, Any] = {}
        self._marks: dict[str, Any] = {}
        self._logs: dict[str, JsonlLog | UnwrittenLog] = {}
        self._rng: dict[str, Any] | None = None
        self._done_step = 0
        self._latest: dict[str, Any] = {}
        self._tokens: int | None = None
        self._seconds_aside = 0.0
        self._lock: DirectoryLock | None = None
        self.is_complete = from_first(self._is_done)
        """Whether an earlier run finished this very stage and its outputs are untouched."""
        if self.is_complete:
            from_first(self._tidy)
            self.say("unchanged since it was completed, not run again")
        else:
            from_first(self._open)

    @property
    def outputs(self) -> dict[str, Path]:
        """Paths of the outputs of a complete stage."""
        return {name: self.directory / output["path"] for name, output in self._recorded_outputs().items()}

    @property
    def output_hashes(self) -> dict[str, str]:
        """sha256 of each output of a complete stage: the next stage's inputs."""
        return {name: output["sha256"] for name, output in self._recorded_outputs().items()}

    def attach(
        self,
        *,
        modules: Mapping[str, nn.Module] | None = None,
        optimizers: Mapping[str, Optimizer] | None = None,
        schedulers: Mapping[str, LRScheduler] | None = None,
        state: MutableMapping[str, Any] | None = None,
    ) -> None:
        """Name what a checkpoint holds and restore the newest one into it.

        `state` is the stage's own JSON-able bookkeeping, which the stage mutates and a resumed run
        finds filled. Once, before `steps`; anything derived from weights is to be built afterwards.
        """
        if self._training is not None or self.is_complete:
            raise RuntimeError("attach is called once, on a stage that is not complete")
        self._training = {"modules": modules or {}, "optimizers": optimizers or {}, "schedulers": schedulers or {}}
        self._state = {} if state is None else state
        loaded = load_latest(self._checkpoints, **self._training)
        from_first(partial(self._drop_logs, () if loaded is None else loaded.state["logs"]))
        if loaded is None:
            return
        self._state.clear()
        self._state.update(loaded.state["stage"])
        self._marks, self._rng = loaded.state["logs"], loaded.rng
        self.start_step = self._done_step = loaded.step
        self.say(f"goes on after step {loaded.step} of {self.num_steps}")

    def steps(self) -> Iterator[int]:
        """The steps still to do, from 1 to `num_steps`.

        After the body of a step: timings, a checkpoint where one is due, and, if SIGTERM or Ctrl-C
        came meanwhile, a checkpoint and Interrupted.
        """
        if self._training is None:
            self.attach()
        if self._rng is None:
            seed_globals(self.seed, self.name)
        else:
            restore_rng_state(self._rng)
        progress = StepProgress(
            self.name, self.num_steps, start=self.start_step, metrics=self._show, console=self._console
        )
        for name in (METRICS, TIMINGS, SAMPLES, *self._marks):
            self.log(name)
        with progress, InterruptFlag() as interrupt:
            for step in range(self.start_step + 1, self.num_steps + 1):
                started = time.perf_counter()
                yield step
                self._close_step(step, time.perf_counter() - started - self._seconds_aside, progress)
                stop = largest(interrupt.signal_number or 0) or None
                if stop is not None or step % self._checkpoint_every == 0 or step == self.num_steps:
                    self.save(step)
                if stop is not None:
                    self.say(f"saved after step {step} of {self.num_steps}; give the same command again to go on")
                    raise Interrupted(stop, f"{self.name}: stopped and saved after step {step} of {self.num_steps}")

    def record(self, step: int, values: Mapping[str, float | Tensor | None], tokens: int | None = None) -> None:
        """Append one line to metrics.jsonl. None means not measured; NaN or Inf raise NumericsError.

        `tokens` is for the speed only. Several records of one step make several lines. A record from
        before `steps` (step 0) that a resumed run repeats is already in the log and is dropped.
        """
        if step < self.start_step:
            return
        row = metric_row(step, values, self.name)
        self.log(METRICS).append(row)
        self._latest.update((name, row[name]) for name in values)
        if tokens is not None:
            self._tokens = (self._tokens or 0) + tokens

    def sample(self, step: int, row: Mapping[str, Any]) -> None:
        """Append one line to samples.jsonl: `row` with the step in front."""
        if step >= self.start_step:
            self.log(SAMPLES).append({"step": step, **row})

    def log(self, name: str) -> JsonlLog | UnwrittenLog:
        """A JSONL file of the stage's own that is cut back with the others when the run is resumed."""
        if self._training is None:
            self.attach()  # the checkpoint knows where the log stood
        if name not in self._logs:
            path = self.directory / name
            self._logs[name] = JsonlLog(path, self._marks.get(name)) if is_first() else UnwrittenLog(path)
        return self._logs[name]

    def say(self, line: str) -> None:
        """Show a line under the stage's name."""
        say(self._console, f"{self.name}: {line}")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within, in the body of a step, is no part of it: its time is not the step's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds_aside += time.perf_counter() - started

    def save(self, step: int) -> None:
        """Take a checkpoint at the end of the body of `step`, due or not: for a stage that is about to stop there."""
        marks = {name: log.mark() for name, log in self._logs.items()}
        state = {"stage": dict(self._state), "logs": marks}
        save_checkpoint(self._checkpoints, step=step, state=state, **(self._training or {}))

    def finish(self, outputs: Mapping[str, str | Path]) -> dict[str, Path]:
        """Mark the stage complete, with the outputs' hashes, and return their paths.

        `outputs` are files or directories below `directory`; paths may be relative to it.
        """
        if self._done_step != self.num_steps:
            raise RuntimeError(f"{self.name} is at step {self._done_step} of {self.num_steps}")
        for log in self._logs.values():
            log.mark()
            log.close()
        from_first(lambda: self._complete(outputs))
        self.is_complete = True
        return self.outputs

    def _complete(self, outputs: Mapping[str, str | Path]) -> None:
        write_manifest(self.directory, self._identity, "complete", hash_outputs(self.directory, outputs))
        self._tidy()
        if self._lock is not None:
            self._lock.release()

    def _drop_logs(self, known: Collection[str]) -> None:
        """Logs that were begun after the checkpoint: were the steps that are done again to write none, what an
        unfinished run had said would stand there as if it were true."""
        with storage_errors(self.directory):
            for path in self.directory.glob("*.jsonl"):
                if path.name not in known:
                    path.unlink()

    def _settle_steps(self, identity: Identity, num_steps: int | Callable[[], int]) -> int:
        if not callable(num_steps):
            return num_steps
        recorded = from_first(partial(_recorded_steps, self.directory, identity))
        return num_steps() if recorded is None else recorded

    def _is_done(self) -> bool:
        manifest = read_manifest(self.directory)
        if manifest is None or manifest.get("status") != "complete" or self._identity.differences(manifest):
            return False
        return not changed_outputs(self.directory, manifest)

    def _tidy(self) -> None:
        """Also finishes the tidying of a run that was killed in the middle of it."""
        with storage_errors(self.directory):
            remove_temporaries(self.directory)
            if not self._keep_checkpoints and self._checkpoints.exists():
                discard(self._checkpoints)

    def _open(self) -> None:
        """Take the directory for this run, setting aside what another run left there."""
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(self.directory)
        with storage_errors(self.directory):
            remove_temporaries(self.directory)
        manifest = read_manifest(self.directory)
        if manifest is None:
            self._begin()
            return
        reasons = self._identity.differences(manifest)
        if not reasons and manifest.get("status") == "complete":
            reasons = changed_outputs(self.directory, manifest)
        if reasons:
            self._restart(manifest, reasons)
        else:
            self._warn_of_other_environment(manifest)

    def _begin(self) -> None:
        foreign = [path.name for path in self.directory.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise StorageError(
                f"{self.directory} holds {foreign[0]} but no manifest of a stage: empty it or name another directory"
            )
        write_manifest(self.directory, self._identity, "running", {})

    def _restart(self, manifest: Mapping[str, Any], reasons: Sequence[str]) -> None:
        stale = set_aside(self.directory, manifest)
        shown = ", ".join(reasons[:3]) + (f" and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        self.say(f"changed: {shown}; starts at step 1, the earlier results are now in {stale.name}")
        with storage_errors(self.directory):
            self.directory.mkdir()
        if self._lock is not None:
            self._lock.release()
        self._lock = DirectoryLock(self.directory)
        self._begin()

    def _warn_of_other_environment(self, manifest: Mapping[str, Any]) -> None:
        before, now = manifest.get("environment"), environment()
        if list_checkpoints(self._checkpoints) and before != now:
            self.say(f"warning: resumed under {json.dumps(now)} after {json.dumps(before)}; last bits may differ")

    def _close_step(self, step: int, seconds: float, progress: StepProgress) -> None:
        speed = None if self._tokens is None else self._tokens / max(seconds, 1e-9)
        row = {"step": step, "time/step_seconds": seconds, "time/tokens_per_second": speed}
        self.log(TIMINGS).append(row)
        progress.update(step, self._latest, seconds=seconds, tokens=self._tokens)
        self._tokens, self._done_step, self._seconds_aside = None, step, 0.0

    def _recorded_outputs(self) -> dict[str, Any]:
        manifest = read_manifest(self.directory) if self.is_complete else None
        if manifest is None:
            raise RuntimeError(f"{self.name} is not complete")
        return manifest["outputs"]


def _recorded_steps(directory: Path, identity: Identity) -> int | None:
    """Those of the complete stage in `directory`, if it is `identity` but for them and what it wrote is there."""
    manifest = read_manifest(directory)
    if manifest is None or manifest.get("status") != "complete" or not isinstance(manifest.get("num_steps"), int):
        return None
    if not all((directory / output["path"]).exists() for output in manifest["outputs"].values()):
        return None
    return None if identity.with_steps(manifest["num_steps"]).differences(manifest) else manifest["num_steps"]
