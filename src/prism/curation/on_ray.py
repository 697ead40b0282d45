"""A step's work on Ray Data, on as many machines as the cluster has (the optional extra `ray`).

The step is the same object with the same `run` or `describe`; only who calls it differs. This process goes on reading
pending rows and recording outcomes, so that a store has one writer per shard, and what is resumable stays so. Rows
travel without their images, which every machine reads where the store lies: a file system that all share.
"""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from prism.curation.record import row_from, row_table
from prism.curation.rows import Outcome, Row
from prism.curation.running import Work
from prism.errors import ConfigError
from prism.records import ImageSource

CHUNK_ROWS = 20_000
"""Rows in the cluster's memory at a time."""
BATCH_ROWS = 256


def on_ray(work: Work, rows: Iterator[Row]) -> Iterator[Outcome]:
    """For `run_step(…, execute=on_ray)`: `work` on batches of rows, wherever Ray puts them. Raises ConfigError.

    Joins the cluster that the environment names (`RAY_ADDRESS`), else starts one on this machine. `work` must look at
    each row by itself, as steps do. What it raises ends the step, as it would here.
    """
    ray = _import_ray()
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    shared = None
    while chunk := [encode(row) for row in islice(rows, CHUNK_ROWS)]:
        if shared is None:
            shared = _share(ray, work)
        blocks = min(len(chunk), max(1, len(chunk) // BATCH_ROWS))
        data = ray.data.from_items([{"row": text} for text in chunk], override_num_blocks=blocks)
        done = data.map_batches(_on_batch, fn_args=(shared,), batch_size=BATCH_ROWS, batch_format="numpy")
        for item in done.iter_rows():
            yield Outcome(**json.loads(item["outcome"]))


def _import_ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('Ray is not installed: pip install -e ".[ray]" in PRISM\'s directory')
    importlib.import_module("ray.data")
    return importlib.import_module("ray")


def _share(ray: Any, work: Work) -> Any:
    """A reference to `work`, which goes to every machine once: it may hold the sketches of all evaluation sets.

    Ray Data tries a batch for ever on a worker that cannot import what it needs. So one worker, wherever it is, is
    asked once whether it can.
    """
    shared = ray.put(work)
    try:
        ray.get(ray.remote(max_retries=0)(_count).remote([shared]))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise ConfigError(
            f"--on-ray: a worker cannot do the step ({reason}); prism-vlm must be installed on every machine"
        ) from error
    return shared


def _count(shared: list[Any]) -> int:
    return len(_import_ray().get(shared))


@lru_cache(maxsize=1)
def _work(shared: Any) -> Work:
    return _import_ray().get(shared)


def _on_batch(batch: dict[str, Any], shared: Any) -> dict[str, list[str]]:
    """`shared` is a reference to the work, which a worker unpacks once."""
    rows = (decode(str(text)) for text in batch["row"])
    return {"outcome": [json.dumps(asdict(outcome)) for outcome in _work(shared)(rows)]}


def encode(row: Row) -> str:
    """JSON of a row whose images are files."""
    # Absolute: workers elsewhere have another working directory.
    paths = [str(image.path and image.path.absolute()) for image in row.prompt.images]
    return json.dumps({"id": row.id, "record": row_table(row, paths), "findings": row.findings}, default=dict)


def decode(text: str) -> Row:
    found = json.loads(text)
    images = [ImageSource(path=Path(path)) for path in found["record"].get("images", ())]
    return row_from(found["id"], found["record"], images, found["findings"])
