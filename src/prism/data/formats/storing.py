"""What all writers share: prompts as columns, images as files, and the promise that reading gives them back."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from prism.data.files import replaced_when_complete
from prism.data.formats.fields import EXTRA_FIELD, Row
from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.errors import DataError
from prism.records import ImageSource, Prompt

Spans = tuple[tuple[int, int], ...] | None


def write_json_rows(
    stream: IO[bytes], file: Path, rows: Iterable[Row], opening: str = "", separator: str = "\n", closing: str = "\n"
) -> int:
    """Raises DataError for no row at all, since an empty data file is refused on reading."""
    count = 0
    for row in rows:
        stream.write((separator if count else opening).encode())
        stream.write(_json_bytes(row, f"{file}, prompt {row['id']}"))
        count += 1
    if not count:
        raise DataError(f"{file}: nothing to write")
    stream.write(closing.encode())
    return count


def prompt_columns(prompt: Prompt, file: Path, image_dir: Path, spans: Spans = None) -> dict[str, Any]:
    """The columns beside the question that JSON rows keep a prompt in, the same in every row.

    Hugging Face's JSON loader takes the columns and their types from the first 10 MB of a file and fails on a row
    that has others, an empty list become a full one included. So what not every row has, or has in another shape, is
    one text: `extra_info`.
    """
    return {
        "id": stored_id(prompt, file),
        "images": [_reference(_store_image(image, image_dir), file) for image in prompt.images],
        "system": prompt.system or "",
        "answer": prompt.answer,
        "kind": prompt.kind,
        EXTRA_FIELD: extra_json(prompt, file, spans),
    }


def extra_json(prompt: Prompt, file: Path, spans: Spans = None) -> str:
    """What `fields.with_extra` unfolds, without what has nothing to say; empty where nothing has."""
    metadata_json(prompt, file)
    extra = {
        "choices": list(prompt.choices),
        "equivalents": list(prompt.equivalents),
        "metadata": dict(prompt.metadata),
        "loss_spans": None if spans is None else [list(span) for span in spans],
    }
    kept = {key: value for key, value in extra.items() if value or (key == "loss_spans" and value is not None)}
    return _json_bytes(kept, f"{file}, prompt {prompt.id}").decode() if kept else ""


def stored_id(prompt: Prompt, file: Path) -> str:
    if not prompt.id:
        raise DataError(f"{file}: a prompt without an id cannot be written: {prompt.question[:60]!r}")
    return prompt.id


def metadata_json(prompt: Prompt, file: Path) -> str:
    """Raises DataError for metadata that JSON would not give back as it is, such as tuples or number keys."""
    metadata = dict(prompt.metadata)
    place = f"{file}, prompt {prompt.id}, metadata"
    text = _json_bytes(metadata, place).decode()
    if json.loads(text) != metadata:
        raise DataError(f"{place}: JSON does not give it back unchanged; use lists and string keys")
    return text


def _json_bytes(value: object, place: str) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # ValueError covers text that has no UTF-8 form
        raise DataError(f"{place}: cannot be written as JSON: {error}") from error


def _store_image(image: ImageSource, image_dir: Path) -> Path:
    """A file named by its content, so that equal images share one and a repeated run changes nothing."""
    data = read_bytes(image)
    file = image_dir / f"{hashlib.sha256(data).hexdigest()[:32]}{image_suffix(data) or '.img'}"
    if not file.is_file() or file.read_bytes() != data:
        with replaced_when_complete(file) as stream:
            stream.write(data)
    return file


def _reference(image: Path, file: Path) -> str:
    target, folder = Path(os.path.abspath(image)), Path(os.path.abspath(file.parent))
    return target.relative_to(folder).as_posix() if target.is_relative_to(folder) else str(target)
