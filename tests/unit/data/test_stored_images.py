"""Records of parquet files know where their images are: the same bytes, wherever and by whomever they are asked for."""

import multiprocessing
import os
import random
import threading
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism.data import row_files, stored_images
from prism.data.images import describe_source, read_bytes
from prism.data.readers import check_images, read_examples, read_prompts
from prism.errors import StorageError
from prism.records import ImageSource, Prompt

NUM_ROWS, ROWS_OF_A_GROUP = 60, 7
IMAGE_BYTES = 20_000


def image(number: int) -> bytes:
    """Not decodable, which nothing here asks for, and incompressible."""
    return b"\x89PNG\r\n\x1a\n" + random.Random(number).randbytes(IMAGE_BYTES)


def two_images(number: int) -> dict[str, Any]:
    return {"images": [{"bytes": image(number), "path": None}, {"bytes": image(1000 + number), "path": "b.png"}]}


LAYOUTS = {
    "a list of structs": two_images,
    "a struct": lambda number: {"image": {"bytes": image(number), "path": "a.png"}},
    "a column": lambda number: {"image": image(number)},
    "a list": lambda number: {"images": [image(number), image(number)]},
}


def write(folder: Path, cells: Any = two_images, num_rows: int = NUM_ROWS) -> Path:
    rows = [{"id": f"{n}", "prompt": f"What is {n}?", "answer": "1", **cells(n)} for n in range(num_rows)]
    file = folder / "rl.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=ROWS_OF_A_GROUP)
    return file


def found_bytes(prompt: Prompt) -> list[bytes]:
    return list(map(read_bytes, prompt.images))


def expected_bytes(cells: dict[str, Any]) -> list[bytes]:
    [value] = cells.values()
    parts = value if isinstance(value, list) else [value]
    return [part if isinstance(part, bytes) else part["bytes"] for part in parts]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_in_any_order(tmp_path: Path, layout: str) -> None:
    cells = LAYOUTS[layout]
    prompts = list(read_prompts(write(tmp_path, cells)))
    assert all(source.data is None for prompt in prompts for source in prompt.images)
    for number in random.Random(0).sample(range(NUM_ROWS), NUM_ROWS):
        assert found_bytes(prompts[number]) == expected_bytes(cells(number))


def test_images_inside_messages_are_found(tmp_path: Path) -> None:
    part = {"type": "image", "text": None, "image": {"bytes": image(1)}}
    question = {"type": "text", "text": "What?", "image": None}
    messages = [
        {"role": "user", "content": [part, question]},
        {"role": "assistant", "content": [{"type": "text", "text": "Red.", "image": None}]},
    ]
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "sft.parquet")
    [example] = read_examples(tmp_path / "sft.parquet")
    [source] = example.prompt.images
    assert source.stored is not None and source.stored.keys == (0, "content", 0, "image", "bytes")
    assert read_bytes(source) == image(1)


def test_rows_in_memory_are_texts(tmp_path: Path) -> None:
    file = write(tmp_path)
    list(read_prompts(file))  # what is loaded or cached once
    tracemalloc.start()
    try:
        prompts = list(read_prompts(file))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(prompts) == NUM_ROWS
    assert held < NUM_ROWS * 2 * IMAGE_BYTES / 10


def test_while_rows_are_read_arrow_holds_a_few_row_groups(tmp_path: Path) -> None:
    size = 20 * IMAGE_BYTES  # so that Arrow's own buffers do not count
    file = write(tmp_path, lambda number: {"image": random.Random(number).randbytes(size)})
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_prompts(file)]
    assert max(held) < NUM_ROWS * size / 2


def test_what_is_kept_of_the_files_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stored_images, "_KEPT_IMAGE_BYTES", 10 * IMAGE_BYTES)
    monkeypatch.setattr(stored_images, "_KEPT_COLUMN_BYTES", 30 * IMAGE_BYTES)
    monkeypatch.setattr(stored_images, "_reader", stored_images._Reader())
    prompts = list(read_prompts(write(tmp_path)))
    allocated = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        assert all(found_bytes(prompt) for prompt in prompts)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 12 * IMAGE_BYTES
    assert pa.total_allocated_bytes() - allocated < 35 * IMAGE_BYTES


def test_a_pass_in_order_reads_each_row_group_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prompts = list(read_prompts(write(tmp_path)))
    groups = []
    read = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, **options: Any) -> Any:
        groups.append(group)
        return read(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for prompt in prompts:
        found_bytes(prompt)
    assert groups == list(range(-(-NUM_ROWS // ROWS_OF_A_GROUP)))


def test_threads_find_their_own_images(tmp_path: Path) -> None:
    prompts = list(read_prompts(write(tmp_path)))
    numbers = random.Random(1).choices(range(NUM_ROWS), k=400)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: found_bytes(prompts[number]), numbers))
    assert found == [expected_bytes(two_images(number)) for number in numbers]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_finds_the_same_images(tmp_path: Path, method: str) -> None:
    sources = [source for prompt in read_prompts(write(tmp_path, num_rows=9)) for source in prompt.images]
    before = list(map(read_bytes, sources))
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as processes:
        assert list(processes.map(read_bytes, sources)) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_forked_while_a_thread_reads_does_not_wait_for_that_thread(tmp_path: Path) -> None:
    [prompt] = read_prompts(write(tmp_path, num_rows=1))
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with stored_images._reader._lock:
            is_held.set()
            is_over.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(10)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes:
        assert processes.submit(found_bytes, prompt).result(20) == expected_bytes(two_images(0))
    is_over.set()
    thread.join()


def test_a_file_that_was_changed_meanwhile_gives_no_other_images(tmp_path: Path) -> None:
    file = write(tmp_path)
    prompts = list(read_prompts(file))
    found_bytes(prompts[0])
    write(tmp_path, lambda number: two_images(number + 1))
    with pytest.raises(StorageError, match=r"rl\.parquet: the file was changed"):
        found_bytes(prompts[0])
    with pytest.raises(StorageError):
        check_images(prompts[0])
    file.unlink()
    with pytest.raises(StorageError, match=r"rl\.parquet: cannot read an image of row group 0"):
        found_bytes(prompts[0])


def test_images_of_large_row_groups_stay_with_their_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(row_files, "LARGEST_GROUP_BYTES", 5 * 2 * IMAGE_BYTES)
    prompts = list(read_prompts(write(tmp_path)))
    is_held = [all(source.data for source in prompt.images) for prompt in prompts]
    assert is_held == [True] * 56 + [False] * 4  # the last group has four rows
    assert list(map(found_bytes, prompts)) == [expected_bytes(two_images(number)) for number in range(NUM_ROWS)]


def test_messages_name_an_image_by_its_size_wherever_it_is(tmp_path: Path) -> None:
    [prompt] = read_prompts(write(tmp_path, num_rows=1))
    assert describe_source(prompt.images[0]) == describe_source(ImageSource(data=image(0)))
