"""Files that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from prism.errors import StorageError


@contextmanager
def replaced_when_complete(file: Path) -> Iterator[IO[bytes]]:
    """A stream to a neighbour of `file` that takes its place once the block ends without an error.

    A reader never sees half a file, and an earlier one survives a failure. Raises StorageError.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            yield stream
        os.replace(partial, file)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the error that matters is already on its way
            partial.unlink()
