"""Rows of JSON, JSON-lines and parquet files, whole and damaged."""

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism.data import row_files
from prism.data.rejects import RowError
from prism.data.row_files import PARQUET_BATCH_ROWS, open_rows
from prism.errors import DataError

ROWS = [{"a": 1, "b": "é\u2028ü"}, {"a": 2, "b": None}]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path: Path) -> list[object]:
    return [row.value for row in open_rows(path).rows]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps(ROWS, indent=2)),
        ("rows.json", "\ufeff \n" + json.dumps(ROWS, ensure_ascii=False)),
        ("rows.json", "\n".join(json.dumps(row) for row in ROWS)),
        ("rows.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        ("ROWS.JSONL", "\ufeff" + "\r\n\r\n".join(json.dumps(row) for row in ROWS) + "\r\n"),
    ],
)
def test_json_rows_in_every_layout(tmp_path: Path, name: str, content: str) -> None:
    assert values(write(tmp_path / name, content)) == ROWS


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert [row.number for row in open_rows(file).rows] == [1, 3]


def test_parquet_rows_over_several_batches(tmp_path: Path) -> None:
    rows = [{"index": index, "text": str(index)} for index in range(2 * PARQUET_BATCH_ROWS + 3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=50)
    opened = open_rows(tmp_path / "rows.parquet")
    assert opened.columns == {"index", "text"}
    assert [(row.number, row.value) for row in opened.rows] == list(enumerate(rows, start=1))


@pytest.mark.parametrize("line", ['{"a": 1', b'{"a": "\xff"}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_an_unreadable_line_is_a_bad_row_only(tmp_path: Path, line: str | bytes) -> None:
    content = line.encode() if isinstance(line, str) else line
    file = write(tmp_path / "rows.jsonl", b'{"a": 1}\n' + content + b'\n{"a": 3}\n')
    first, bad, last = values(file)
    assert (first, last) == ({"a": 1}, {"a": 3})
    assert isinstance(bad, RowError) and bad.reason == "is not valid JSON"


def test_a_parquet_row_of_broken_text_spoils_no_other(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken}), tmp_path / "rows.parquet")
    first, bad, last = values(tmp_path / "rows.parquet")
    assert (first, last) == ({"text": "good"}, {"text": "fine"})
    assert isinstance(bad, RowError) and bad.reason == "is not valid UTF-8"


def test_a_parquet_row_of_a_year_that_python_does_not_know_spoils_no_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"at": pa.array([0, 2**50, None], pa.timestamp("ms"))}), tmp_path / "rows.parquet")
    first, bad, last = values(tmp_path / "rows.parquet")
    assert (first, last) == ({"at": datetime.datetime(1970, 1, 1)}, {"at": None})
    assert isinstance(bad, RowError) and bad.reason == "has a value that Python cannot hold"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a,b", "unknown kind of data file"),
        ("rows", "a,b", "unknown kind of data file"),
        ("rows.json", "", "the file is empty"),
        ("rows.jsonl", "", "the file is empty"),
        ("rows.parquet", "", "the file is empty"),
        ("rows.json", "[]", "the file has no rows"),
        ("rows.json", '[{"a": 1},', "not valid JSON"),
        ("rows.json", b'[{"a": "\xff"}]', "not valid JSON"),
        ("rows.parquet", "PAR1 and nothing more", "not a readable parquet file"),
    ],
)
def test_a_wrong_file_is_refused_on_opening(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_rows(write(tmp_path / name, content))
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match=r"missing\.json: cannot be opened: No such file"):
        open_rows(tmp_path / "missing.json")
    with pytest.raises(DataError, match="not a file"):
        open_rows(tmp_path / "folder.json")


def test_parquet_without_rows_and_cut_parquet_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), file)
    with pytest.raises(DataError, match="no rows"):
        open_rows(file)
    pq.write_table(pa.table({"a": list(range(1000))}), file)
    write(file, file.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a readable parquet file"):
        open_rows(file)


def test_parquet_damaged_inside_is_refused_while_reading(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"row {index} " * 20 for index in range(500)]}), file, compression="zstd")
    content = bytearray(file.read_bytes())
    content[20:400] = bytes(380)
    write(file, bytes(content))
    with pytest.raises(DataError, match="damaged after row 0"):
        values(file)


def test_a_json_array_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    rows = [{"text": character * 700_000, "number": 10**15} for character in "abé\u2028\U0001f600"] + [12345, "end"]
    for indent in (None, 2):
        assert values(write(tmp_path / "rows.json", json.dumps(rows, indent=indent, ensure_ascii=False))) == rows


def test_a_json_array_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    rows = [{"number": number, "text": "x" * 10_000} for number in range(500)]
    rows_of = open_rows(write(tmp_path / "rows.json", json.dumps(rows)[:-500_000])).rows
    read = []
    with pytest.raises(DataError, match="not valid JSON"):
        for row in rows_of:
            read.append(row.value)
    assert read == rows[: len(read)] and len(read) > 400


@pytest.mark.parametrize("content", ['[{"a": 1} {"a": 2}]', '[{"a": 1}] more', "[1, 2", "[,]", "[" * 100_000])
def test_what_is_no_array(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="not valid JSON"):
        values(write(tmp_path / "rows.json", content))


def test_a_line_too_long_for_memory_is_a_bad_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_ROW_BYTES", 1000)
    long = json.dumps({"a": "x" * 3_000_000})
    first, bad, last = values(write(tmp_path / "rows.jsonl", f'{{"a": 1}}\n{long}\n{{"a": 3}}'))
    assert (first, last) == ({"a": 1}, {"a": 3})
    assert isinstance(bad, RowError) and bad.reason == "is longer than 1,000 bytes"
    with pytest.raises(DataError, match="more than 1,000 characters"):
        values(write(tmp_path / "rows.json", f"[{long}, {long}]"))
