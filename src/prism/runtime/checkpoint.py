"""Training state on disk: safetensors and JSON, complete or absent, verified before use.

A checkpoint is a directory `step-000040` holding

    module-<name>-<process>.safetensors      what a process wrote of parameters and buffers, tied ones once
    optimizer-<name>-<process>.safetensors   what it wrote of the optimizer's tensors
    state.json                               everything else: counters, schedules, generator states, the stage's own
                                             state, and which piece of which tensor is in which file
    manifest.json                            size and sha256 of each of these files

Every process writes its own shards and reads those it needs, so that no process ever holds a whole model; training goes
on with any number of processes. A checkpoint appears under its name only when all of it is on the disk. Each file is
verified by one of the processes, and what one finds ends them all. A damaged newest checkpoint is an error, never a
reason to go back to an older one unasked.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from prism.errors import CheckpointError
from prism.runtime.atomic import atomic_directory, discard, remove_temporaries, storage_errors
from prism.runtime.distributed import from_first, gather, num_processes, wait_for_all
from prism.runtime.generators import rng_state
from prism.runtime.hashing import file_sha256
from prism.runtime.launch import is_first, process_index
from prism.runtime.state_codec import join_tensors, module_targets, module_tensors, split_tensors
from prism.runtime.tensor_files import Mark, Written, described, part_of, read_tensors, write_tensors

FORMAT = 2
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """What `load_latest` cannot put in place by itself. `rng` is for `generators.restore_rng_state`."""

    step: int
    state: dict[str, Any]
    rng: dict[str, Any]


def save_checkpoint(
    directory: Path,
    *,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    schedulers: Mapping[str, LRScheduler],
    state: Mapping[str, Any],
    keep: int = 1,
) -> Path:
    """Write `directory/step-<step>` as a whole and delete all but the newest `keep` checkpoints.

    `state` must come back from JSON as it was, otherwise TypeError: a resumed run must not see lists
    where the first one had tuples. StorageError when the disk is full; older checkpoints are untouched.
    """
    _check_json(state)
    path = directory / f"step-{step:06d}"
    if is_first():
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            remove_temporaries(directory)
    document: dict[str, Any] = {"format": FORMAT, "step": step, "state": state, "rng": rng_state()}
    tensors = _take_apart(document, modules, optimizers, schedulers)
    with _common_directory(path) as temporary:
        written = write_tensors(tensors, temporary, shown_as=path)
        if written is not None:
            _write_documents(temporary, document, written)
    if is_first():
        with storage_errors(directory):
            for old in list_checkpoints(directory)[:-keep]:
                discard(old)
    # None may go on before it is there: whoever stops after this step would end the one that publishes it.
    wait_for_all()
    return path


def _take_apart(
    document: dict[str, Any],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    schedulers: Mapping[str, LRScheduler],
) -> dict[str, Tensor]:
    """All tensors, named by their part, and into `document` whatever else there is."""
    tensors: dict[str, Tensor] = {}
    document |= {"modules": {}, "optimizers": {}, "schedulers": {}}
    for name, module in modules.items():
        held, ties = module_tensors(module)
        tensors |= _named(_module_part(name), held)
        document["modules"][name] = {"ties": ties}
    for name, optimizer in optimizers.items():
        document["optimizers"][name], held = split_tensors(optimizer.state_dict(), _optimizer_part(name))
        tensors |= held
    for name, scheduler in schedulers.items():
        document["schedulers"][name], held = split_tensors(scheduler.state_dict(), name)
        if held:
            raise TypeError(f"scheduler {name} holds tensors")
    return tensors


def _module_part(name: str) -> str:
    return f"module-{name}"


def _optimizer_part(name: str) -> str:
    return f"optimizer-{name}"


def _named(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}/{name}": tensor for name, tensor in tensors.items()}


@contextmanager
def _common_directory(path: Path) -> Iterator[Path]:
    """The `atomic_directory` of the first process, for all of them to write into."""
    if not is_first():
        yield from_first(lambda: path)
        return
    with atomic_directory(path) as temporary:
        yield from_first(lambda: temporary)


def _write_documents(directory: Path, document: dict[str, Any], written: Written) -> None:
    state = directory / "state.json"
    state.write_text(json.dumps(document | {"tensors": written.index}, allow_nan=False))
    files = written.files | {state.name: {"size": state.stat().st_size, "sha256": file_sha256(state)}}
    manifest = {"format": FORMAT, "step": document["step"], "files": files}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def load_latest(
    directory: Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    schedulers: Mapping[str, LRScheduler],
) -> LoadedCheckpoint | None:
    """Restore the newest checkpoint in place, or return None where there is none.

    CheckpointError naming the file when one is missing, cut short or altered, or when the checkpoint
    holds other modules, optimizers or schedulers than given. Generator states are left to the caller.
    """
    checkpoints = from_first(lambda: list_checkpoints(directory))
    if not checkpoints:
        return None
    path = checkpoints[-1]
    parts = [*map(_module_part, modules), *map(_optimizer_part, optimizers)]
    document = _read_document(path)
    for kind, given in (("modules", modules), ("optimizers", optimizers), ("schedulers", schedulers)):
        if document[kind].keys() != given.keys():
            raise CheckpointError(f"{path} holds {kind} {sorted(document[kind])}, this run has {sorted(given)}")
    _verify(path, document, parts)
    targets = _module_targets(path, document, modules)
    states = {name: _optimizer_state(document, name, optimizer) for name, optimizer in optimizers.items()}
    for name, state in states.items():
        targets |= split_tensors(state, _optimizer_part(name))[1]
    read_tensors(targets, path, document["tensors"])
    for name, optimizer in optimizers.items():
        _restore_optimizer(path / _optimizer_part(name), optimizer, states[name])
    for name, scheduler in schedulers.items():
        scheduler.load_state_dict(join_tensors(document["schedulers"][name], {}))
    return LoadedCheckpoint(document["step"], document["state"], document["rng"])


def load_modules(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Restore `modules`, all or some of those in the checkpoint at `path`, and nothing else of it.

    CheckpointError as `load_latest` raises it.
    """
    document = _read_document(path)
    missing = sorted(modules.keys() - document["modules"].keys())
    if missing:
        raise CheckpointError(f"{path} holds modules {sorted(document['modules'])}, not {missing[0]}")
    _verify(path, document, [*map(_module_part, modules)])
    read_tensors(_module_targets(path, document, modules), path, document["tensors"])


def list_checkpoints(directory: Path) -> list[Path]:
    """Oldest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """The step after which the checkpoint at `path` was written."""
    return int(path.name.removeprefix("step-"))


def _module_targets(path: Path, document: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What is to be read into the modules' own memory. CheckpointError where it would not fit."""
    targets: dict[str, Tensor] = {}
    for name, module in modules.items():
        part, ties = _module_part(name), document["modules"][name]["ties"]
        saved = described(document["tensors"], part)
        targets |= _named(part, module_targets(module, saved, ties, str(path / part)))
    return targets


def _optimizer_state(document: Mapping[str, Any], name: str, optimizer: Optimizer) -> Any:
    """The state to be loaded, its tensors yet to be read: those of a parameter's shape sharded as the parameter is."""
    part = _optimizer_part(name)
    saved = _named(part, described(document["tensors"], part))
    state = join_tensors(document["optimizers"][name], saved)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, own in state["state"].items():
        for key, value in own.items():
            if not isinstance(value, Tensor):
                continue
            if index < len(parameters) and value.shape == parameters[index].shape:
                own[key] = torch.empty_like(parameters[index].detach(), dtype=value.dtype)
            else:
                own[key] = torch.empty_like(value, device="cpu")
    return state


def _check_json(state: Mapping[str, Any]) -> None:
    for key, value in state.items():
        if json.loads(json.dumps(value, allow_nan=False)) != value:
            raise TypeError(f"state[{key!r}] changes on its way through JSON: use dicts with string keys, and lists")


def _restore_optimizer(source: Path, optimizer: Optimizer, state: Any) -> None:
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise CheckpointError(f"{source} belongs to another model: {error}") from error


def _read_manifest(path: Path) -> Mapping[str, Mark]:
    """The mark of every file of the checkpoint at `path`."""
    manifest = _read_json(path / "manifest.json")
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or "state.json" not in files:
        raise _damaged(path / "manifest.json", "it is not a manifest of this version")
    if manifest.get("step") != checkpoint_step(path):
        raise _damaged(path / "manifest.json", f"it speaks of step {manifest.get('step')}")
    return files


def _read_document(path: Path) -> dict[str, Any]:
    """`state.json`, verified by every process, since all read it."""
    file = path / "state.json"
    finding = _finding(file, _read_manifest(path)[file.name])
    if finding:
        raise _damaged(file, finding)
    return _read_json(file)


def _verify(path: Path, document: Mapping[str, Any], parts: Collection[str]) -> None:
    """CheckpointError, in every process, where one finds damage in a file with tensors of `parts`. Each file is read by
    one of them, by the one that wrote it if they are as many as then."""
    marks = _read_manifest(path)
    entries = [entry for name, entry in document["tensors"].items() if part_of(name) in parts]
    files = sorted({chunk["file"] for entry in entries for chunk in entry["chunks"]})
    if unlisted := [file for file in files if file not in marks]:
        raise _damaged(path / "manifest.json", f"it does not list {unlisted[0]}")
    own = files[process_index() :: num_processes()]
    for name, finding in gather([(name, found) for name in own if (found := _finding(path / name, marks[name]))]):
        raise _damaged(path / name, finding)


def _finding(file: Path, mark: Mark) -> str | None:
    """What is wrong with `file`; None where nothing is."""
    if not file.is_file():
        return "it is missing"
    if file.stat().st_size != mark.get("size"):
        return f"it has {file.stat().st_size} bytes instead of {mark.get('size')}"
    return None if file_sha256(file) == mark.get("sha256") else "its content has changed"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise _damaged(file, "it is missing") from None
    except ValueError as error:
        raise _damaged(file, f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise _damaged(file, "it is not a JSON object")
    return document


def _damaged(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint file {file} is damaged: {what}; restore it, "
        f"or delete {file.parent} to go on from an older checkpoint or from the start"
    )
