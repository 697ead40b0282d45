"""Content hashes: what a stage was made from, and whether its outputs are still what it wrote."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
RESULT_FREE = ("cli.py", "cli_arguments.py", "cli_data.py", "report")
"""Parts of the package that read runs but cannot change their results."""


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_sha256(directory: Path) -> str:
    """Hash of all files below: relative names and contents, in sorted order.

    Names that start with a dot (caches of download tools, desktop droppings) do not count; links to
    files count as the files, which is how model caches lay out their snapshots.
    """
    return _combine((name, file_sha256(directory / name)) for name in sorted(_visible_files(directory)))


def path_sha256(path: Path) -> str:
    """`file_sha256` or `directory_sha256`. FileNotFoundError where there is neither."""
    return directory_sha256(path) if path.is_dir() else file_sha256(path)


def canonical_json(value: Any) -> str:
    """One text per value: keys sorted, no spaces. TypeError or ValueError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def config_sha256(config: Any) -> str:
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


@cache
def code_version() -> str:
    """Hash of this package's own source, without the command line and the report."""
    sources = sorted(
        path.relative_to(PACKAGE_ROOT).as_posix()
        for path in PACKAGE_ROOT.rglob("*.py")
        if path.relative_to(PACKAGE_ROOT).parts[0] not in RESULT_FREE
    )
    return _combine((name, file_sha256(PACKAGE_ROOT / name)) for name in sources)


def _visible_files(directory: Path) -> list[str]:
    names = []
    for parent, folders, files in os.walk(directory):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        names += [(Path(parent) / file).relative_to(directory).as_posix() for file in files if not file.startswith(".")]
    return names


def _combine(entries: Any) -> str:
    digest = hashlib.sha256()
    for name, content in entries:
        digest.update(f"{len(name.encode())}:{name}{content}".encode())
    return digest.hexdigest()
