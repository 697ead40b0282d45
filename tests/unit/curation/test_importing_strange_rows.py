"""Whatever a row holds, it is imported or rejected, the rows around it are imported, and what was imported can be
exported and read again."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.curation import Row, Store, count_import
from prism.curation.importing import import_file
from prism.data.readers import read_examples
from prism.data.writers import write_image_folder, write_sharegpt, write_trl, write_verl_parquet
from prism.records import Example
from strange_rows import any_json_row, any_parquet_row, parquet_columns

RESPONSE = "<caption>c</caption><think>t</think><answer>4</answer>"
GOOD = {
    "prompt": [{"role": "user", "content": "Why?"}],
    "reward_model": {"ground_truth": "4"},
    "teacher_response": RESPONSE,
}
BASES: list[dict[str, Any]] = [
    GOOD,
    {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": RESPONSE}], "answer": "4"},
    {"question": "Why?", "teacher_response": RESPONSE, "student_response": RESPONSE},
]
MANY_FILES = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported here need not outlive a loss of power."""
    monkeypatch.setattr(os, "sync", lambda: None)


def imported(file: Path, num_rows: int) -> list[Row]:
    """The strange rows of the store; where there are three rows, those around them are good."""
    store = Store.create(file.parent / "store", 1)
    num_new = import_file(store, file)
    rows = list(store.rows())
    num_rejected = sum(count_import(store)[file.stem].dropped.values())
    assert len(rows) == num_new and num_new + num_rejected == num_rows
    good = [row for row in rows if row.prompt.id in ("first", "last")]
    assert [row.completion for row in good] == [RESPONSE] * (2 if num_rows == 3 else 0)
    return [row for row in rows if row not in good]


def require_exportable(rows: list[Row], out: Path) -> None:
    examples = [Example(row.prompt, row.completion or "none", row.loss_spans) for row in rows]
    if not examples:
        return
    write_sharegpt(out / "a.jsonl", examples, out / "images")
    write_verl_parquet(out / "b.parquet", examples)
    write_trl(out / "c.parquet", examples)
    write_image_folder(out / "folder", examples)
    for name in ("a.jsonl", "b.parquet", "c.parquet", "folder/metadata.jsonl"):
        read = list(read_examples(out / name))
        assert [(each.completion, each.loss_spans, each.prompt.metadata) for each in read] == [
            (each.completion, each.loss_spans, each.prompt.metadata) for each in examples
        ]


@MANY_FILES
@given(row=any_json_row, base=st.sampled_from(BASES))
def test_rows_of_json(row: dict[str, Any], base: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "rows.jsonl"
        rows = [GOOD | {"id": "first"}, base | row, GOOD | {"id": "last"}]
        file.write_text("".join(json.dumps(each) + "\n" for each in rows))
        require_exportable(imported(file, 3), Path(name))


@MANY_FILES
@given(numbers=any_parquet_row)
def test_rows_of_parquet(numbers: dict[str, int]) -> None:
    good = [GOOD | {"id": name} for name in ("first", "strange", "last")]
    beside = {name: column for name, column in parquet_columns(numbers).items() if name not in good[0]}
    around = pa.Table.from_pylist(good)
    for name, column in beside.items():
        without = pa.nulls(1, column.type)
        around = around.append_column(name, pa.concat_arrays([without, column, without]))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "rows.parquet"
        pq.write_table(around, file)
        require_exportable(imported(file, 3), file.parent)


@MANY_FILES
@given(numbers=any_parquet_row.filter(bool))
def test_rows_of_parquet_without_anything_else(numbers: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "rows.parquet"
        pq.write_table(pa.table(parquet_columns(numbers)), file)
        require_exportable(imported(file, 1), file.parent)
