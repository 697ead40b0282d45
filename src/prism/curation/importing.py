"""Data files into a store: every row becomes a row of the store or a counted reject.

What a row holds is not trusted: images must decode within limits and lie below the image directory, and texts that a
browser would run, or that no program expects, are refused.
"""

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
from prism.data.readers import ReadRow, check_images, read_rows
from prism.data.rejects import RowError
from prism.data.remote_images import ImageFetcher
from prism.errors import ConfigError, DataError
from prism.runtime.interrupt import Interrupted, InterruptFlag

_COMMIT_EVERY_S = 5.0
_LONGEST_DETAIL = 500
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """`columns` renames: what the reader calls a column, and what the file calls it. Without a fetcher nothing is
    fetched and a row with a remote image is rejected."""

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
    """Adds the file's rows of this part of the store; returns how many are new. Rows imported before are passed over.

    `source`, by default the file's name without its ending, begins the ids of its rows. Raises DataError for a file
    that is wrong as a whole, and where the source was imported from a file that had other rows.
    """
    source = file.stem if source is None else source
    if not _SOURCE.fullmatch(source):
        raise ConfigError(f"--source {source}: use up to 100 letters, digits, dots, dashes and underscores")
    with store.writing(part or Part()) as shards, InterruptFlag() as flag:
        importer = _Importer(store, shards, source, settings or ImportSettings(), file)
        count = importer.run(flag)
        if flag.signal_number is not None:
            raise Interrupted(flag.signal_number, f"import of {file}: stopped; give the same command again to go on")
    return count


class _Importer:
    def __init__(
        self, store: Store, shards: dict[int, Shard], source: str, settings: ImportSettings, file: Path
    ) -> None:
        self._store, self._shards, self._source, self._file = store, shards, source, file
        self._settings = settings
        self._image_root = Path(os.path.abspath(settings.image_root or file.parent))

    def run(self, flag: InterruptFlag) -> int:
        count = num_read = 0
        committed = start = time.monotonic()
        rows = read_rows(self._file, image_root=self._image_root, prepare=self._prepare, is_wanted=self._is_wanted)
        for row in rows:
            num_read += 1
            count += self._add(row)
            if time.monotonic() - committed > _COMMIT_EVERY_S:
                self._commit()
                committed = time.monotonic()
            if flag.signal_number is not None:
                break
        self._commit()
        if count:  # else all was there already, and took no time to speak of
            note_timing(self._store.directory, import_key(self._source), num_read, time.monotonic() - start)
        return count

    def _commit(self) -> None:
        os.sync()  # no row may outlive its images when the power goes
        for shard in self._shards.values():
            shard.commit()

    def _is_wanted(self, number: int) -> bool:
        """Whether to read the row: one whose images were fetched is not fetched again, only to be compared."""
        if self._settings.fetcher is None:
            return True
        return not any(shard.has_number(self._source, number) for shard in self._shards.values())

    def _prepare(self, row: fields.Row) -> fields.Row:
        names = {theirs: ours for ours, theirs in self._settings.columns.items()}
        renamed = {names.get(key, key): value for key, value in row.items()}
        return self._settings.fetcher.localise(renamed) if self._settings.fetcher else renamed

    def _add(self, read: ReadRow) -> bool:
        if isinstance(read.content, RowError):
            # It may have no id, so its number decides which shard, and so which process, counts it.
            shard = self._shards.get(self._store.shard_of(f"{self._source}#{read.number}"))
            return shard is not None and self._reject(shard, read.number, read.content)
        row = _row(self._source, read.content)
        shard = self._shards.get(self._store.shard_of(row.id))
        if shard is None:
            return False
        known = shard.find_row(row.id)
        try:
            if known is not None and known[:2] != (self._source, read.number):
                raise RowError("id", "is that of an earlier row", row.prompt.id)
            if known is None:
                self._check(row)
            record = encode_row(row, self._store.images)
        except RowError as error:
            return self._reject(shard, read.number, error)
        if known is None:
            shard.add_row(row.id, self._source, read.number, record)
        elif known[2] != record:
            raise DataError(
                f"{self._file}, row {read.number}: is not what was imported as {row.id}; name another --source"
            )
        return known is None

    def _check(self, row: Row) -> None:
        """Raises RowError."""
        prompt = row.prompt
        for name in ("question", "system", "id", "answer", "kind"):
            check_text(getattr(prompt, name) or "", name)
        for name in ("choices", "equivalents"):
            for text in getattr(prompt, name):
                check_text(text, name)
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
        return False


def _row(source: str, content: ParsedRow | ParsedPair) -> Row:
    if isinstance(content, ParsedRow):
        prompt = content.prompt
        return Row(f"{source}/{prompt.id}", prompt, content.completion, content.loss_spans)
    metadata = {**content.prompt.metadata, STUDENT: content.student}
    return Row(f"{source}/{content.prompt.id}", replace(content.prompt, metadata=metadata), content.teacher)


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
