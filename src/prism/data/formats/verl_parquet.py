"""verl rows: `prompt`, `images`, `data_source`, `reward_model.ground_truth`, `extra_info`, teacher columns.

Teacher texts stand in `teacher_response`, or apart in `teacher_caption` and `teacher_cot`. What verl has
no column for is kept in `extra_info`: `choices`, `equivalent_answers`, and `metadata` as JSON text, because
a parquet struct would give every row the keys of all others.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from prism.data.files import replaced_when_complete
from prism.data.formats.conversation import read_conversation
from prism.data.formats.fields import (
    IMAGE_FIELDS,
    Row,
    read_answer,
    read_equivalents,
    read_id,
    read_loss_spans,
    read_metadata,
    read_strings,
    without,
)
from prism.data.formats.parquet import image_cell, of_one_kind, write_rows
from prism.data.formats.parsed import ParsedRow, finish_prompt, require_mapping, row_images, row_system
from prism.data.formats.storing import metadata_json, stored_id
from prism.data.formats.tagged import read_response
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.records import Demonstration, Example, Prompt, Response

Record = Prompt | Demonstration | Example

_TEACHER_FIELDS = ("teacher_response", "teacher_caption", "teacher_cot", "teacher_answer")
_COLUMNS = ("prompt", "data_source", "reward_model", "system", "choices", "extra_info")
_OWN_FIELDS = (*_TEACHER_FIELDS, *IMAGE_FIELDS, *_COLUMNS)
_EXTRA_FIELDS = ("index", "id", "choices", "equivalent_answers", "metadata", "loss_spans")
_ANSWER_FIELD = "reward_model.ground_truth"

_TEXT = pa.string()
_PROMPT_SCHEMA = pa.schema(
    {
        "data_source": _TEXT,
        "prompt": pa.list_(pa.struct({"role": _TEXT, "content": _TEXT})),
        "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": _TEXT})),
        "reward_model": pa.struct({"style": _TEXT, "ground_truth": _TEXT}),
        "extra_info": pa.struct(
            {
                "index": _TEXT,
                "choices": pa.list_(_TEXT),
                "equivalent_answers": pa.list_(_TEXT),
                "metadata": _TEXT,
                "loss_spans": pa.list_(pa.list_(pa.int64())),
            }
        ),
    }
)
_TEACHER_SCHEMA = pa.schema([*_PROMPT_SCHEMA, *((field, _TEXT) for field in _TEACHER_FIELDS[:3])])


def recognises(columns: frozenset[str]) -> bool:
    if "prompt" not in columns or "completion" in columns:
        return False
    return not columns.isdisjoint({"data_source", "reward_model", *_TEACHER_FIELDS})


def parse_row(row: Row, image_root: Path) -> ParsedRow:
    conversation = read_conversation(row.get("prompt"), "prompt")
    if conversation.completion is not None:
        raise RowError("prompt", "ends with an answer; it belongs into teacher_response")
    extra = require_mapping(row.get("extra_info"), "extra_info")
    reward = require_mapping(row.get("reward_model"), "reward_model")
    kind = read_answer(row.get("data_source"), "data_source")
    is_complete = row.get("choices") is None
    choices = read_strings(extra.get("choices"), "extra_info.choices")
    leftovers = without(row, (*_OWN_FIELDS, "id")) | without(extra, _EXTRA_FIELDS)
    prompt = Prompt(
        id=own_id(row) or "",
        question=conversation.question,
        images=row_images(row, conversation, image_root),
        answer=read_answer(reward.get("ground_truth"), _ANSWER_FIELD),
        kind=kind,
        choices=choices if is_complete else read_strings(row["choices"], "choices"),
        equivalents=read_equivalents(extra.get("equivalent_answers"), "extra_info.equivalent_answers"),
        system=row_system(row, conversation),
        metadata=read_metadata(extra.get("metadata"), leftovers),
    )
    completion = read_response(row, "teacher", prompt.answer)
    return ParsedRow(
        prompt=finish_prompt(prompt, image_root, is_complete=is_complete),
        completion=completion,
        completion_field="teacher_response",
        answer_field=_ANSWER_FIELD,
        loss_spans=read_loss_spans(extra.get("loss_spans"), "extra_info.loss_spans", len(completion or "")),
    )


def own_id(row: Row) -> str | None:
    """The id that the row brings along. Raises RowError."""
    extra = require_mapping(row.get("extra_info"), "extra_info")
    own = read_id(row.get("id"), "id") or read_id(extra.get("id"), "extra_info.id")
    if own:
        return own
    index = read_id(extra.get("index"), "extra_info.index")
    kind = read_answer(row.get("data_source"), "data_source")
    # A number is the row's place in its source, and sources are often concatenated.
    is_place = index and kind and not isinstance(extra["index"], str)
    return f"{kind}-{index}" if is_place else index


def write_verl_parquet(
    path: Path | str, records: Iterable[Record], *, parse: Callable[[str], Response] | None = None
) -> int:
    """Write prompts, demonstrations or examples, one kind a file; returns the number of rows.

    With `parse` an example whose completion is a valid response has its parts in columns of their own, as a
    demonstration has. Images are embedded as bytes. The file appears only when complete.
    """
    file = Path(path)
    if file.suffix != ".parquet":
        raise DataError(f"{file}: verl data is written as .parquet")
    kind, checked = of_one_kind(records, file)
    schema = _PROMPT_SCHEMA if kind is Prompt else _TEACHER_SCHEMA
    with replaced_when_complete(file) as stream:
        return write_rows(stream, file, schema, (_row(record, file, parse) for record in checked))


def _row(record: Record, file: Path, parse: Callable[[str], Response] | None) -> dict[str, Any]:
    match record:
        case Prompt():
            return _prompt_row(record, file)
        case Example(prompt, completion, spans):
            row = _prompt_row(prompt, file)
            extra = row["extra_info"] | {"loss_spans": spans and [list(span) for span in spans]}
            response = parse(completion) if parse else None
            parts = _parts(response) if response and response.is_valid else {}
            return row | {"teacher_response": completion, "extra_info": extra} | parts
        case Demonstration(prompt, response):
            return _prompt_row(prompt, file) | {"teacher_response": response.text} | _parts(response)


def _parts(response: Response) -> dict[str, Any]:
    cot = f"<think>{response.think}</think><answer>{response.answer}</answer>"
    return {"teacher_caption": response.caption, "teacher_cot": cot}


def _prompt_row(prompt: Prompt, file: Path) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt.question}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    return {
        "data_source": prompt.kind,
        "prompt": messages,
        "images": [image_cell(image) for image in prompt.images] or None,
        "reward_model": {"style": "rule", "ground_truth": prompt.answer},
        "extra_info": {
            "index": stored_id(prompt, file),
            "choices": list(prompt.choices),
            "equivalent_answers": list(prompt.equivalents),
            "metadata": metadata_json(prompt, file),
        },
    }
