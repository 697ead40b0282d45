import errno
import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from prism.errors import StorageError
from prism.runtime.atomic import (
    atomic_directory,
    discard,
    remove_temporaries,
    storage_errors,
    write_bytes,
    write_json,
    write_text,
)


def _full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_json_keeps_every_bit_of_a_float_and_every_letter(tmp_path):
    value = {"x": [0.1 + 0.2, 1e-308, 5e-324, 1 / 3, 2**63 - 1], "é": "→"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == value
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == value


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing, number):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(StorageError, match=r"cannot write .*a\.txt: .*; free some space"):
        write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_an_unwritable_place_is_named_with_other_advice(tmp_path):
    with pytest.raises(StorageError, match=r"missing/a\.txt.*make it writable or name another path"):
        write_bytes(tmp_path / "missing" / "a.txt", b"")


def test_safetensors_errors_carry_the_systems_number():
    with (
        pytest.raises(StorageError, match=r"cannot write x: No space left on device; free some space"),
        storage_errors(Path("x")),
    ):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), storage_errors(Path("x")):
        raise SafetensorError("InvalidHeader")


def test_directory_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "model"
    for content in ("one", "two"):
        with atomic_directory(path) as temporary:
            (temporary / content).write_text(content)
            (temporary / "sub").mkdir()
            assert not (path / content).exists()
        assert sorted(file.name for file in path.iterdir()) == sorted([content, "sub"])
    assert [file.name for file in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "x"), KeyError("bug"), KeyboardInterrupt()])
def test_a_failing_block_leaves_the_old_directory(tmp_path, error):
    path = tmp_path / "model"
    with atomic_directory(path) as temporary:
        (temporary / "old").touch()
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_directory(path) as temporary:
        (temporary / "new").touch()
        raise error
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert [file.name for file in path.iterdir()] == ["old"]


def test_an_error_of_the_blocks_own_is_not_blamed_on_the_directory(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "model"):
        (tmp_path / "nowhere").read_text()


def test_a_full_disk_at_the_end_of_the_block(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="model"), atomic_directory(tmp_path / "model") as temporary:
        (temporary / "new").touch()
        monkeypatch.setattr(os, "fsync", _full)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path, monkeypatch):
    kept = {"a.txt", "model", ".lock", ".partial"}
    for name in kept - {"model"}:
        (tmp_path / name).touch()
    (tmp_path / "model").mkdir()
    # What a kill leaves: cleaning up never happens.
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr(os, "replace", _full)
        with pytest.raises(StorageError):
            write_text(tmp_path / "b.txt", "x")
        with pytest.raises(StorageError), atomic_directory(tmp_path / "weights") as temporary:
            (temporary / "x").touch()
    assert len(list(tmp_path.iterdir())) == len(kept) + 2
    remove_temporaries(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == kept


def test_discard(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    discard(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
