"""Hugging Face's own loaders, which TRL and LLaMA-Factory read with, take what is written as it is meant."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pictures import picture
from prism.data.images import open_image
from prism.data.writers import write_image_folder, write_sharegpt, write_trl
from prism.records import Example, Prompt

datasets = pytest.importorskip("datasets")

FIRST, SECOND = picture(1, 2, seed=1), picture(2, 2, seed=2)
PLAIN = Prompt("a", "How <image>?", (FIRST,), "2")
RICH = Prompt(
    "b", "Compare <image> and <image>.", (FIRST, SECOND), "x", "pairs", ("x", "y"), ("X",), "Be brief.", {"n": [1]}
)
TEXT_ONLY = Prompt("c", "No picture?", answer="no", metadata={"n": "another type"})


def load(kind: str, directory: Path, **options: Any) -> list[dict[str, Any]]:
    return list(datasets.load_dataset(kind, split="train", cache_dir=str(directory / "cache"), **options))


def test_json_rows_that_come_late_may_have_what_the_first_have_not(tmp_path: Path) -> None:
    """The loader takes the types of the columns from its first chunk, here of two rows."""
    records = [replace(PLAIN, id=str(n)) for n in range(50)] + [RICH, TEXT_ONLY]
    write_sharegpt(tmp_path / "sft.jsonl", [Example(prompt, "Two.") for prompt in records], tmp_path / "images")
    rows = load("json", tmp_path, data_files=str(tmp_path / "sft.jsonl"), chunksize=400)
    assert len(rows) == 52
    assert rows[50]["messages"] == [
        {"role": "user", "content": RICH.question},
        {"role": "assistant", "content": "Two."},
    ]
    assert rows[50]["system"] == "Be brief." and [len(row["images"]) for row in rows[49:]] == [1, 2, 0]


def test_parquet_gives_pictures_and_typed_parts(tmp_path: Path) -> None:
    write_trl(tmp_path / "sft.parquet", [Example(RICH, "Two."), Example(TEXT_ONLY, "No.")])
    rich, text_only = load("parquet", tmp_path, data_files=str(tmp_path / "sft.parquet"))
    system, user = rich["prompt"]
    assert system["content"] == [{"type": "text", "text": "Be brief."}]
    assert [(part["type"], part["text"]) for part in user["content"]] == [
        ("text", "Compare "), ("image", None), ("text", " and "), ("image", None), ("text", "."),
    ]  # fmt: skip
    assert rich["completion"] == [{"role": "assistant", "content": [{"type": "text", "text": "Two."}]}]
    assert all(isinstance(image, Image.Image) for image in rich["images"]) and text_only["images"] == []
    assert [image.convert("RGB").tobytes() for image in rich["images"]] == [
        open_image(source).tobytes() for source in (FIRST, SECOND)
    ]


def test_an_image_folder_gives_pictures(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "folder", [Example(RICH, "Two."), Example(PLAIN, "No.")])
    rows = {row["id"]: row for row in load("imagefolder", tmp_path, data_dir=str(tmp_path / "folder"))}
    assert [image.size for image in rows["b"]["images"]] == [open_image(source).size for source in (FIRST, SECOND)]
    assert rows["a"]["messages"][1]["content"] == "No."
