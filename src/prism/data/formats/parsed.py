"""What every format's row becomes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism.data.formats.conversation import Conversation
from prism.data.formats.fields import (
    ANSWER_FIELDS,
    IMAGE_FIELDS,
    Row,
    first_present,
    read_answer,
    read_equivalents,
    read_id,
    read_metadata,
    read_strings,
    read_visible_text,
    refuse_other_media,
    without,
)
from prism.data.image_references import resolve_images
from prism.data.questions import with_choices
from prism.data.rejects import RowError
from prism.records import IMAGE_MARK, ImageSource, Prompt

PROMPT_FIELDS = (
    *ANSWER_FIELDS,
    *IMAGE_FIELDS,
    "id",
    "system",
    "kind",
    "data_source",
    "choices",
    "equivalents",
    "equivalent_answers",
    "metadata",
)
"""Columns of JSON rows that `read_prompt` understands; any other becomes metadata."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """`completion` is None where the row has none; `completion_field` and `answer_field` say where to look."""

    prompt: Prompt
    completion: str | None
    completion_field: str
    answer_field: str = ANSWER_FIELDS[0]
    loss_spans: tuple[tuple[int, int], ...] | None = None


def read_prompt(
    row: Row, conversation: Conversation, image_root: Path, own_fields: tuple[str, ...], *, is_complete: bool
) -> Prompt:
    """The prompt of a row whose facts stand in columns beside the conversation. Raises RowError.

    The question `is_complete` where options have no column of their own, as users give them one: those that writers
    keep in `extra_info` have been put into the question before.
    """
    answer_field, answer = first_present(row, ANSWER_FIELDS)
    kind_field, kind = first_present(row, ("kind", "data_source"))
    equivalents_field, equivalents = first_present(row, ("equivalents", "equivalent_answers"))
    prompt = Prompt(
        id=read_id(row.get("id"), "id") or "",
        question=conversation.question,
        images=row_images(row, conversation, image_root),
        answer=read_answer(answer, answer_field),
        kind=read_answer(kind, kind_field),
        choices=read_strings(row.get("choices"), "choices"),
        equivalents=read_equivalents(equivalents, equivalents_field),
        system=row_system(row, conversation),
        metadata=read_metadata(row.get("metadata"), without(row, (*PROMPT_FIELDS, *own_fields))),
    )
    return finish_prompt(prompt, image_root, is_complete=is_complete)


def row_images(row: Row, conversation: Conversation, image_root: Path) -> tuple[ImageSource, ...]:
    refuse_other_media(row)
    field, value = first_present(row, IMAGE_FIELDS)
    images = resolve_images(value, image_root, field)
    if not conversation.images:
        return images
    if images:
        raise RowError(field, "stands beside images given inside the messages")
    return resolve_images(list(conversation.images), image_root, "messages")


def row_system(row: Row, conversation: Conversation) -> str | None:
    system = read_answer(row.get("system"), "system") or None
    if system and IMAGE_MARK in system:
        raise RowError("system", "has an image mark outside the question")
    if system and conversation.system and system != conversation.system:
        raise RowError("system", "differs from the system message")
    return system or conversation.system


def finish_prompt(prompt: Prompt, image_root: Path, *, is_complete: bool = True) -> Prompt:
    """Check question against images and give an id to a prompt that came without one: that of the row as it came.

    Unless the question `is_complete`, its options are put behind it.
    """
    read_visible_text(prompt.question, "question")
    question = prompt.question if is_complete else with_choices(prompt.question, prompt.choices)
    marks = question.count(IMAGE_MARK)
    # No mark at all is the convention for "images first".
    if marks not in (0, len(prompt.images)):
        raise RowError("images", "differ in number from the image marks", f"{len(prompt.images)} for {marks} marks")
    return replace(prompt, id=prompt.id or derived_id(prompt, image_root), question=question)


def derived_id(prompt: Prompt, image_root: Path) -> str:
    """The same row gets the same id on every machine: files count by their name below `image_root`, unread."""
    content = [
        prompt.system,
        prompt.question,
        prompt.choices,
        prompt.answer,
        [_image_key(image, image_root) for image in prompt.images],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _image_key(image: ImageSource, image_root: Path) -> str:
    if image.data is not None:
        return hashlib.sha256(image.data).hexdigest()
    assert image.path is not None  # an ImageSource has one of the two
    return (image.path.relative_to(image_root) if image.path.is_relative_to(image_root) else image.path).as_posix()


def require_mapping(value: object, field: str) -> Mapping[str, Any]:
    """`value` as a mapping, an absent one as an empty mapping. Raises RowError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RowError(field, "is not an object", type(value).__name__)
    return value
