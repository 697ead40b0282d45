"""The rows of a data file, checked by all processes together.

Every process reads all rows and checks a part of them; which are rejected, and why, all are told. What decoding the
images told is kept under the file's hash: a run that is started again, or its next stage, decodes none of them.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prism.data.decoding import Decoded, Remembered, decode, stamps_of
from prism.data.readers import Outcome, Record, prompt_of
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.parallel import in_threads
from prism.records import ImageSource
from prism.runtime.atomic import storage_errors, write_text
from prism.runtime.distributed import gather, is_own_turn
from prism.runtime.launch import is_first

_Record = TypeVar("_Record", bound=Record)

ROWS_AT_ONCE = 16
"""Rows in turn for one process: neighbours lie in one row group of a parquet file, which is read once for them."""

Check = Callable[[Record, Decoded], None]
"""Raises RowError for a record, of whose images this is known, that cannot be used."""


class ImageMemory:
    """What is known of the images of a file's rows: lines of a row's number and its JSON in the file `path`.

    Without a path nothing is remembered. Of a file that is damaged nothing is known: images are decoded again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        # As text, which is smaller than objects by far.
        self._known = {} if path is None else _read_lines(path)

    def recall(self, number: int, images: Sequence[ImageSource]) -> Remembered:
        """What is known of the images of a row, else what decoding them tells now."""
        stamps, known = stamps_of(images), self._parse(number)
        return known if known is not None and known.stamps == stamps else Remembered(stamps, decode(images))

    def _parse(self, number: int) -> Remembered | None:
        try:
            return Remembered.from_json(self._known[number])
        except (LookupError, ValueError, TypeError):
            return None  # not known, or damaged

    def learn(self, rows: Mapping[int, Remembered]) -> None:
        """Takes over what this process and the others found. The first one writes."""
        if self._path is None:
            return
        found = ((number, row.to_json()) for number, row in rows.items())
        new = gather([(number, text) for number, text in found if text is not None and text != self._known.get(number)])
        self._known |= dict(new)
        if new and is_first():
            with storage_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, "".join(f"{number} {text}\n" for number, text in sorted(self._known.items())))


def _read_lines(path: Path) -> dict[int, str]:
    try:
        with path.open(encoding="utf-8") as file:
            parts = (line.partition(" ") for line in file)
            return {int(number): text.rstrip("\n") for number, _, text in parts}
    except (OSError, ValueError):
        return {}


@dataclass(frozen=True, slots=True)
class _Verdict:
    number: int
    images: Remembered
    error: RowError | None


@dataclass(frozen=True, slots=True)
class SharedCheck:
    """Checks the rows of one file with `check`; `memory` is that of this file."""

    check: Check
    memory: ImageMemory

    def __call__(self, outcomes: Iterator[Outcome[_Record]]) -> Generator[Outcome[_Record]]:
        """All rows in their order, the same in every process. An error of `outcomes`, as of a file that breaks off, is
        raised after the rows before it."""
        rows: list[Outcome[_Record]] = []
        verdicts: list[_Verdict] = []
        damage = None
        try:
            with closing(in_threads(self._verdict, _own_part(outcomes, rows))) as found:
                verdicts.extend(found)
        except DataError as error:
            damage = error
        self.memory.learn({verdict.number: verdict.images for verdict in verdicts})
        rejected = dict(gather([(verdict.number, verdict.error) for verdict in verdicts if verdict.error]))
        for row in rows:
            yield Outcome(row.number, rejected.get(row.number, row.content))
        if damage is not None:
            raise damage

    def _verdict(self, row: tuple[int, Record]) -> _Verdict:
        number, record = row
        images = self.memory.recall(number, prompt_of(record).images)
        try:
            self.check(record, images.decoded)
        except RowError as error:
            return _Verdict(number, images, error)
        return _Verdict(number, images, None)


def _own_part(outcomes: Iterator[Outcome[_Record]], seen: list[Outcome[_Record]]) -> Iterator[tuple[int, Record]]:
    """The usable rows that this process checks, with their numbers; all rows go to `seen`."""
    for place, row in enumerate(outcomes):
        seen.append(row)
        if is_own_turn(place // ROWS_AT_ONCE) and not isinstance(row.content, RowError):
            yield row.number, row.content
