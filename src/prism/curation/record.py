"""A row as JSON, and back: nothing is lost but where the images lay, which whoever keeps it names in his own way."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.curation.images import ImageFolder
from prism.curation.rows import Row
from prism.records import ImageSource, Prompt

_MAY_BE_EMPTY = ("system", "completion", "loss_spans")
"""Where nothing is another thing than None."""


def encode_row(row: Row, images: ImageFolder) -> str:
    """The record of a row in a store, its images stored. Raises DataError for an image that cannot be read."""
    return json.dumps(row_table(row, [images.store(image) for image in row.prompt.images]))


def decode_row(row_id: str, text: str, findings: Mapping[str, Mapping[str, Any]], image_root: Path) -> Row:
    table = json.loads(text)
    folder = ImageFolder(image_root)
    return row_from(row_id, table, [folder.source(name) for name in table.get("images", ())], findings)


def row_table(row: Row, images: Sequence[str]) -> dict[str, Any]:
    """What JSON can hold of a row without id and findings, its images called `images`."""
    prompt = row.prompt
    record: dict[str, Any] = {
        "id": prompt.id,
        "question": prompt.question,
        "images": images,
        "answer": prompt.answer,
        "kind": prompt.kind,
        "choices": prompt.choices,
        "equivalents": prompt.equivalents,
        "system": prompt.system,
        "metadata": dict(prompt.metadata),
        "completion": row.completion,
        "loss_spans": row.loss_spans,
    }
    return {key: value for key, value in record.items() if value or (key in _MAY_BE_EMPTY and value is not None)}


def row_from(
    row_id: str, record: Mapping[str, Any], images: Sequence[ImageSource], findings: Mapping[str, Mapping[str, Any]]
) -> Row:
    prompt = Prompt(
        id=record.get("id", ""),
        question=record.get("question", ""),
        images=tuple(images),
        answer=record.get("answer", ""),
        kind=record.get("kind", ""),
        choices=tuple(record.get("choices", ())),
        equivalents=tuple(record.get("equivalents", ())),
        system=record.get("system"),
        metadata=record.get("metadata", {}),
    )
    spans = record.get("loss_spans")
    return Row(
        id=row_id,
        prompt=prompt,
        completion=record.get("completion"),
        loss_spans=None if spans is None else tuple((start, end) for start, end in spans),
        findings=findings,
    )
