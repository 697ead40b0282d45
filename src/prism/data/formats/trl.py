"""TRL and Hugging Face rows: `prompt` and `completion`, each text or messages; images in `images` or `image`.

Rows for RL have no completion but an answer column. Conversations under `messages` are read by `sharegpt`.
"""

from pathlib import Path

from prism.data.formats.conversation import read_conversation
from prism.data.formats.fields import Row, read_loss_spans
from prism.data.formats.parsed import ParsedRow, read_prompt
from prism.data.rejects import RowError

_OWN_FIELDS = ("prompt", "completion", "loss_spans")


def recognises(columns: frozenset[str]) -> bool:
    return "prompt" in columns


def parse_row(row: Row, image_root: Path) -> ParsedRow:
    messages = _messages(row.get("prompt"), "prompt", "user")
    if row.get("completion") is not None:
        messages += _messages(row["completion"], "completion", "assistant")
    conversation = read_conversation(messages, "prompt")
    if conversation.completion is not None and row.get("completion") is None:
        raise RowError("prompt", "ends with an answer; it belongs into the completion")
    completion = conversation.completion
    return ParsedRow(
        prompt=read_prompt(row, conversation, image_root, _OWN_FIELDS),
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
