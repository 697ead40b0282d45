import errno
import json
import math
import os

import pytest

from prism.errors import CheckpointError, StorageError
from prism.runtime.jsonl import JsonlLog


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    log = JsonlLog(tmp_path / "m.jsonl")
    log.append({"step": 1, "x": 0.1})
    assert _lines(log.path) == [{"step": 1, "x": 0.1}]


def test_without_a_mark_the_log_starts_empty(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("old\n")
    JsonlLog(path)
    assert path.read_text() == ""


@pytest.mark.parametrize("tail", ['{"step": 3}\n', '{"step": 3}\n{"st', "", '{"st'])
def test_reopened_at_a_mark_it_goes_on_as_if_never_closed(tmp_path, tail):
    path, reference = tmp_path / "m.jsonl", tmp_path / "reference.jsonl"
    straight = JsonlLog(reference)
    for step in (1, 2, 3, 4):
        straight.append({"step": step, "name": "é"})
    log = JsonlLog(path)
    log.append({"step": 1, "name": "é"})
    log.append({"step": 2, "name": "é"})
    mark = log.mark()
    log.close()
    with path.open("a") as file:
        file.write(tail)
    log = JsonlLog(path, mark)
    log.append({"step": 3, "name": "é"})
    log.append({"step": 4, "name": "é"})
    assert path.read_bytes() == reference.read_bytes()
    assert log.mark() == straight.mark()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_log_that_lost_what_a_checkpoint_counts_on_is_an_error(tmp_path, damage):
    path = tmp_path / "m.jsonl"
    log = JsonlLog(path)
    log.append({"step": 1})
    mark = log.mark()
    log.close()
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"m\.jsonl no longer holds"):
        JsonlLog(path, mark)
    assert path.read_bytes() == damaged


def test_a_full_disk_takes_the_torn_line_back(tmp_path, monkeypatch):
    log = JsonlLog(tmp_path / "m.jsonl")
    log.append({"step": 1})
    write = os.write

    def torn(descriptor, data):
        if len(data) > 5:
            return write(descriptor, data[:5])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(StorageError, match=r"m\.jsonl"):
        log.append({"s": 2})
    monkeypatch.undo()
    log.append({"step": 3})
    assert _lines(log.path) == [{"step": 1}, {"step": 3}]


def test_short_writes_are_completed(tmp_path, monkeypatch):
    log = JsonlLog(tmp_path / "m.jsonl")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    log.append({"step": 1, "text": "long enough"})
    assert _lines(log.path) == [{"step": 1, "text": "long enough"}]


def test_nan_never_reaches_the_file(tmp_path):
    log = JsonlLog(tmp_path / "m.jsonl")
    with pytest.raises(ValueError):
        log.append({"x": math.nan})
    assert log.path.read_text() == ""
