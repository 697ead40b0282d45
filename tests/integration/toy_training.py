"""A small training stage as a program, and ways to kill it, for test_crash.py.

    python toy_training.py train DIRECTORY [SECONDS_PER_STEP]
    python toy_training.py kill-at-random DIRECTORY NUM_KILLS
    python toy_training.py kill-at-each-operation DIRECTORY

The last two fork the training from a process that has done it once: torch loads much of itself at the
first step, and a start must be cheap to be repeated hundreds of times.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prism.runtime import manifest
from prism.runtime.atomic import atomic_directory
from prism.runtime.generators import generator
from prism.runtime.optimizer import clip_gradients, make_optimizer, make_schedule
from prism.runtime.stage import StageRun

# The package may be edited while these tests run, which would rightly start every run afresh.
manifest.code_version = lambda: "0" * 64

RESULTS = ("metrics.jsonl", "samples.jsonl", "model/weights.bin")
KILLED = -signal.SIGKILL


def build() -> nn.ModuleDict:
    embed, head = nn.Embedding(11, 6), nn.Linear(6, 11)
    head.weight = embed.weight
    model = nn.ModuleDict({"embed": embed, "hidden": nn.Linear(6, 6), "head": head})
    rng = generator(0, "init")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng))
    return model


def loss_of(model: nn.ModuleDict, step: int) -> torch.Tensor:
    """Uses counter-based data and all three global generators."""
    ids = torch.randint(11, (8,), generator=generator(0, "toy", step))
    hidden = torch.dropout(model["hidden"](model["embed"](ids)), 0.1, train=True)
    noise = random.random() + float(np.random.rand())
    return nn.functional.cross_entropy(model["head"](hidden), (ids + 1) % 11) * (1 + 0.1 * noise)


def train(directory: Path, num_steps: int, every: int, seconds: float = 0.0) -> None:
    run = StageRun(
        directory, name="toy", kind="toy", config={}, inputs={}, num_steps=num_steps, checkpoint_every=every, seed=0
    )
    if run.is_complete:
        return
    model = build()
    optimizer = make_optimizer(model, learning_rate=0.05, weight_decay=0.1)
    schedule = make_schedule(optimizer, kind="cosine", num_steps=num_steps, warmup_fraction=0.1)
    state = {"cursor": 0, "left": []}
    run.attach(modules={"toy": model}, optimizers={"toy": optimizer}, schedulers={"toy": schedule}, state=state)
    for step in run.steps():
        loss = loss_of(model, step)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(model, 1.0)
        optimizer.step()
        schedule.step()
        state["cursor"] += 8
        state["left"] = [*state["left"][-3:], step]
        time.sleep(seconds)
        run.record(step, {"loss/nll": loss.detach(), "policy/grad_norm": norm}, tokens=8)
        run.sample(step, dict(state))
    with atomic_directory(directory / "model") as path:
        weights = [p.detach().numpy().tobytes() for p in [*model.parameters()]]
        (path / "weights.bin").write_bytes(b"".join(weights))
    run.finish({"model": "model"})


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 2)
        work()
        os._exit(0)
    return child


def outcome(child: int) -> int:
    """Exit code, or minus the signal that ended the child."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def results(directory: Path) -> list[bytes]:
    return [(directory / name).read_bytes() for name in RESULTS]


def kill_at_random(directory: Path, num_kills: int) -> dict[str, object]:
    """Each life lasts up to a sixth of the whole run; most of a step is writing its checkpoint."""
    steps = 40
    train(directory / "warm-up", 1, every=1)
    started = time.perf_counter()
    train(directory / "reference", steps, every=1)
    whole = time.perf_counter() - started
    rng = random.Random()
    kills, lengths = 0, []
    while kills < num_kills:
        child = fork(lambda: train(directory / "run", steps, every=1))
        time.sleep(rng.uniform(0.03, 1 / 6) * whole)
        os.kill(child, signal.SIGKILL)
        if outcome(child) != KILLED:
            break
        kills += 1
        log = directory / "run" / "metrics.jsonl"
        lengths.append(log.read_bytes().count(b"\n") if log.exists() else 0)
    last_code = outcome(fork(lambda: train(directory / "run", steps, every=1)))
    is_equal = results(directory / "reference") == results(directory / "run")
    return {"last_code": last_code, "kills": kills, "lengths": lengths, "is_equal": is_equal}


OPERATIONS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir", "ftruncate")


def kill_before(countdown: int) -> None:
    """Arrange that this process is killed just before its so-manieth operation on the file system.

    A write is killed half-way, so that the line it writes is torn.
    """
    left = [countdown]

    def guard(operation: Callable, name: str) -> Callable:
        def guarded(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    operation(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return guarded

    for name in OPERATIONS:
        setattr(os, name, guard(getattr(os, name), name))


def kill_at_each_operation(directory: Path) -> dict[str, object]:
    steps, every = 3, 2
    train(directory / "reference", steps, every)
    expected = results(directory / "reference")
    differing, kills = [], 0
    for countdown in range(1, 1000):
        run = directory / "run"

        def doomed(run: Path = run, countdown: int = countdown) -> None:
            kill_before(countdown)
            train(run, steps, every)

        if outcome(fork(doomed)) != KILLED:
            break
        kills += 1
        if outcome(fork(lambda run=run: train(run, steps, every))) != 0 or results(run) != expected:
            differing.append(countdown)
        leftovers = [path.name for path in run.iterdir() if ".partial-" in path.name or path.name == "checkpoints"]
        differing += [f"{countdown}: {name}" for name in leftovers]
        shutil.rmtree(run)
    return {"kills": kills, "differing": differing}


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, target = sys.argv[1], Path(sys.argv[2])
    if mode == "train":
        train(target, num_steps=20, every=1, seconds=float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
    elif mode == "kill-at-random":
        print(json.dumps(kill_at_random(target, int(sys.argv[3]))))
    else:
        print(json.dumps(kill_at_each_operation(target)))
