"""One process per stage directory."""

import fcntl
import os
import weakref
from pathlib import Path

from prism.errors import StorageError
from prism.runtime.atomic import storage_errors


class DirectoryLock:
    """Held until `release`, or until the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        path = directory / ".lock"
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.release = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.release()
            raise StorageError(
                f"{directory} is in use by another process: wait for it or name another directory"
            ) from None
        except OSError:
            # Some network file systems have no locks. Going on without one is what users there expect.
            pass
