"""Files that are either whole or not there."""

from pathlib import Path

import pytest

from prism.data.files import replaced_when_complete
from prism.errors import StorageError


def test_the_old_content_stays_until_the_new_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "new" / "data.bin"
    with replaced_when_complete(file) as stream:
        stream.write(b"one")
    with replaced_when_complete(file) as stream:
        stream.write(b"two")
        stream.flush()
        assert file.read_bytes() == b"one"
    assert file.read_bytes() == b"two"
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(b"one")
    with (
        pytest.raises(StorageError, match=r"cannot write .*data\.bin: No space left"),
        replaced_when_complete(file) as s,
    ):
        s.write(b"two")
        raise OSError(28, "No space left on device")
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]
