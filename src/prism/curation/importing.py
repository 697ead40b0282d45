"""Data files into a store: every row becomes a row of the store or a counted reject.

What a row holds is not trusted: images must decode within limits and lie below the image directory, and texts that a
browser would run, or that no program expects, are refused.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from prism.curation.record import encode_row
from prism.curation.rows import STUDENT, Row
from prism.curation.shard import Shard
from prism.curation.store import Part, Store
from prism.curation.texts import check_response, check_text
from prism.curation.timing import import_key, note_timing
from prism.data.formats import fields
from prism.data.formats.parsed import ParsedRow
from prism.data.formats.warmup_pairs import ParsedPair
from prism.data.readers import ReadRow, check_images, own_id, read_rows
from prism.data.rejects import RowError
from prism.data.remote_images import ImageFetcher
from prism.errors import ConfigError, DataError
from prism.runtime.atomic import write_new
from prism.runtime.hashing import file_sha256
from prism.runtime.interrupt import Interrupted, InterruptFlag

_COMMIT_EVERY_S = 5.0
_LONGEST_DETAIL = 500
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """`columns` renames: what the reader calls a column, and what the file calls it; the file's own column of that
    name, if any, is left out. Without a fetcher nothing is fetched and a row with a remote image is rejected."""

    image_root: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    fetcher: ImageFetcher | None = None


def import_file(
    store: Store,
    file: Path,
    *,
    source: str | None = None,
    settings: ImportSettings | None = None,
    part: Part | None = None,
) -> int:
    """Adds the file's rows of this part of the store; returns how many are new.

    Rows imported before are passed over, rejected ones are tried again. `source`, by default the file's name without
    its ending, begins the ids of its rows. Raises DataError for a file that is wrong as a whole, and where the source
    was imported from another file or by other columns.
    """
    source = file.stem if source is None else source
    if not _SOURCE.fullmatch(source):
        raise ConfigError(f"--source {source}: use up to 100 letters, digits, dots, dashes and underscores")
    settings, part = settings or ImportSettings(), part or Part()
    with store.writing(part) as shards, store.reading_all() as readable, InterruptFlag() as flag:
        _claim(store, source, file, settings)
        importer = _Importer(store, shards, readable, source, settings, file)
        count = importer.run(flag)
        if flag.signal_number is not None:
            raise Interrupted(flag.signal_number, f"import of {file}: stopped; give the same command again to go on")
    return count


def _claim(store: Store, source: str, file: Path, settings: ImportSettings) -> None:
    """Makes this file the one of the source, for good. Raises DataError where it has another one."""
    if not file.is_file():
        return  # reading it says more
    content = {"sha256": file_sha256(file), "columns": dict(settings.columns)}
    path = store.directory / "sources" / f"{source}.json"
    if not write_new(path, json.dumps(content).encode()) and json.loads(path.read_bytes()) != content:
        raise DataError(
            f"{file}: is not the file that was imported as {source!r}, or not by these columns; name another --source"
        )


class _Importer:
    def __init__(
        self,
        store: Store,
        shards: dict[int, Shard],
        readable: list[Shard],
        source: str,
        settings: ImportSettings,
        file: Path,
    ) -> None:
        self._store, self._shards, self._source, self._file = store, shards, source, file
        self._readable = readable
        self._settings = settings
        self._image_root = Path(os.path.abspath(settings.image_root or file.parent))
        self._our_names = {theirs: ours for ours, theirs in settings.columns.items()}
        self._shard_by_id: Shard | None = None
        """Of the row in hand, where its id was looked at before its images were fetched."""
        self._num_tried = 0
        """Rows of this process's shards, as far as they are not there."""

    def run(self, flag: InterruptFlag) -> int:
        count = 0
        committed = start = time.monotonic()
        rows = read_rows(self._file, image_root=self._image_root, prepare=self._prepare, is_wanted=self._is_wanted)
        for row in rows:
            count += self._add(row)
            if time.monotonic() - committed > _COMMIT_EVERY_S:
                self._commit()
                committed = time.monotonic()
            if flag.signal_number is not None:
                break
        self._commit()
        note_timing(self._store.directory, import_key(self._source), self._num_tried, time.monotonic() - start)
        return count

    def _commit(self) -> None:
        os.sync()  # no row may outlive its images when the power goes
        for shard in self._shards.values():
            shard.commit()

    def _is_wanted(self, number: int) -> bool:
        """Not what is in the store already, whichever process put it there."""
        return not any(shard.has_number(self._source, number) for shard in self._readable)

    def _prepare(self, number: int, row: fields.Row) -> fields.Row | None:
        """None for a row of another process's shard, as far as can be told before its images are fetched."""
        names, renamed = self._our_names, self._settings.columns
        row = {names.get(key, key): value for key, value in row.items() if key in names or key not in renamed}
        self._shard_by_id = None
        if self._settings.fetcher is None:
            return row
        row_id = own_id(row)
        if row_id is not None:
            self._shard_by_id = self._shards.get(self._store.shard_of(self._row_id(row_id)))
            if self._shard_by_id is None:
                self._forget_reject(number)
                return None
        elif len(self._shards) < self._store.num_shards:
            raise RowError("id", "is missing: with --shard, images are fetched for rows that bring an id along")
        return self._settings.fetcher.localise(row)

    def _row_id(self, own: str) -> str:
        return f"{self._source}/{own}"

    def _add(self, read: ReadRow) -> bool:
        if isinstance(read.content, RowError):
            shard = self._shard_by_id or self._shard_by_number(read.number)
            if shard is not self._shard_by_number(read.number):
                self._forget_reject(read.number)
            return shard is not None and self._reject(shard, read.number, read.content)
        self._forget_reject(read.number)
        row = self._row(read.content)
        shard = self._shards.get(self._store.shard_of(row.id))
        if shard is None:
            return False
        try:
            if shard.has_row(row.id):
                raise RowError("id", "is that of an earlier row", row.prompt.id)
            self._check(row)
            record = encode_row(row, self._store.images)
        except RowError as error:
            return self._reject(shard, read.number, error)
        shard.remove_reject(self._source, read.number)
        shard.add_row(row.id, self._source, read.number, record)
        self._num_tried += 1
        return True

    def _shard_by_number(self, number: int) -> Shard | None:
        """Where a row is counted that cannot be read: it may have no id."""
        return self._shards.get(self._store.shard_of(f"{self._source}#{number}"))

    def _forget_reject(self, number: int) -> None:
        """That the row could not be read before: what becomes of it now is told where its id belongs."""
        shard = self._shard_by_number(number)
        if shard is not None:
            shard.remove_reject(self._source, number)

    def _row(self, content: ParsedRow | ParsedPair) -> Row:
        row_id = self._row_id(content.prompt.id)
        if isinstance(content, ParsedRow):
            return Row(row_id, content.prompt, content.completion, content.loss_spans)
        metadata = {**content.prompt.metadata, STUDENT: content.student}
        return Row(row_id, replace(content.prompt, metadata=metadata), content.teacher)

    def _check(self, row: Row) -> None:
        """Raises RowError."""
        prompt = row.prompt
        for name in ("choices", "equivalents"):  # first, since the question may have the choices in it
            for text in getattr(prompt, name):
                check_text(text, name)
        for name in ("question", "system", "id", "answer", "kind"):
            check_text(getattr(prompt, name) or "", name)
        if row.completion is not None:
            check_response(row.completion, "completion")
        student = prompt.metadata.get(STUDENT)
        if isinstance(student, str) and student.strip():  # a row with such metadata is exported as a pair
            check_response(student, STUDENT)
        for image in prompt.images:
            if image.path is not None and not Path(os.path.abspath(image.path)).is_relative_to(self._image_root):
                raise RowError("images", "points outside the image directory", str(image.path)[:200])
        check_images(prompt)

    def _reject(self, shard: Shard, number: int, error: RowError) -> bool:
        detail = None if error.detail is None else error.detail[:_LONGEST_DETAIL]
        shard.add_reject(self._source, number, error.field, error.reason, detail)
        self._num_tried += 1
        return False


def import_files(
    store: Store, files: list[Path], *, source: str | None, settings: ImportSettings, part: Part
) -> Iterator[tuple[Path, int]]:
    """Each file with its number of new rows. Raises ConfigError for one source of several files."""
    if source is not None and len(files) > 1:
        raise ConfigError("--source names the rows of one file; leave it out, and each file's name is used")
    stems = [file.stem for file in files]
    if len(set(stems)) < len(stems):
        raise ConfigError("two files have the same name; import them one by one, each with a --source")
    for file in files:
        yield file, import_file(store, file, source=source, settings=settings, part=part)
