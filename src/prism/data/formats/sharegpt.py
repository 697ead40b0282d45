"""ShareGPT rows as LLaMA-Factory reads them: `messages` or `conversations`, `images`, `system`.

Columns of our own hold what that format has no place for (`id`, `answer`, `kind`, `choices`,
`equivalents`, `metadata`, `loss_spans`); other programs pass over them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prism.data.files import replaced_when_complete
from prism.data.formats.conversation import read_conversation
from prism.data.formats.fields import Row, first_present, read_loss_spans
from prism.data.formats.parsed import ParsedRow, read_prompt
from prism.data.formats.storing import prompt_columns, write_json_rows
from prism.errors import DataError
from prism.records import Example

_MESSAGE_FIELDS = ("messages", "conversations")
_OWN_FIELDS = (*_MESSAGE_FIELDS, "loss_spans")


def recognises(columns: frozenset[str]) -> bool:
    return not columns.isdisjoint(_MESSAGE_FIELDS)


def parse_row(row: Row, image_root: Path) -> ParsedRow:
    field, messages = first_present(row, _MESSAGE_FIELDS)
    conversation = read_conversation(messages, field)
    completion = conversation.completion
    return ParsedRow(
        prompt=read_prompt(row, conversation, image_root, _OWN_FIELDS),
        completion=completion,
        completion_field=field,
        loss_spans=read_loss_spans(row.get("loss_spans"), "loss_spans", len(completion or "")),
    )


def write_sharegpt(path: Path | str, examples: Iterable[Example], image_dir: Path | str) -> int:
    """Write a JSON array (.json) or JSON lines (.jsonl); returns the number of rows.

    Images become files of `image_dir` named by their content, each stored once, and are referred to relative
    to the data file where they lie below it. The file appears only when complete.
    """
    file = Path(path)
    if file.suffix not in (".json", ".jsonl"):
        raise DataError(f"{file}: ShareGPT data is written as .json or .jsonl")
    opening, separator, closing = ("[\n", ",\n", "\n]\n") if file.suffix == ".json" else ("", "\n", "\n")
    rows = (_example_row(example, file, Path(image_dir)) for example in examples)
    with replaced_when_complete(file) as stream:
        return write_json_rows(stream, file, rows, opening, separator, closing)


def _example_row(example: Example, file: Path, image_dir: Path) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": example.prompt.question},
        {"role": "assistant", "content": example.completion},
    ]
    row = {"messages": messages} | prompt_columns(example.prompt, file, image_dir)
    if example.loss_spans is not None:
        row["loss_spans"] = [list(span) for span in example.loss_spans]
    return row
