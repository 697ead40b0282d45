"""From a split store to the files that trainers read: this project, verl, TRL, LLaMA-Factory, Hugging Face.

OUT/data.toml                     the [data] table of a recipe that trains on these files
OUT/sharegpt/SPLIT.jsonl          with images/, and dataset_info.json as LLaMA-Factory wants it
OUT/verl/SPLIT.parquet            images inside
OUT/trl/SPLIT.parquet             images inside, typed parts
OUT/imagefolder/SPLIT/            metadata.jsonl and images/
OUT/pairs/pairs.jsonl             warm-up pairs, with images/
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from prism.curation.demonstration import demonstration
from prism.curation.funnel import count_step
from prism.curation.rows import STUDENT, Row
from prism.curation.split import SPLITS, STEP, SplitName
from prism.curation.store import Store
from prism.data.readers import ResponsePair
from prism.data.writers import write_image_folder, write_pairs, write_sharegpt, write_trl, write_verl_parquet
from prism.errors import ConfigError, DataError
from prism.records import IMAGE_MARK, Example, Prompt
from prism.rewards import parse_response
from prism.runtime.atomic import atomic_directory

Record = Prompt | Example
_Write = Callable[[Path, SplitName, Iterable[Record]], tuple[Path, int]]


def export(store: Store, out: Path, formats: Sequence[str] = ()) -> dict[str, int]:
    """Writes every split in each of `formats` (all by default) to the new directory `out`; rows by relative path.

    Reserved splits are written best first. `out` appears when it is complete. Raises ConfigError where it exists,
    DataError where a step has not looked at all rows yet.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; name a directory that does not")
    unknown = sorted({*formats} - {*FORMATS})
    if unknown:
        raise ConfigError(f"--format {unknown[0]}: there are {', '.join(FORMATS)}")
    _require_complete(store)
    written: dict[str, int] = {}
    with atomic_directory(out) as directory:
        for name in formats or FORMATS:
            written |= _export_pairs(store, directory) if name == PAIRS else _export_splits(store, directory, name)
        if not written:
            raise DataError(f"{store.directory}: no row went through all steps, so there is nothing to export")
        (directory / "data.toml").write_text(_data_table(out, written), encoding="utf-8")
    return written


def _require_complete(store: Store) -> None:
    store.newest_run(STEP)
    for run in store.chain.current():
        pending = count_step(store, run.name).num_pending
        if pending:
            raise DataError(f"{store.directory}: {run.name} has {pending:,} rows still to do; run it first")


def _export_splits(store: Store, directory: Path, name: str) -> dict[str, int]:
    written: dict[str, int] = {}
    for split in SPLITS:
        rows = split_rows(store, split)
        first = next(rows, None)
        if first is None:
            continue
        records = (record for row in chain([first], rows) if (record := _record(row, split)) is not None)
        path, count = _WRITERS[name](directory / name, split, records)
        written[path.relative_to(directory).as_posix()] = count
    if name == "sharegpt" and written:
        _write_dataset_info(directory / name)
    return written


def split_rows(store: Store, split: SplitName) -> Iterator[Row]:
    """SFT's rows in the order of the store, which is far too many to sort; reserved ones best first."""
    rows = (row for row in store.rows() if row.findings.get(STEP, {}).get("split") == split)
    if split == "sft":
        yield from rows
    else:
        yield from sorted(rows, key=lambda row: row.findings[STEP]["place"])


def _record(row: Row, split: SplitName) -> Record | None:
    prompt = exported_prompt(row)
    if split == "rl":
        return prompt
    shown = demonstration(row)
    return None if shown is None else Example(prompt, shown.text, shown.loss_spans)


def exported_prompt(row: Row) -> Prompt:
    """Under the row's id, with an explicit mark for every image, which other programs count, and with what curation
    has found in its metadata."""
    prompt = row.prompt
    marks = "" if IMAGE_MARK in prompt.question else IMAGE_MARK * len(prompt.images)
    found = {
        "score": row.findings.get(STEP, {}).get("score"),
        "pass_rate": row.findings.get("difficulty", {}).get("pass_rate"),
        "teacher": row.findings.get("teach", {}).get("model"),
    }
    curation = {key: value for key, value in found.items() if value is not None}
    metadata = {**prompt.metadata, **({"curation": curation} if curation else {})}
    return replace(prompt, id=row.id, question=marks + prompt.question, metadata=metadata)


def _write_sharegpt(folder: Path, split: SplitName, records: Iterable[Record]) -> tuple[Path, int]:
    path = folder / f"{split}.jsonl"
    return path, write_sharegpt(path, records, folder / "images")


def _write_verl(folder: Path, split: SplitName, records: Iterable[Record]) -> tuple[Path, int]:
    path = folder / f"{split}.parquet"
    # Alignment's demonstrations are valid, so that their parts can have columns of their own.
    return path, write_verl_parquet(path, records, parse=parse_response if split == "alignment" else None)


def _write_trl(folder: Path, split: SplitName, records: Iterable[Record]) -> tuple[Path, int]:
    path = folder / f"{split}.parquet"
    return path, write_trl(path, records)


def _write_image_folder(folder: Path, split: SplitName, records: Iterable[Record]) -> tuple[Path, int]:
    return folder / split / "metadata.jsonl", write_image_folder(folder / split, records)


def _export_pairs(store: Store, directory: Path) -> dict[str, int]:
    """Nothing where no row has a student's response, from `pairs` or from the file it was imported from."""
    pairs = (pair for row in split_rows(store, "alignment") if (pair := _pair(row)) is not None)
    first = next(pairs, None)
    if first is None:
        return {}
    path = directory / PAIRS / "pairs.jsonl"
    return {f"{PAIRS}/pairs.jsonl": write_pairs(path, chain([first], pairs), path.parent / "images")}


def _pair(row: Row) -> ResponsePair | None:
    student = row.findings.get(PAIRS, {}).get("student") or row.prompt.metadata.get(STUDENT)
    shown = demonstration(row)
    if shown is None or not isinstance(student, str):
        return None
    pair = ResponsePair(exported_prompt(row), parse_response(shown.text), parse_response(student))
    return pair if pair.teacher.is_valid and pair.student.is_valid else None


PAIRS = "pairs"
_WRITERS: Mapping[str, _Write] = {
    "sharegpt": _write_sharegpt,
    "verl": _write_verl,
    "trl": _write_trl,
    "imagefolder": _write_image_folder,
}
FORMATS = (*_WRITERS, PAIRS)


def _write_dataset_info(folder: Path) -> None:
    """How LLaMA-Factory finds the splits that have responses: `dataset_dir` is the folder, `dataset` their names."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images", "system": "system"}
    info = {
        f"prism_{split}": {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": columns,
            "tags": tags,
        }
        for split in SPLITS
        if split != "rl" and (folder / f"{split}.jsonl").exists()
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _data_table(out: Path, written: Mapping[str, int]) -> str:
    """Of each split the first file there is: images apart for SFT, where they are many, and inside for the others."""
    files = {
        "sft": ("sharegpt/sft.jsonl", "imagefolder/sft/metadata.jsonl", "trl/sft.parquet", "verl/sft.parquet"),
        **{
            split: (
                f"verl/{split}.parquet",
                f"trl/{split}.parquet",
                f"sharegpt/{split}.jsonl",
                f"imagefolder/{split}/metadata.jsonl",
            )
            for split in ("alignment", "rl")
        },
    }
    lines = ["[data]", 'type = "files"']
    for key, candidates in files.items():
        found = next((name for name in candidates if name in written), None)
        if found is not None:
            path = json.dumps(str(out / found), ensure_ascii=False)
            lines.append(f"{key} = [{path}]" if key == "sft" else f"{key} = {path}")
    return "\n".join(lines) + "\n"
