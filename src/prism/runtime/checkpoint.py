"""Training state on disk: safetensors and JSON, complete or absent, verified before use.

A checkpoint is a directory `step-000040` holding

    module-<name>.safetensors      parameters and buffers, tied ones once
    optimizer-<name>.safetensors   the optimizer's tensors
    state.json                     everything else: counters, schedules, generator states, the stage's own state
    manifest.json                  size and sha256 of each of these files

It holds whole tensors, however many processes trained them, and goes on with any number. It appears under its name only
when all of it is on the disk. A damaged newest checkpoint is an error, never a reason to go back to an older one
unasked.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from prism.errors import CheckpointError
from prism.models.sharding import sharded_like, whole
from prism.runtime.atomic import atomic_directory, discard, remove_temporaries, storage_errors
from prism.runtime.distributed import wait_for_all
from prism.runtime.generators import rng_state
from prism.runtime.hashing import file_sha256
from prism.runtime.launch import is_first
from prism.runtime.state_codec import join_tensors, module_tensors, restore_module, split_tensors, storable

FORMAT = 1
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
    if not is_first():
        _give_shards(modules, optimizers)
        wait_for_all()
        return path
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        remove_temporaries(directory)
    with atomic_directory(path) as temporary:
        document: dict[str, Any] = {"format": FORMAT, "step": step, "state": state, "rng": rng_state()}
        document["modules"] = {name: _save_module(temporary, name, module) for name, module in modules.items()}
        document["optimizers"] = {name: _save_optimizer(temporary, name, opt) for name, opt in optimizers.items()}
        document["schedulers"] = {name: _scheduler_tree(name, item) for name, item in schedulers.items()}
        (temporary / "state.json").write_text(json.dumps(document, allow_nan=False))
        written = sorted(temporary.iterdir())
        files = {file.name: {"size": file.stat().st_size, "sha256": file_sha256(file)} for file in written}
        manifest = {"format": FORMAT, "step": step, "files": files}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    with storage_errors(directory):
        for old in list_checkpoints(directory)[:-keep]:
            discard(old)
    # None may end before it is written: torchrun would end the one that writes.
    wait_for_all()
    return path


def _give_shards(modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
    """This process's part in `_save_module` and `_save_optimizer` of the first one, in the same order."""
    for module in modules.values():
        _take_part(module_tensors(module)[0])
    for optimizer in optimizers.values():
        _take_part(split_tensors(optimizer.state_dict())[1])


def _take_part(tensors: Mapping[str, Tensor]) -> None:
    for tensor in tensors.values():
        whole(tensor)


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
    checkpoints = list_checkpoints(directory)
    if not checkpoints:
        return None
    path = checkpoints[-1]
    _verify(path)
    document = _read_json(path / "state.json")
    for kind, given in (("modules", modules), ("optimizers", optimizers), ("schedulers", schedulers)):
        if document[kind].keys() != given.keys():
            raise CheckpointError(f"{path} holds {kind} {sorted(document[kind])}, this run has {sorted(given)}")
    _restore_modules(path, document, modules)
    for name, optimizer in optimizers.items():
        _restore_optimizer(path / f"optimizer-{name}.safetensors", optimizer, document["optimizers"][name])
    for name, scheduler in schedulers.items():
        scheduler.load_state_dict(join_tensors(document["schedulers"][name], {}))
    return LoadedCheckpoint(document["step"], document["state"], document["rng"])


def load_modules(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Restore `modules`, all or some of those in the checkpoint at `path`, and nothing else of it.

    CheckpointError as `load_latest` raises it.
    """
    _verify(path)
    document = _read_json(path / "state.json")
    missing = sorted(modules.keys() - document["modules"].keys())
    if missing:
        raise CheckpointError(f"{path} holds modules {sorted(document['modules'])}, not {missing[0]}")
    _restore_modules(path, document, modules)


def list_checkpoints(directory: Path) -> list[Path]:
    """Oldest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """The step after which the checkpoint at `path` was written."""
    return int(path.name.removeprefix("step-"))


def _restore_modules(path: Path, document: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        file = path / f"module-{name}.safetensors"
        restore_module(module, _load_tensors(file), document["modules"][name]["ties"], str(file))


def _check_json(state: Mapping[str, Any]) -> None:
    for key, value in state.items():
        if json.loads(json.dumps(value, allow_nan=False)) != value:
            raise TypeError(f"state[{key!r}] changes on its way through JSON: use dicts with string keys, and lists")


def _save_module(directory: Path, name: str, module: nn.Module) -> dict[str, Any]:
    tensors, ties = module_tensors(module)
    save_file(storable(tensors), directory / f"module-{name}.safetensors")
    return {"ties": ties}


def _save_optimizer(directory: Path, name: str, optimizer: Optimizer) -> Any:
    tree, tensors = split_tensors(optimizer.state_dict(), name)
    save_file(storable(tensors), directory / f"optimizer-{name}.safetensors")
    return tree


def _scheduler_tree(name: str, scheduler: LRScheduler) -> Any:
    tree, tensors = split_tensors(scheduler.state_dict(), name)
    if tensors:
        raise TypeError(f"scheduler {name} holds tensors")
    return tree


def _restore_optimizer(file: Path, optimizer: Optimizer, tree: Any) -> None:
    # Cloned: memory mapped from the file would be neither aligned as torch aligns it nor ours to write.
    tensors = {name: tensor.clone() for name, tensor in _load_tensors(file).items()}
    state = join_tensors(tree, tensors)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, own in state["state"].items():
        for name, value in own.items():
            if isinstance(value, Tensor) and index < len(parameters) and value.shape == parameters[index].shape:
                own[name] = sharded_like(value, parameters[index])
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise CheckpointError(f"{file} belongs to another model: {error}") from error


def _load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def _verify(path: Path) -> None:
    manifest = _read_json(path / "manifest.json")
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or "state.json" not in files:
        raise _damaged(path / "manifest.json", "it is not a manifest of this version")
    if manifest.get("step") != checkpoint_step(path):
        raise _damaged(path / "manifest.json", f"it speaks of step {manifest.get('step')}")
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise _damaged(file, "it is missing")
        if file.stat().st_size != expected.get("size"):
            raise _damaged(file, f"it has {file.stat().st_size} bytes instead of {expected.get('size')}")
        if file_sha256(file) != expected.get("sha256"):
            raise _damaged(file, "its content has changed")


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
