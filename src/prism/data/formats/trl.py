"""TRL and Hugging Face rows: `prompt` and `completion`, each text or messages; images in `images` or `image`.

Rows for RL have no completion but an answer column. Conversations under `messages` are read by `sharegpt`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from prism.data.files import replaced_when_complete
from prism.data.formats.conversation import read_conversation
from prism.data.formats.fields import EXTRA_FIELD, Row, read_loss_spans, with_extra
from prism.data.formats.parquet import image_cell, of_one_kind, write_rows
from prism.data.formats.parsed import ParsedRow, read_prompt
from prism.data.formats.storing import extra_json, stored_id
from prism.data.questions import question_parts
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.records import Example, Prompt

_OWN_FIELDS = ("prompt", "completion", "loss_spans")
_TEXT = pa.string()
_MESSAGES = pa.list_(pa.struct({"role": _TEXT, "content": pa.list_(pa.struct({"type": _TEXT, "text": _TEXT}))}))
_COLUMNS = {
    "id": _TEXT,
    "prompt": _MESSAGES,
    "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": _TEXT})),
    "answer": _TEXT,
    "kind": _TEXT,
    EXTRA_FIELD: _TEXT,
}
_STRING = {"dtype": "string", "_type": "Value"}
_MESSAGE_FEATURES = {
    "feature": {"role": _STRING, "content": {"feature": {"type": _STRING, "text": _STRING}, "_type": "List"}},
    "_type": "List",
}
_FEATURES = {
    "prompt": _MESSAGE_FEATURES,
    "completion": _MESSAGE_FEATURES,
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
}
"""What `datasets` is told of the columns, so that it hands out pictures instead of their bytes."""


def recognises(columns: frozenset[str]) -> bool:
    return "prompt" in columns


def parse_row(row: Row, image_root: Path) -> ParsedRow:
    is_complete, row = row.get("choices") is None, with_extra(row)
    messages = _messages(row.get("prompt"), "prompt", "user")
    if row.get("completion") is not None:
        messages += _messages(row["completion"], "completion", "assistant")
    conversation = read_conversation(messages, "prompt")
    if conversation.completion is not None and row.get("completion") is None:
        raise RowError("prompt", "ends with an answer; it belongs into the completion")
    completion = conversation.completion
    return ParsedRow(
        prompt=read_prompt(row, conversation, image_root, _OWN_FIELDS, is_complete=is_complete),
        completion=completion,
        completion_field="completion",
        loss_spans=read_loss_spans(row.get("loss_spans"), "loss_spans", len(completion or "")),
    )


def _messages(value: object, field: str, role: str) -> list[object]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise RowError(field, "is neither text nor a list of messages", type(value).__name__)
    return list(value)


def write_trl(path: Path | str, records: Iterable[Prompt | Example]) -> int:
    """Write prompts, or examples with their completions, one kind a file, as parquet; returns the number of rows.

    Messages have typed parts, an image part at each image mark; images are embedded, and `datasets` decodes them.
    """
    file = Path(path)
    if file.suffix != ".parquet":
        raise DataError(f"{file}: TRL data is written as .parquet")
    kind, checked = of_one_kind(records, file)
    with replaced_when_complete(file) as stream:
        return write_rows(stream, file, _schema(kind), (_row(record, file) for record in checked))


def _schema(kind: type) -> pa.Schema:
    columns = _COLUMNS if kind is Prompt else _COLUMNS | {"completion": _MESSAGES}
    features = {name: _FEATURES.get(name, _STRING) for name in columns}
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _row(record: Prompt | Example, file: Path) -> dict[str, Any]:
    prompt, spans = (record, None) if isinstance(record, Prompt) else (record.prompt, record.loss_spans)
    parts = [{"type": "image"} if text is None else _text_part(text) for text in question_parts(prompt)]
    system = [{"role": "system", "content": [_text_part(prompt.system)]}] if prompt.system else []
    row = {
        "id": stored_id(prompt, file),
        "prompt": [*system, {"role": "user", "content": parts}],
        "images": [image_cell(image) for image in prompt.images],
        "answer": prompt.answer,
        "kind": prompt.kind,
        EXTRA_FIELD: extra_json(prompt, file, spans),
    }
    if isinstance(record, Example):
        row["completion"] = [{"role": "assistant", "content": [_text_part(record.completion)]}]
    return row


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
