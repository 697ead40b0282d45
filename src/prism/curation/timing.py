"""How long steps took: a line for every time that one ran, `timings.jsonl`, from which larger runs are planned."""

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from prism.runtime.atomic import storage_errors

FILE = "timings.jsonl"
_LEAST_ROWS = 20
"""A run over fewer says more of how it started than of its rows."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Rows and the seconds that one process took for them."""

    num_rows: int = 0
    seconds: float = 0.0


def note_timing(directory: Path, key: str, num_rows: int, seconds: float) -> None:
    """`key` is a step's run, or an import. One short write at a file's end is whole, whoever else writes too."""
    if num_rows < _LEAST_ROWS:
        return
    line = json.dumps({"key": key, "num_rows": num_rows, "seconds": round(seconds, 3)}) + "\n"
    with storage_errors(directory / FILE):
        descriptor = os.open(directory / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_timings(directory: Path) -> dict[str, Timing]:
    """Sums by key; a line that a lost machine left half-written is passed over."""
    rows: defaultdict[str, int] = defaultdict(int)
    seconds: defaultdict[str, float] = defaultdict(float)
    path = directory / FILE
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            key, num_rows, spent = str(entry["key"]), int(entry["num_rows"]), float(entry["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
        rows[key] += num_rows
        seconds[key] += spent
    return {key: Timing(rows[key], seconds[key]) for key in rows}


def import_key(source: str) -> str:
    return f"import of {source}"
