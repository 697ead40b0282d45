"""Tensors in safetensors files, as a storage for `torch.distributed.checkpoint`, whose own ones keep a pickle.

Every process writes what it holds of the tensors, and of what several hold alike each writes some. The first component
of a tensor's name is its part: a process has one file, `<part>-<process>.safetensors`, for each. Reading, a process
takes from all files what it holds now; how many there were, and how tensors were cut, does not matter.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from prism.runtime.atomic import storage_errors, sync_tree
from prism.runtime.distributed import num_processes
from prism.runtime.hashing import file_sha256
from prism.runtime.launch import process_index
from prism.runtime.state_codec import storable

Mark = dict[str, Any]
"""Size and sha256 of a file."""


@dataclass(frozen=True, slots=True)
class Written:
    """All files by name, whoever wrote them, and the index that `read_tensors` needs, which is JSON-able."""

    files: dict[str, Mark]
    index: dict[str, Any]


def write_tensors(tensors: Mapping[str, Tensor], directory: Path, *, shown_as: Path) -> Written | None:
    """Write `tensors`, whole or sharded, into `directory`, to the disk. Every process has to call it; the first gets
    to know what was written.

    StorageError, in every process, where one cannot write; it names the directory as `shown_as`.
    """
    writer = _Writer(directory, shown_as)
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _first_failure():
        save(dict(tensors), storage_writer=writer, planner=planner, no_dist=num_processes() == 1)
    return writer.written


def read_tensors(targets: Mapping[str, Tensor], directory: Path, index: Mapping[str, Any]) -> None:
    """Fill `targets`, whole or sharded, all or some of the tensors in `directory`. Every process has to call it."""
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _first_failure():
        load(dict(targets), storage_reader=_Reader(directory, index), planner=planner, no_dist=num_processes() == 1)


def described(index: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The tensors of one part by their names in it, without content: on the meta device."""
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta")
        for name, entry in index.items()
        if name.startswith(prefix)
    }


def part_of(name: str) -> str:
    return name.partition("/")[0]


class _Writer(StorageWriter):
    def __init__(self, directory: Path, shown_as: Path) -> None:
        self._directory, self._shown_as = directory, shown_as
        self.written: Written | None = None

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing to forget: there is one writer for each checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The directory is there already."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        parts: dict[str, list[WriteItem]] = {}
        for item in plan.items:
            parts.setdefault(part_of(item.index.fqn), []).append(item)
        with storage_errors(self._shown_as):
            results = [result for part, items in parts.items() for result in self._write(part, items, planner)]
        return _done(results)

    def _write(self, part: str, items: list[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        file = self._directory / f"{part}-{process_index():05d}.safetensors"
        held = {item.index.fqn: planner.resolve_data(item) for item in items}
        save_file(storable({name: data for name, data in held.items() if isinstance(data, Tensor)}), file)
        # By the process that wrote: on a network's disk nobody else can see to it.
        sync_tree(file)
        mark = {"size": file.stat().st_size, "sha256": file_sha256(file)}
        return [WriteResult(item.index, mark["size"], (file.name, mark)) for item in items]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Only in the first process, once all have written."""
        stored = {result.index: result.storage_data for part in results for result in part}
        names = {index: name for index, (name, _) in stored.items()}
        self.written = Written(dict(stored.values()), _to_json(metadata, names))


class _Reader(StorageReader):
    def __init__(self, directory: Path, index: Mapping[str, Any]) -> None:
        self._directory, self._metadata = directory, _from_json(index)

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing to forget: there is one reader for each checkpoint."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The metadata are this reader's own."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False

    @torch.no_grad()
    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        files: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            files.setdefault(self._metadata.storage_data[item.storage_index], []).append(item)
        for name, items in files.items():
            with safe_open(self._directory / name, framework="pt") as file:
                for item in items:
                    _copy(file, item, planner)
        return _done(None)


def _copy(file: Any, item: ReadItem, planner: LoadPlanner) -> None:
    target = planner.resolve_tensor(item)
    cuts = zip(item.storage_offsets, item.lengths, strict=True)
    slices = tuple(slice(start, start + length) for start, length in cuts)
    # Mapped from the file: what is not copied is not read.
    target.copy_(file.get_tensor(item.storage_index.fqn)[slices])
    planner.commit_tensor(item, target)


def _to_json(metadata: Metadata, files: Mapping[MetadataIndex, str]) -> dict[str, Any]:
    index = {}
    for name, tensor in metadata.state_dict_metadata.items():
        assert isinstance(tensor, TensorStorageMetadata)
        chunks = [
            {"offset": [*chunk.offsets], "shape": [*chunk.sizes], "file": files[MetadataIndex(name, chunk.offsets)]}
            for chunk in tensor.chunks
        ]
        dtype = str(tensor.properties.dtype).removeprefix("torch.")
        index[name] = {"dtype": dtype, "shape": [*tensor.size], "chunks": chunks}
    return index


def _from_json(index: Mapping[str, Any]) -> Metadata:
    tensors, files = {}, {}
    for name, entry in index.items():
        chunks = []
        for chunk in entry["chunks"]:
            chunks.append(ChunkStorageMetadata(torch.Size(chunk["offset"]), torch.Size(chunk["shape"])))
            files[MetadataIndex(name, chunks[-1].offsets)] = chunk["file"]
        properties = TensorProperties(dtype=getattr(torch, entry["dtype"]))
        tensors[name] = TensorStorageMetadata(properties, torch.Size(entry["shape"]), chunks)
    return Metadata(tensors, storage_data=files)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


@contextmanager
def _first_failure() -> Iterator[None]:
    """Every process that takes part fails as the first one did that failed."""
    try:
        with warnings.catch_warnings():
            # That one process works alone.
            warnings.filterwarnings("ignore", message="torch.distributed is")
            yield
    except CheckpointException as error:
        raise error.failures[min(error.failures)][0] from error
