"""What a stage directory says about itself: what it was made from, how far it came, what it made."""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from prism.errors import CheckpointError, DataError
from prism.runtime.atomic import storage_errors, sync_tree, write_json
from prism.runtime.hashing import canonical_json, code_version, config_sha256, path_sha256

FILE_NAME = "manifest.json"


class Output(TypedDict):
    """`path` is relative to the stage directory."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Identity:
    """Everything a stage's results depend on. Another identity is another run.

    The code version is part of it: results of two versions are never mixed, not even when the code
    changes between a kill and the resumption.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int
    num_steps: int
    code_version: str

    @classmethod
    def of(
        cls,
        *,
        name: str,
        kind: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str | Path],
        seed: int,
        num_steps: int,
    ) -> "Identity":
        """Inputs are sha256 digests, or paths, which are hashed here; DataError for a path that is not there."""
        plain_config = json.loads(canonical_json(config))
        hashes = {key: _input_hash(name, key, value) for key, value in inputs.items()}
        return cls(name, kind, plain_config, hashes, seed, num_steps, code_version())

    def with_steps(self, num_steps: int) -> "Identity":
        return replace(self, num_steps=num_steps)

    def document(self, status: str, outputs: Mapping[str, Output]) -> dict[str, Any]:
        """The content of manifest.json."""
        return {
            "name": self.name,
            "kind": self.kind,
            "status": status,
            "config": self.config,
            "config_hash": config_sha256(self.config),
            "inputs": self.inputs,
            "seed": self.seed,
            "num_steps": self.num_steps,
            "code_version": self.code_version,
            "environment": environment(),
            "outputs": outputs,
        }

    def differences(self, manifest: Mapping[str, Any]) -> list[str]:
        """What changed since `manifest` was written, in words; empty when it describes this very run."""
        mine, changes = self.document("", {}), []
        for key in ("name", "kind", "config", "inputs", "seed", "num_steps"):
            changes += _changes(key, manifest.get(key), json.loads(canonical_json(mine[key])))
        if manifest.get("code_version") != self.code_version:
            changes.append("the code of this package")
        return changes


def _input_hash(stage: str, name: str, value: str | Path) -> str:
    if isinstance(value, str):
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise ValueError(f"input {name!r} of {stage} is neither a Path nor a sha256 digest: {value!r}")
        return value
    if not value.exists():
        raise DataError(f"{stage}: input {name} is missing: {value} does not exist")
    return path_sha256(value)


def _changes(name: str, old: Any, new: Any) -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(key for key in old if key not in new)]
        return [change for key in keys for change in _changes(f"{name}.{key}", old.get(key), new.get(key))]
    if name.startswith("inputs"):
        return [name]
    return [f"{name} {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def environment() -> dict[str, Any]:
    """Not part of the identity, but another version or thread count may change the last bits."""
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """None where there is no manifest; CheckpointError where there is one that cannot be read."""
    path = directory / FILE_NAME
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        document = error
    if not isinstance(document, dict) or not isinstance(document.get("outputs"), dict):
        raise CheckpointError(f"{path} is damaged: restore it, or delete {directory} to start the stage again")
    return document


def write_manifest(directory: Path, identity: Identity, status: str, outputs: Mapping[str, Output]) -> None:
    write_json(directory / FILE_NAME, identity.document(status, outputs))


def hash_outputs(directory: Path, outputs: Mapping[str, str | Path]) -> dict[str, Output]:
    """Flush the outputs to the disk and hash them. All must lie in `directory`."""
    result: dict[str, Output] = {}
    for name, given in outputs.items():
        path = directory / given
        if not path.exists():
            raise FileNotFoundError(f"output {name} of {directory.name} was not written: {path}")
        with storage_errors(path):
            sync_tree(path)
        result[name] = {"path": path.relative_to(directory).as_posix(), "sha256": path_sha256(path)}
    return result


def changed_outputs(directory: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Outputs that are no longer what the stage wrote."""
    changes = []
    for name, output in manifest["outputs"].items():
        path = directory / output["path"]
        if not path.exists():
            changes.append(f"output {name} is gone")
        elif path_sha256(path) != output["sha256"]:
            changes.append(f"output {name} was altered")
    return changes


def set_aside(directory: Path, manifest: Mapping[str, Any]) -> Path:
    """Rename the directory to `<name>.stale-<hash8>`, replacing any that was set aside before."""
    stale = directory.with_name(f"{directory.name}.stale-{config_sha256(manifest)[:8]}")
    with storage_errors(directory):
        for old in directory.parent.glob(f"{directory.name}.stale-*"):
            shutil.rmtree(old)
        os.replace(directory, stale)
    return stale
