import os

import pytest

from prism.errors import StorageError
from prism.runtime.lock import DirectoryLock

# Newer Pythons warn of fork beside threads; the children here only write files and leave.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def _other_process_is_refused(directory) -> bool:
    child = os.fork()
    if child == 0:
        try:
            DirectoryLock(directory)
        except StorageError as error:
            os._exit(1 if "in use by another process" in str(error) else 2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_one_process_at_a_time(tmp_path):
    lock = DirectoryLock(tmp_path)
    assert _other_process_is_refused(tmp_path)
    lock.release()
    assert not _other_process_is_refused(tmp_path)


def test_the_end_of_a_process_releases(tmp_path):
    assert not _other_process_is_refused(tmp_path)  # took the lock and died with it
    DirectoryLock(tmp_path).release()


def test_a_missing_directory(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        DirectoryLock(tmp_path / "nowhere")
