"""The images of a store: each encoded file once, under the SHA-256 of its bytes."""

import hashlib
from pathlib import Path

from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.records import ImageSource
from prism.runtime.atomic import storage_errors, write_bytes


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
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            # Not flushed one by one, which would take hours for a million: whoever commits rows sees to it.
            write_bytes(path, data, is_flushed=False)
        return name

    def source(self, name: str) -> ImageSource:
        return ImageSource(path=self.root / name)
