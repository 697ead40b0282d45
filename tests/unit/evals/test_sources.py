"""Rows from files as a user may have them, and from a data set as the hub's library reads it."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prism.data.image_references import resolve_images
from prism.errors import ConfigError, DataError
from prism.evals.sources import Source, load_rows
from prism.runtime.hashing import path_sha256


def jpeg(number: int) -> bytes:
    """An encoded image that decoding and encoding again would not give back."""
    stream = io.BytesIO()
    Image.new("RGB", (5, 4)).save(stream, "JPEG")
    return stream.getvalue() + bytes([number])


def local(path: Path, *configs: str, split: str = "test") -> Source:
    return load_rows(path, hub_id="none/none", hub_configs=configs, hub_split=split)


def write(file: Path, *ids: str) -> None:
    """Rows with these ids in the file's format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": name} for name in ids]
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ids(source: Source) -> list[str]:
    return [found.row["id"] for found in source]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_shards_are_read_in_the_order_of_their_names(suffix: str, tmp_path: Path) -> None:
    for name, *rows in (("b", "3"), ("a", "1", "2"), ("deep/c", "4")):
        write(tmp_path / f"{name}{suffix}", *rows)
    source = local(tmp_path)
    assert ids(source) == ids(source) == ["1", "2", "3", "4"]
    assert [(found.file.stem, found.number) for found in source] == [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
    assert (source.image_root, source.sha256) == (tmp_path, path_sha256(tmp_path))


def test_a_single_file(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", "1")
    write(tmp_path / "other.jsonl", "2")
    source = local(tmp_path / "rows.jsonl")
    assert ids(source) == ["1"]
    assert (source.image_root, source.sha256) == (tmp_path, path_sha256(tmp_path / "rows.jsonl"))


def test_the_identity_follows_rows_and_images(tmp_path: Path) -> None:
    write(tmp_path / "data.parquet", "1")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg(1))
    hashes = [local(tmp_path).sha256]
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg(2))
    hashes.append(local(tmp_path).sha256)
    write(tmp_path / "data.parquet", "2")
    hashes.append(local(tmp_path).sha256)
    assert len(set(hashes)) == 3
    shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))
    assert local(tmp_path.with_name("elsewhere")).sha256 == hashes[-1]


def test_a_copy_of_a_hub_repository(tmp_path: Path) -> None:
    """Splits side by side, configurations as folders, the download tool's own files, other JSON."""
    write(tmp_path / "data" / "testmini-00001-of-00002.parquet", "2")
    write(tmp_path / "data" / "testmini-00000-of-00002-ab12.parquet", "1")
    write(tmp_path / "data" / "test-00000-of-00001.parquet", "wrong")
    write(tmp_path / "vision" / "test-00000-of-00001.parquet", "vision")
    write(tmp_path / "standard (10 options)" / "test-00000-of-00001.parquet", "standard")
    write(tmp_path / "standard (10 options)" / ".cache" / "test-00000-of-00001.parquet", "hidden")
    write(tmp_path / ".cache" / "testmini-00000-of-00001.parquet", "hidden")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert ids(local(tmp_path, split="testmini")) == ["1", "2"]
    assert ids(local(tmp_path, "standard (10 options)")) == ["standard"]
    assert ids(local(tmp_path, "vision")) == ["vision"]
    assert ids(local(tmp_path, "vision", "standard (10 options)")) == ["vision", "standard"]
    with pytest.raises(DataError, match="holds test, testmini, but no files of the split 'validation'"):
        local(tmp_path, split="validation")


@pytest.mark.parametrize("name", ["test.parquet", "test/0000.parquet", "Art/test-00000-of-00001.parquet"])
def test_names_of_a_split(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, "1")
    write(tmp_path / "test_text_only.parquet", "wrong")
    write(tmp_path / "testmini.parquet", "wrong")
    assert ids(local(tmp_path)) == ["1"]


def test_embedded_and_named_images_are_the_encoded_files(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": jpeg(7), "path": "a.jpg"}, "images": [{"bytes": jpeg(8), "path": None}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    [found] = local(tmp_path)
    assert found.row["image"]["bytes"] == jpeg(7) and found.row["images"][0]["bytes"] == jpeg(8)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "b.jpg").write_bytes(jpeg(9))
    (tmp_path / "rows.parquet").unlink()
    (tmp_path / "rows.jsonl").write_text('{"image": "pictures/b.jpg"}\n')
    source = local(tmp_path)
    [found] = source
    [image] = resolve_images(found.row["image"], source.image_root)
    assert image.path is not None and image.path.read_bytes() == jpeg(9)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.jsonl", '{"id": "1"}\n{"id": \n', "rows.jsonl, row 2: row is not valid JSON"),
        ("rows.jsonl", '{"id": "1"}\n[1]\n', "rows.jsonl, row 2: not an object with fields but list"),
        ("rows.json", "[]", "rows.json: the file has no rows"),
        ("rows.jsonl", "", "rows.jsonl: the file is empty"),
        ("rows.parquet", "PAR", "rows.parquet: not a readable parquet file"),
        ("rows.csv", "id\n1\n", "holds no data file"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        ids(local(tmp_path))
    assert words in str(caught.value)


def test_an_unusable_shard_is_told_before_the_first_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", "1")
    (tmp_path / "b.parquet").write_text("PAR")
    with pytest.raises(DataError, match=r"b\.parquet"):
        local(tmp_path)


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or directory"):
        local(tmp_path / "absent")


def test_the_hub_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r'some/set .* pip install -e "\.\[hub\]"'):
        load_rows(None, hub_id="some/set", hub_configs=(), hub_split="test")


@pytest.fixture
def hub_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with two splits, as the hub's library writes and reads it; a directory may stand for its name."""
    datasets: Any = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "images": datasets.List(datasets.Image()),
            "gold": {"step": datasets.Value("int64")},
        }
    )
    rows = [
        {
            "id": str(n),
            "image": {"bytes": jpeg(n), "path": f"{n}.jpg"},
            "images": [{"bytes": jpeg(n + i), "path": None} for i in range(n % 3)],
            "gold": {"step": n},
        }
        for n in range(150)
    ]
    for split, part in (("testmini", rows), ("test", rows[:1])):
        file = tmp_path / "repository" / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(part, features=features).to_parquet(file)
    return tmp_path / "repository"


def test_rows_from_the_hub_keep_their_images_as_they_are(hub_repository: Path) -> None:
    source = load_rows(None, hub_id=str(hub_repository), hub_configs=(), hub_split="testmini")
    for _ in range(2):
        found = list(source)
        assert [row.number for row in found] == list(range(1, 151))
        for n, row in enumerate(found):
            assert row.row == {
                "id": str(n),
                "image": {"bytes": jpeg(n), "path": f"{n}.jpg"},
                "images": [{"bytes": jpeg(n + i), "path": None} for i in range(n % 3)],
                "gold": {"step": n},
            }
    again = load_rows(None, hub_id=str(hub_repository), hub_configs=(), hub_split="testmini")
    other = load_rows(None, hub_id=str(hub_repository), hub_configs=(), hub_split="test")
    assert again.sha256 == source.sha256 != other.sha256
    assert len(list(other)) == 1


@pytest.mark.parametrize(
    ("config", "split", "words"), [(None, "train", "train"), ("vision", "test", "vision")], ids=["split", "config"]
)
def test_what_the_hub_does_not_have(config: str | None, split: str, words: str, hub_repository: Path) -> None:
    with pytest.raises(DataError, match="cannot be read from the hub") as caught:
        load_rows(None, hub_id=str(hub_repository), hub_configs=() if config is None else (config,), hub_split=split)
    assert words in str(caught.value) and "\n" not in str(caught.value)
