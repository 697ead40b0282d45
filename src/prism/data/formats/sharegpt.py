"""ShareGPT rows as LLaMA-Factory reads them: `messages` or `conversations`, `images`, `system`.

Columns of our own hold what that format has no place for (`id`, `answer`, `kind`, and in `extra_info`, as JSON
text, `choices`, `equivalents`, `metadata`, `loss_spans`); other programs pass over them. Read, these may also be
columns of their own. The metadata of an image folder is the same row with `images_file_names` for `images`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prism.data.files import replaced_when_complete
from prism.data.formats.conversation import read_conversation
from prism.data.formats.fields import Row, first_present, read_loss_spans, with_extra
from prism.data.formats.parsed import ParsedRow, read_prompt
from prism.data.formats.storing import prompt_columns, write_json_rows
from prism.errors import DataError
from prism.records import Example, Prompt

_MESSAGE_FIELDS = ("messages", "conversations")
_OWN_FIELDS = (*_MESSAGE_FIELDS, "loss_spans")
_FOLDER_FIELDS = {"images": "images_file_names"}


def recognises(columns: frozenset[str]) -> bool:
    return not columns.isdisjoint(_MESSAGE_FIELDS)


def parse_row(row: Row, image_root: Path) -> ParsedRow:
    is_complete, row = row.get("choices") is None, with_extra(row)
    field, messages = first_present(row, _MESSAGE_FIELDS)
    conversation = read_conversation(messages, field)
    completion = conversation.completion
    return ParsedRow(
        prompt=read_prompt(row, conversation, image_root, _OWN_FIELDS, is_complete=is_complete),
        completion=completion,
        completion_field=field,
        loss_spans=read_loss_spans(row.get("loss_spans"), "loss_spans", len(completion or "")),
    )


def write_sharegpt(path: Path | str, records: Iterable[Prompt | Example], image_dir: Path | str) -> int:
    """Write a JSON array (.json) or JSON lines (.jsonl); returns the number of rows. A prompt is a row without answer.

    Images become files of `image_dir` named by their content, each stored once, and are referred to relative
    to the data file where they lie below it. The file appears only when complete.
    """
    file = Path(path)
    if file.suffix not in (".json", ".jsonl"):
        raise DataError(f"{file}: ShareGPT data is written as .json or .jsonl")
    opening, separator, closing = ("[\n", ",\n", "\n]\n") if file.suffix == ".json" else ("", "\n", "\n")
    rows = (_record_row(record, file, Path(image_dir)) for record in records)
    with replaced_when_complete(file) as stream:
        return write_json_rows(stream, file, rows, opening, separator, closing)


def write_image_folder(directory: Path | str, records: Iterable[Prompt | Example]) -> int:
    """Write a folder as Hugging Face's `imagefolder` loads it: `metadata.jsonl` and below it the images."""
    file = Path(directory) / "metadata.jsonl"
    rows = (_record_row(record, file, file.parent / "images") for record in records)
    renamed = ({_FOLDER_FIELDS.get(key, key): value for key, value in row.items()} for row in rows)
    with replaced_when_complete(file) as stream:
        return write_json_rows(stream, file, renamed)


def _record_row(record: Prompt | Example, file: Path, image_dir: Path) -> dict[str, Any]:
    prompt = record if isinstance(record, Prompt) else record.prompt
    messages = [{"role": "user", "content": prompt.question}]
    if isinstance(record, Prompt):
        return {"messages": messages} | prompt_columns(prompt, file, image_dir)
    messages.append({"role": "assistant", "content": record.completion})
    return {"messages": messages} | prompt_columns(prompt, file, image_dir, record.loss_spans)
