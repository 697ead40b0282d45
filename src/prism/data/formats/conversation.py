"""Conversations of one question and at most one answer, in the field's three spellings.

`{"role", "content"}` with text content, `{"from", "value"}` (ShareGPT), and content given as a list of
typed parts, whose images become image marks in the question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism.data.formats.fields import read_text
from prism.data.rejects import RowError
from prism.records import IMAGE_MARK

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """`images` are references found inside the question itself, in order; usually there are none."""

    question: str
    system: str | None = None
    completion: str | None = None
    images: tuple[object, ...] = ()


def read_conversation(messages: object, field: str) -> Conversation:
    """Raises RowError unless the roles are [system,] user [, assistant], and marks stand in the question only."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise RowError(field, "is not a list of messages", type(messages).__name__)
    images: list[object] = []
    turns = [_read_turn(message, field, images) for message in messages]
    roles = [role for role, _ in turns]
    _check_order(roles, field)
    texts = dict(turns)
    conversation = Conversation(
        question=texts["user"],
        system=texts.get("system") or None,
        completion=texts.get("assistant"),
        images=tuple(images),
    )
    _check_mark_places(conversation, field)
    return conversation


def _check_order(roles: list[str], field: str) -> None:
    expected = ["user"] if roles[:1] != ["system"] else ["system", "user"]
    if roles in (expected, [*expected, "assistant"]):
        return
    if roles.count("user") > 1 and roles.count("assistant") > 1:
        raise RowError(field, "has several questions; only one question and one answer are supported")
    raise RowError(field, "has a wrong order of roles", ", ".join(roles) or "no message")


def _check_mark_places(conversation: Conversation, field: str) -> None:
    for role, text in (("system", conversation.system), ("assistant", conversation.completion)):
        if text and IMAGE_MARK in text:
            raise RowError(field, "has an image mark outside the question", role)


def _read_turn(message: object, field: str, images: list[object]) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise RowError(field, "has a message that is not an object", type(message).__name__)
    role_key, content_key = ("from", "value") if "from" in message else ("role", "content")
    for key in (role_key, content_key):
        if message.get(key) is None:
            raise RowError(f"{field}.{key}", "is missing")
    role = _ROLES.get(message[role_key]) if isinstance(message[role_key], str) else None
    if role is None:
        raise RowError(f"{field}.{role_key}", "is an unknown role", str(message[role_key]))
    return role, _read_content(message[content_key], f"{field}.{content_key}", images)


def _read_content(content: object, field: str, images: list[object]) -> str:
    if not isinstance(content, list):
        return read_text(content, field)
    return "".join(_read_part(part, field, images) for part in content)


def _read_part(part: Any, field: str, images: list[object]) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return read_text(part.get("text"), field)
    if kind not in ("image", "image_url"):
        raise RowError(field, "has a part that is neither text nor image", str(kind))
    reference = next((part[key] for key in ("image", "image_url", "url", "path") if part.get(key) is not None), None)
    if reference is not None:  # absent where the row's image list holds it
        images.append(reference)
    return IMAGE_MARK
