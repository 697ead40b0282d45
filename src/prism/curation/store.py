"""A store of rows: a directory that any number of processes can work on, each on its own shards.

    store.json            format and number of shards
    steps/0001.json …     which steps ran, in order (see `chain`)
    sources/NAME.json     which file the rows of a source come from
    images/ab/ab12….png   each image once
    sets/                 images of evaluation sets, while rows are compared with them
    shards/0003/          rows.sqlite, and the lock of the one process that writes it

A row's shard follows from its id. See docs/data.md.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prism.curation.chain import Chain, StepRun
from prism.curation.images import ImageFolder
from prism.curation.rows import Outcome, Row
from prism.curation.shard import Shard
from prism.errors import ConfigError, DataError
from prism.runtime.atomic import storage_errors, write_json
from prism.runtime.lock import DirectoryLock

FORMAT = 1
NUM_SHARDS = 16
"""By default. It bounds how many processes can share a step, and every shard costs a commit each time."""


@dataclass(frozen=True, slots=True)
class Part:
    """The shards of one process among `count`: those whose number leaves the remainder `index`, from 0."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """`3/16`, as in `$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT`. Raises ConfigError."""
        index, slash, count = text.partition("/")
        if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
            return cls(int(index), int(count))
        raise ConfigError(f"--shard {text}: write it like 3/16, counting from 0/16 to 15/16")

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    def shards(self, num_shards: int) -> range:
        return range(self.index, num_shards, self.count)


class Store:
    """Opens a store. `shards` is how to write; reading needs no lock and is possible meanwhile."""

    def __init__(self, directory: Path | str) -> None:
        """Raises DataError where there is no store."""
        self.directory = Path(directory)
        self.num_shards = _read_num_shards(self.directory)
        self.images = ImageFolder(self.directory / "images")
        self.chain = Chain(self.directory / "steps")

    @classmethod
    def create(cls, directory: Path | str, num_shards: int | None = None) -> "Store":
        """Opens the store, made first where there is none, by default with `NUM_SHARDS`.

        Raises DataError for a directory of something else, ConfigError for a store of another number of shards.
        """
        root = Path(directory)
        if not (root / "store.json").exists():
            if root.exists() and any(root.iterdir()) and not (root / "shards").exists():
                raise DataError(f"{root}: is no store and not empty; name another directory")
            with storage_errors(root):
                # By `shards` one that was begun is known, so it comes first.
                shards = (f"shards/{number:04d}" for number in range(num_shards or NUM_SHARDS))
                for name in (*shards, "steps", "sources", "images"):
                    (root / name).mkdir(parents=True, exist_ok=True)
            write_json(root / "store.json", {"format": FORMAT, "num_shards": num_shards or NUM_SHARDS})
        store = cls(root)
        if num_shards not in (None, store.num_shards):
            raise ConfigError(f"--num-shards {num_shards}: {root} has {store.num_shards} shards, which cannot change")
        return store

    def shard_of(self, row_id: str) -> int:
        return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8], "big") % self.num_shards

    def shard_directory(self, number: int) -> Path:
        return self.directory / "shards" / f"{number:04d}"

    @contextmanager
    def writing(self, part: Part) -> Iterator[dict[int, Shard]]:
        """The part's shards by number, locked until the block ends, and committed even if it ends by an error.

        Raises StorageError where another process has one of them, ConfigError where the part has none.
        """
        numbers = part.shards(self.num_shards)
        if not numbers:
            raise ConfigError(f"--shard {part.index}/{part.count}: {self.directory} has {self.num_shards} shards only")
        with ExitStack() as stack:
            shards: dict[int, Shard] = {}
            for number in numbers:
                lock = DirectoryLock(self.shard_directory(number))
                stack.callback(lock.release)
                shards[number] = self._open(number)
                stack.callback(shards[number].close)
            yield shards

    def rows(self, *, after: str | None = None, before: str | None = None) -> Iterator[Row]:
        """The rows that went through every step: all of them, those up to and with `after`, or those before `before`.

        Raises DataError for a step that has not run.
        """
        yield from self._read(lambda shard: shard.rows(self._boundary(after, before)))

    def outcomes(self, step: str) -> Iterator[Outcome]:
        """What the newest run of a step said of its rows, dropped ones included. Raises DataError."""
        run = self.newest_run(step)
        yield from self._read(lambda shard: shard.outcomes(run.id))

    def newest_run(self, step: str) -> StepRun:
        """Raises DataError for a step that has not run."""
        runs = {run.name: run for run in self.chain.current()}
        if step not in runs:
            raise DataError(f"{self.directory}: step {step!r} has not run; these have: {', '.join(runs) or 'none'}")
        return runs[step]

    def reading(self) -> Iterator[Shard]:
        """One shard after the other, open while it is in hand."""
        for number in range(self.num_shards):
            with closing(self._open(number)) as shard:
                yield shard

    @contextmanager
    def reading_all(self) -> Iterator[list[Shard]]:
        """All shards at once, to be read only."""
        with ExitStack() as stack:
            yield [stack.enter_context(closing(self._open(number))) for number in range(self.num_shards)]

    def _read(self, read: Callable[[Shard], Iterator]) -> Iterator:
        for shard in self.reading():
            yield from read(shard)

    def _boundary(self, after: str | None, before: str | None) -> tuple[tuple[str, str], ...]:
        if after is not None:
            run = self.newest_run(after)
            return (*self.chain.before(after), (run.name, run.id))
        if before is not None:
            self.newest_run(before)
        return self.chain.before(before)

    def _open(self, number: int) -> Shard:
        return Shard(self.shard_directory(number), self.images.root)


def _read_num_shards(directory: Path) -> int:
    try:
        table = json.loads((directory / "store.json").read_text())
        is_known = table["format"] == FORMAT
        num_shards = int(table["num_shards"])
    except OSError:
        raise DataError(f"{directory}: is no store; make one with `prism data import`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory}/store.json is damaged: {error}; restore it from a copy") from error
    if not is_known:
        raise DataError(f"{directory}: is of another format ({table['format']}); read it with the version that made it")
    return num_shards
