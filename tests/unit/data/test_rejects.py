"""The rejects file: one line per row, counted by reason."""

import json
from pathlib import Path

import pytest

from prism.data.rejects import RejectLog, RowError
from prism.errors import StorageError


def test_each_rejected_row_is_one_line_and_reasons_are_counted(tmp_path: Path) -> None:
    with RejectLog(tmp_path / "logs" / "rejects.jsonl") as log:
        log.add(Path("a.jsonl"), 3, RowError("answer", "is empty"))
        log.add(Path("a.jsonl"), 7, RowError("images", "names a file that does not exist", "x.png"))
        log.add(Path("b.parquet"), 1, RowError("answer", "is empty"))
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [
        {"file": "a.jsonl", "row": 3, "field": "answer", "reason": "is empty"},
        {
            "file": "a.jsonl",
            "row": 7,
            "field": "images",
            "reason": "names a file that does not exist",
            "detail": "x.png",
        },
        {"file": "b.parquet", "row": 1, "field": "answer", "reason": "is empty"},
    ]
    assert log.total == 3
    assert log.counts == {"answer is empty": 2, "images names a file that does not exist": 1}
    assert log.summary().endswith("2 × answer is empty; 1 × images names a file that does not exist")


def test_lines_are_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    log = RejectLog(tmp_path / "rejects.jsonl")
    log.add(Path("a.jsonl"), 1, RowError("row", "is not valid JSON"))
    assert len(log.path.read_text().splitlines()) == 1
    log.close()


def test_a_repeated_run_starts_the_file_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with RejectLog(tmp_path / "rejects.jsonl") as log:
            log.add(Path("a.jsonl"), 1, RowError("row", "is not valid JSON"))
    assert len(log.path.read_text().splitlines()) == 1


def test_half_a_surrogate_pair_can_be_reported(tmp_path: Path) -> None:
    with RejectLog(tmp_path / "rejects.jsonl") as log:
        log.add(Path("a.jsonl"), 1, RowError("images", "names a file that does not exist", "\ud800.png"))
    assert json.loads(log.path.read_text())["detail"] == "\ud800.png"


def test_nothing_rejected_is_said_so(tmp_path: Path) -> None:
    with RejectLog(tmp_path / "rejects.jsonl") as log:
        assert log.summary() == "no row rejected"
    assert log.path.read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="rejects file /dev/full: No space left"), RejectLog("/dev/full") as log:
        log.add(Path("a.jsonl"), 1, RowError("row", "is not valid JSON"))
