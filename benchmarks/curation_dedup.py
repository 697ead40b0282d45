"""How many rows with an image of 448 pixels a side go through deduplication in a second, and in how much memory.

    PYTHONPATH=src:tests python benchmarks/curation_dedup.py [--rows 200000] [--images 2000] [--format JPEG]

The store holds `--rows` rows with questions of their own and `--images` different pictures, so that the disk need not
hold them all; every row's file is decoded all the same. One row in ten is a copy of another, encoded anew and
reworded. Prints rows per second by the clock and by processor time (what one free core would reach), for reading and
hashing and for deciding; the resident memory after each tenth of the rows and at the end; and how many of the copies
were found.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from prism.curation import Outcome, Part, Row, Store, fingerprints, run_whole_step
from prism.curation.dedup import STEP, Dedup
from prism.curation.processes import Processes
from prism.curation.record import encode_row
from prism.curation.running import Work
from prism.records import ImageSource, Prompt

SIDE = 448
NUM_COPIED = 10
"""One row in so many is a copy."""


def picture(number: int) -> Image.Image:
    """Random blots from coarse to fine."""
    noise = np.random.default_rng(number)
    blots = np.zeros((SIDE, SIDE, 3), np.float32)
    for size in (2, 4, 8, 16, 64):
        coarse = Image.fromarray(noise.integers(0, 256, (size, size, 3), np.uint8))
        blots += np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / size**0.7
    return Image.fromarray(((blots - blots.min()) * 255 / np.ptp(blots)).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, quality: int) -> ImageSource:
    buffer = BytesIO()
    image.save(buffer, image_format, quality=quality)
    return ImageSource(data=buffer.getvalue())


def fill(store: Store, num_rows: int, num_images: int, image_format: str) -> set[frozenset[str]]:
    """The pairs that are the same problem."""
    copies: set[frozenset[str]] = set()
    originals, again = [], []
    for number in range(num_images):
        image = picture(number)
        originals.append(store.images.source(store.images.store(encoded(image, image_format, 90))))
        again.append(store.images.source(store.images.store(encoded(image, "JPEG", 70))))
    with store.writing(Part()) as shards:
        for number in range(num_rows):
            is_copy = number % NUM_COPIED == 1
            of = number - 1 if is_copy else number
            words = f"point {of} and line {of % 977} of the drawn polygon"
            question = (
                f"Please find how long is the way between {words}?"
                if is_copy
                else f"How long is the way between {words}?"
            )
            image = (again if is_copy else originals)[of % num_images]
            row = Row(f"made/{number}", Prompt(str(number), question, (image,), answer=str(of % 13)))
            shards[store.shard_of(row.id)].add_row(row.id, "made", number, encode_row(row, store.images))
            if is_copy:
                copies.add(frozenset((row.id, f"made/{of}")))
    return copies


# Every row's image is decoded; also in the processes that import this file.
fingerprints.thumbnail_of = fingerprints.thumbnail_of.__wrapped__


class Watch:
    """Clock and processor time at each change of what is done, and the resident memory whenever another tenth of the
    rows is hashed."""

    def __init__(self, num_rows: int) -> None:
        self.memory: list[float] = []
        self.times: list[tuple[float, float]] = []
        self._every = max(1, num_rows // 10)

    def mark(self) -> None:
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        self.times.append((time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in used)))

    def execute(self, work: Work, rows: Iterator[Row]) -> Iterator[Outcome]:
        self.mark()
        for number, outcome in enumerate(Processes()(work, rows), start=1):
            yield outcome
            if number % self._every == 0:
                self.memory.append(resident_mebibytes())
        self.mark()


def resident_mebibytes() -> float:
    """Of this process and those it started."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    from machine import describe_machine  # loads torch, which the processes that import this file need not

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--format", choices=("JPEG", "PNG", "WEBP"), default="JPEG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = Store.create(Path(directory) / "store")
        copies = fill(store, arguments.rows, arguments.images, arguments.format)
        watch = Watch(arguments.rows)
        run_whole_step(store, Dedup(store.images.root), execute=watch.execute)
        watch.mark()
        watch.memory.append(resident_mebibytes())
        dropped = [outcome for outcome in store.outcomes(STEP) if outcome.status == "dropped"]
    pairs = {frozenset((outcome.row_id, outcome.findings["duplicate_of"])) for outcome in dropped}
    print(describe_machine(), f"load {os.getloadavg()[0]:.0f}, {arguments.format}")
    hashing, deciding = zip(watch.times, watch.times[1:], strict=False)
    whole = watch.times[0], watch.times[-1]
    for name, (start, end) in (("reading and hashing", hashing), ("deciding", deciding), ("all", whole)):
        clock, processors = (arguments.rows / (after - before) for before, after in zip(start, end, strict=True))
        print(f"{name}: {clock:,.0f} rows/s by the clock, {processors:,.0f} per second of processor time")
    print("resident MiB:", ", ".join(f"{value:.0f}" for value in watch.memory))
    print(f"copies found: {len(pairs & copies)} of {len(copies)}; others dropped: {len(pairs - copies)}")


if __name__ == "__main__":
    main()
