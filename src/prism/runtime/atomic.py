"""Files and directories that are either the old ones or the new ones, whenever the power goes.

New content is written beside its place under a temporary name, flushed to the disk and renamed. Of several processes
that run a stage together the first alone does that; others may write into a directory before it gets its name.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from prism.errors import StorageError
from prism.runtime.launch import is_first

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def storage_errors(path: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a StorageError that says what to do.

    With `only_full` just those errors that mean there is no room, for blocks that do other things too.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number is None or (only_full and number not in _FULL):
            raise
        advice = "free some space or raise the quota" if number in _FULL else "make it writable or name another path"
        raise StorageError(
            f"cannot write {path}: {os.strerror(number)}; {advice}, then give the same command again"
        ) from error


def _error_number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors wraps the system's error and keeps its number only in the text.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_bytes(path: Path, data: bytes, *, is_flushed: bool = True) -> None:
    """Replace `path` as a whole, or raise StorageError and leave it as it was.

    Where whoever writes many files sees to it that they reach the disk, `is_flushed` need not be for each.
    """
    if not is_first():
        return
    with _written(path, data, is_flushed=is_flushed) as temporary:
        os.replace(temporary, path)


def write_new(path: Path, data: bytes) -> bool:
    """Write `path` unless it is there; whether it was not. Of several processes one alone writes."""
    with _written(path, data, is_flushed=True) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True


@contextmanager
def _written(path: Path, data: bytes, *, is_flushed: bool) -> Iterator[Path]:
    """A file beside `path` that holds `data`, gone at the end of the block, also on Ctrl-C, unless it was renamed."""
    temporary = _temporary(path)
    with storage_errors(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if is_flushed:
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary
            if is_flushed:
                sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Indented JSON. Floats keep every bit; NaN and Inf are a ValueError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `path`, in place of any old one, when the block succeeds.

    If the block raises, `path` is as before and nothing is left behind.
    """
    temporary = _temporary(path)
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        with storage_errors(path, only_full=True):
            yield temporary
        with storage_errors(path):
            sync_tree(temporary)
            if path.exists():
                discard(path)
            os.replace(temporary, path)
            sync_directory(path.parent)
    except BaseException:  # also on Ctrl-C: no half-written neighbour stays behind
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def discard(path: Path) -> None:
    """Delete a directory so that no half-deleted one is ever seen under its name."""
    doomed = _temporary(path)
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def remove_temporaries(directory: Path) -> None:
    """Clear what writers that were killed left in `directory`. Only for the directory's one owner."""
    for path in directory.glob(".*.partial-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_tree(path: Path) -> None:
    """Flush a file, or a directory with everything below it, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync_tree(child)
        sync_directory(path)
    else:
        _sync(path)


def sync_directory(directory: Path) -> None:
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(6)}")
