"""The rows of a benchmark: from files on this machine, or from the Hugging Face hub."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from prism.data.rejects import RowError
from prism.data.row_files import SUFFIXES, open_rows
from prism.errors import ConfigError, DataError
from prism.evals.benchmarks.benchmark import Benchmark
from prism.runtime.hashing import config_sha256, path_sha256

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}.*")
_BATCH_ROWS = 64
"""Rows of a hub data set held in memory at a time."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """`file` and `number`, which counts from 1, are for error messages (`RowError.at`)."""

    file: Path
    number: int
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Rows in a fixed order; each iteration reads them anew, a few at a time.

    Relative image paths start at `image_root`. `sha256` stands for the content in the identity of a run.
    Images that a hub data set embeds stay the encoded bytes they are, as `{"bytes", "path"}`.
    """

    name: str
    image_root: Path
    sha256: str
    read: Callable[[], Iterator[SourceRow]]

    def __iter__(self) -> Iterator[SourceRow]:
        return self.read()


def load_rows(
    path: Path | str | None, *, hub_id: str, hub_configs: Sequence[str], hub_split: str, revision: str | None = None
) -> Source:
    """The rows of `path`, a data file or a directory of them, or of the hub's data set where `path` is None.

    `hub_configs` are the data set's configurations, one after the other; empty for its only one. A directory
    may be a copy of the hub's repository: they and `hub_split` then choose among its files. Raises DataError
    where there are no rows to read and ConfigError where `datasets` is missing; reading raises DataError for
    a row that is not one, since a benchmark with rows left out is another one.
    """
    if path is None:
        return _hub_source(hub_id, hub_configs, hub_split, revision)
    return _local_source(Path(path), hub_configs, hub_split)


def load_benchmark(benchmark: Benchmark, path: Path | str | None, revision: str | None = None) -> Source:
    """As `load_rows`, of a benchmark where it publishes itself."""
    return load_rows(
        path,
        hub_id=benchmark.hub_id,
        hub_configs=benchmark.hub_configs,
        hub_split=benchmark.hub_split,
        revision=revision,
    )


def _local_source(path: Path, configs: Sequence[str], split: str) -> Source:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or directory; name the benchmark's data")
    files = _data_files(path, configs, split) if path.is_dir() else [path]
    for file in files:
        open_rows(file)  # an unusable file is told before any model is asked
    return Source(
        name=str(path),
        image_root=path if path.is_dir() else path.parent,
        sha256=path_sha256(path),
        read=lambda: _file_rows(files),
    )


def _data_files(directory: Path, configs: Sequence[str], split: str) -> list[Path]:
    """Those in the folders of the configurations, in their order; of the whole directory if it has none of these."""
    folders = [directory / config for config in configs if (directory / config).is_dir()]
    return [file for folder in folders or [directory] for file in _files_of_split(folder, split)]


def _files_of_split(directory: Path, split: str) -> list[Path]:
    """Those of one kind, parquet before JSON lines before JSON, and of one split where names tell splits apart."""
    found = sorted(path for path in directory.rglob("*") if path.is_file() and not _is_hidden(path, directory))
    kinds = (".parquet", ".jsonl", ".json")
    assert set(kinds) == set(SUFFIXES)
    files = next((of_kind for kind in kinds if (of_kind := [f for f in found if f.suffix.lower() == kind])), [])
    if not files:
        raise DataError(f"{directory}: holds no data file ({', '.join(kinds)})")
    of_split = [file for file in files if _is_of_split(file.relative_to(directory), split)]
    others = sorted({shard[1] for file in files if (shard := _SHARD.fullmatch(file.stem))})
    if not of_split and others:
        raise DataError(f"{directory}: holds {', '.join(others)}, but no files of the split {split!r}")
    return of_split or files


def _is_hidden(path: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(directory).parts)


def _is_of_split(file: Path, split: str) -> bool:
    """`test.parquet`, `test-00000-of-00001.parquet` and `test/0000.parquet` are of the split `test`."""
    return file.stem == split or file.stem.startswith(f"{split}-") or split in file.parts[:-1]


def _file_rows(files: Sequence[Path]) -> Iterator[SourceRow]:
    for file in files:
        for raw in open_rows(file).rows:
            if isinstance(raw.value, RowError):
                raise raw.value.at(file, raw.number)
            if not isinstance(raw.value, Mapping):
                raise DataError(f"{file}, row {raw.number}: not an object with fields but {type(raw.value).__name__}")
            yield SourceRow(file, raw.number, raw.value)


def _hub_source(hub_id: str, configs: Sequence[str], split: str, revision: str | None) -> Source:
    datasets = [_load_from_hub(hub_id, config, split, revision) for config in configs or (None,)]
    return Source(
        name=hub_id,
        image_root=Path(datasets[0].cache_files[0]["filename"]).parent,
        # The fingerprint follows from the repository's revision, not from when or where it was downloaded.
        sha256=config_sha256({"hub_id": hub_id, "data": [dataset._fingerprint for dataset in datasets]}),
        read=lambda: chain.from_iterable(_hub_rows(hub_id, dataset) for dataset in datasets),
    )


def _load_from_hub(hub_id: str, config: str | None, split: str, revision: str | None) -> Any:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise ConfigError(
            f'{hub_id} is to be read from the hub, which needs datasets: pip install -e ".[hub]" in PRISM\'s '
            "directory, or download it and name its directory"
        ) from None
    try:
        return datasets.load_dataset(hub_id, config, split=split, revision=revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(
            f"{hub_id}: cannot be read from the hub ({_first_line(error)}); download it and name its directory"
        ) from error


def _hub_rows(hub_id: str, dataset: Any) -> Iterator[SourceRow]:
    """As Arrow holds them: the library would otherwise decode every image and lose the encoded file."""
    number = 0
    for batch in dataset.with_format("arrow").iter(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield SourceRow(Path(hub_id), number, row)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
