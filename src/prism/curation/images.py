"""The images of a store: each encoded file once, under the SHA-256 of its bytes."""

import hashlib
import os
import secrets
from pathlib import Path

from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.records import ImageSource
from prism.runtime.atomic import storage_errors


class ImageFolder:
    """Any number of processes may store at once: a file's name follows from its content, and it appears whole."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def store(self, image: ImageSource) -> str:
        """The image's name below the folder. Raises DataError for one that cannot be read, StorageError."""
        data = read_bytes(image)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{digest[:2]}/{digest}{image_suffix(data) or '.img'}"
        path = self.root / name
        # The size is compared because a machine that lost its power may have left an empty file.
        if not path.is_file() or path.stat().st_size != len(data):
            _write(path, data)
        return name

    def source(self, name: str) -> ImageSource:
        return ImageSource(path=self.root / name)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial-{secrets.token_hex(6)}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not flushed one by one, which would take hours for a million: whoever commits rows sees to it.
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except BaseException:  # also on Ctrl-C: no half-written neighbour stays behind
            temporary.unlink(missing_ok=True)
            raise
