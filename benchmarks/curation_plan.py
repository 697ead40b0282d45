"""What curating the paper's 1.26M + 113K rows would take, planned from a trial on a few hundred rows.

    PYTHONPATH=src:tests python benchmarks/curation_plan.py [--public 400] [--curated 200] [--side 768] [--processes 16]

Rows of the built-in world with their pictures enlarged to `--side` pixels: public ones have demonstrations, curated
ones are taught by a local teacher that answers at once. It is charged what recipes/data/teach.toml states, for tokens
that a stub counts, so that the cost shows how the plan counts and not what a real teacher costs. Then split,
statistics, export and `prism data plan`. Prints what each took per row.
"""

import argparse
import hashlib
import io
import json
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from curated_world import teaching
from prism.cli import main
from prism.config import TeachRecipe, build_config
from prism.curation import Part, Store
from prism.curation.exporting import FORMATS, export
from prism.curation.importing import import_file
from prism.curation.statistics import collect
from prism.curation.teach import run_teach
from prism.data.images import open_image
from prism.data.world.datasets import CURATED, FAITHFUL, PUBLIC, demonstrations
from prism.data.writers import write_sharegpt
from prism.records import Example, ImageSource

PAPER = ("public=1260000", "curated=113000")


def enlarged(example: Example, side: int) -> Example:
    [source] = example.prompt.images
    stream = io.BytesIO()
    open_image(source).resize((side, side), Image.Resampling.NEAREST).save(stream, "JPEG", quality=90)
    image = ImageSource(data=stream.getvalue())
    return replace(example, prompt=replace(example.prompt, images=(image,)))


def timed(name: str, num_rows: int, work: Callable[[], object]) -> None:
    start = time.monotonic()
    work()
    seconds = time.monotonic() - start
    print(f"{name}: {1000 * seconds / num_rows:.2f} ms a row, {num_rows / seconds:,.0f} rows/s")


def run(directory: Path, arguments: argparse.Namespace) -> None:
    counts = {"public": arguments.public, "curated": arguments.curated}
    made = {
        name: [enlarged(each, arguments.side) for each in demonstrations(name, source, FAITHFUL, counts[name], seed=5)]
        for name, source in (("public", PUBLIC), ("curated", CURATED))
    }
    write_sharegpt(directory / "public.jsonl", made["public"], directory / "images")
    write_sharegpt(directory / "curated.jsonl", (each.prompt for each in made["curated"]), directory / "images")
    script = {}
    for each in made["curated"]:
        uri = "data:image/jpeg;base64," + b64encode(each.prompt.images[0].data or b"").decode()
        script[hashlib.sha256(uri.encode()).hexdigest()] = each.completion
    (directory / "script.json").write_text(json.dumps(script))

    store = Store.create(directory / "store")
    for name, count in counts.items():
        timed(f"import of {name}", count, lambda name=name: import_file(store, directory / f"{name}.jsonl"))
    with teaching(directory, directory / "script.json") as teacher:
        server = {"base_url": teacher.base_url, "model": "teacher"}
        table = {"teacher": server, "budget": {"price": {"prompt": 0.5, "completion": 3.0}}}
        recipe = build_config(TeachRecipe, table, (), source="benchmark")
        timed("teach", arguments.curated, lambda: run_teach(store, recipe, Part()))
    total = sum(counts.values())
    sizes = [f"alignment={arguments.curated // 10}", "rl=0"]
    timed("split", total, lambda: main(["data", "split", str(store.directory), *sizes]))
    timed("stats", total, lambda: collect(store))
    for name in FORMATS[:-1]:
        timed(f"export, {name}", total, lambda name=name: export(store, directory / "out" / name, [name]))
    main(["data", "plan", str(store.directory), *PAPER, "--processes", str(arguments.processes)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("public", 400), ("curated", 200), ("side", 768), ("processes", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), parse())
