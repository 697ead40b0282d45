"""A row's record in the store, and back: nothing is lost but where the images lay."""

import json
from pathlib import Path
from typing import Any

from prism.curation.images import ImageFolder
from prism.curation.rows import Row
from prism.records import Prompt


def encode_row(row: Row, images: ImageFolder) -> str:
    """JSON text of the row without findings, its images stored. Raises DataError for what JSON cannot give back."""
    prompt = row.prompt
    record: dict[str, Any] = {
        "id": prompt.id,
        "question": prompt.question,
        "images": [images.store(image) for image in prompt.images],
        "answer": prompt.answer,
        "kind": prompt.kind,
        "choices": prompt.choices,
        "equivalents": prompt.equivalents,
        "system": prompt.system,
        "metadata": dict(prompt.metadata),
        "completion": row.completion,
        "loss_spans": row.loss_spans,
    }
    return json.dumps({key: value for key, value in record.items() if value not in (None, "", [], (), {})})


def decode_row(row_id: str, text: str, findings: dict[str, dict[str, Any]], image_root: Path) -> Row:
    record = json.loads(text)
    prompt = Prompt(
        id=record["id"],
        question=record["question"],
        images=tuple(ImageFolder(image_root).source(name) for name in record.get("images", ())),
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
