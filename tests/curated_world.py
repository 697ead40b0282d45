"""The built-in world in a store, and its scripted teacher in a process of its own (servers/teacher_stub.py)."""

import base64
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.curation.importing import import_file
from prism.curation.store import Store
from prism.data.world.datasets import CURATED, FAITHFUL, demonstrations
from prism.data.writers import write_verl_parquet
from prism.records import Example

SERVER = Path(__file__).parent / "servers" / "teacher_stub.py"


@dataclass(frozen=True)
class Teacher:
    base_url: str
    log_file: Path

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def count(self) -> int:
        return self.log_file.read_bytes().count(b"\n")


def world_store(directory: Path, count: int, num_shards: int = 4) -> tuple[Store, Path]:
    """`count` problems of the world, imported, and the script of the teacher that can solve them."""
    directory.mkdir(parents=True, exist_ok=True)
    examples = list(demonstrations("world", CURATED, FAITHFUL, count, seed=5))
    file = directory / "problems.parquet"
    write_verl_parquet(file, (example.prompt for example in examples))
    store = Store.create(directory / "store", num_shards)
    assert import_file(store, file) == count
    return store, write_script(directory, examples)


def write_script(directory: Path, examples: Iterable[Example]) -> Path:
    """What the teacher answers to the image of each example."""
    script = {}
    for example in examples:
        [image] = example.prompt.images
        uri = "data:image/png;base64," + base64.b64encode(image.data or b"").decode()
        script[hashlib.sha256(uri.encode()).hexdigest()] = example.completion
    path = directory / "script.json"
    path.write_text(json.dumps(script))
    return path


@contextmanager
def teaching(
    directory: Path, script: Path | None = None, rates: Mapping[str, float] | None = None, *options: str
) -> Iterator[Teacher]:
    """A running teacher; `rates` are how often it fails in which way."""
    address = directory / "address"
    address.unlink(missing_ok=True)
    command = [sys.executable, str(SERVER), str(address), str(directory / "server.jsonl"), *options]
    command += ["--rates", json.dumps(dict(rates or {}))] + (["--script", str(script)] if script else [])
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while not address.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield Teacher(address.read_text(), directory / "server.jsonl")
    finally:
        process.terminate()
        process.wait()
