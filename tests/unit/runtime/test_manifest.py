import hashlib
import json
from typing import Any

import pytest

from prism.errors import CheckpointError, DataError
from prism.runtime.manifest import (
    Identity,
    Output,
    changed_outputs,
    hash_outputs,
    read_manifest,
    set_aside,
    write_manifest,
)

CONFIG = {"optimizer": {"learning_rate": 1e-5, "betas": (0.9, 0.95)}, "batch": 4}


def _identity(**changes) -> Identity:
    arguments: dict[str, Any] = {"name": "sft", "kind": "sft", "config": CONFIG, "seed": 0, "num_steps": 5}
    return Identity.of(**(arguments | {"inputs": {"data": "a" * 64}, **changes}))


def test_the_file_holds_what_readers_rely_on(tmp_path):
    output: Output = {"path": "model", "sha256": "b" * 64}
    write_manifest(tmp_path, _identity(), "complete", {"model": output})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["name"] == manifest["kind"] == "sft"
    assert manifest["status"] == "complete"
    assert manifest["config"] == {"optimizer": {"learning_rate": 1e-5, "betas": [0.9, 0.95]}, "batch": 4}
    assert manifest["inputs"] == {"data": "a" * 64}
    assert manifest["outputs"] == {"model": output}
    canonical = '{"batch":4,"optimizer":{"betas":[0.9,0.95],"learning_rate":1e-05}}'
    assert manifest["config_hash"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert len(manifest["code_version"]) == 64
    assert _identity().differences(manifest) == []


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"config": {"optimizer": {"learning_rate": 2e-5, "betas": [0.9, 0.95]}, "batch": 4}},
         ["config.optimizer.learning_rate 1e-05 → 2e-05"]),
        ({"config": {"optimizer": CONFIG["optimizer"], "size": 4}}, ["config.size null → 4", "config.batch 4 → null"]),
        ({"inputs": {"data": "c" * 64}}, ["inputs.data"]),
        ({"inputs": {"data": "a" * 64, "model": "c" * 64}}, ["inputs.model"]),
        ({"seed": 1, "num_steps": 6}, ["seed 0 → 1", "num_steps 5 → 6"]),
        ({"kind": "rlvr"}, ['kind "sft" → "rlvr"']),
    ],
)  # fmt: skip
def test_changes_are_said_in_words(tmp_path, changes, reasons):
    write_manifest(tmp_path, _identity(), "running", {})
    assert _identity(**changes).differences(read_manifest(tmp_path) or {}) == reasons


def test_another_code_version_is_another_run(tmp_path):
    write_manifest(tmp_path, _identity(), "running", {})
    manifest = read_manifest(tmp_path) or {}
    assert _identity().differences(manifest | {"code_version": "0" * 64}) == ["the code of this package"]


def test_input_paths_are_hashed_and_must_exist(tmp_path):
    (tmp_path / "data.jsonl").write_text("x")
    identity = _identity(inputs={"data": tmp_path / "data.jsonl"})
    assert identity.inputs == {"data": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(DataError, match=r"sft: input data is missing: .*nowhere"):
        _identity(inputs={"data": tmp_path / "nowhere"})
    with pytest.raises(ValueError, match="neither a Path nor a sha256"):
        _identity(inputs={"data": "data.jsonl"})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"outputs": 3}', "\xff"])
def test_a_damaged_manifest_is_an_error(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nowhere") is None


def test_outputs_are_followed_by_content(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    (tmp_path / "pairs.jsonl").write_bytes(b"2")
    outputs = hash_outputs(tmp_path, {"model": "model", "pairs": tmp_path / "pairs.jsonl"})
    assert outputs["pairs"] == {"path": "pairs.jsonl", "sha256": hashlib.sha256(b"2").hexdigest()}
    manifest = {"outputs": outputs}
    assert changed_outputs(tmp_path, manifest) == []
    (tmp_path / "model" / "weights").write_bytes(b"3")
    (tmp_path / "pairs.jsonl").unlink()
    assert changed_outputs(tmp_path, manifest) == ["output model was altered", "output pairs is gone"]


def test_outputs_must_exist_and_lie_inside(tmp_path):
    stage = tmp_path / "sft"
    stage.mkdir()
    with pytest.raises(FileNotFoundError, match="output model of sft was not written"):
        hash_outputs(stage, {"model": "model"})
    (tmp_path / "elsewhere").touch()
    with pytest.raises(ValueError):
        hash_outputs(stage, {"model": tmp_path / "elsewhere"})


def test_at_most_one_stale_directory_is_kept(tmp_path):
    (tmp_path / "sft-grpo").mkdir()
    for seed in (1, 2):
        stage = tmp_path / "sft"
        stage.mkdir()
        (stage / "metrics.jsonl").write_text(str(seed))
        stale = set_aside(stage, {"seed": seed})
        assert stale.name.startswith("sft.stale-") and len(stale.name) == len("sft.stale-") + 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sft-grpo", stale.name]
    assert (stale / "metrics.jsonl").read_text() == "2"
