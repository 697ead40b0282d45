"""What all writers share: prompts as columns, images as files, and the promise that reading gives them back."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from prism.data.files import replaced_when_complete
from prism.data.formats.fields import Row
from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.errors import DataError
from prism.records import ImageSource, Prompt


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


def prompt_columns(prompt: Prompt, file: Path, image_dir: Path) -> dict[str, Any]:
    """The columns beside the question that JSON rows keep a prompt in, without those that have nothing to say."""
    columns = {
        "images": [_reference(_store_image(image, image_dir), file) for image in prompt.images],
        "system": prompt.system,
        "answer": prompt.answer,
        "kind": prompt.kind,
        "choices": list(prompt.choices),
        "equivalents": list(prompt.equivalents),
        "metadata": json.loads(metadata_json(prompt, file)),
    }
    return {"id": stored_id(prompt, file)} | {key: value for key, value in columns.items() if value}


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
