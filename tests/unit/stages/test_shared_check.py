"""Which process checks which rows, what all are told, and what need not be decoded again."""

import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from prism.data import decoding
from prism.data.images import read_bytes
from prism.data.readers import prompt_of, read_prompts
from prism.data.rejects import RejectLog
from prism.data.writers import write_verl_parquet
from prism.errors import DataError
from prism.records import ImageSource, Prompt
from prism.runtime import distributed
from prism.stages import datasets, shared_check
from prism.stages.row_check import check_decoded
from prism.stages.shared_check import ROWS_AT_ONCE, ImageMemory, SharedCheck
from prism.stages.workspace import Workspace

NUM_ROWS = 5 * ROWS_AT_ONCE + 3
BROKEN = (2, ROWS_AT_ONCE + 1, NUM_ROWS - 1)
Result = TypeVar("Result")


def picture(number: int) -> bytes:
    if number in BROKEN:
        return b"\x89PNG\r\n\x1a\n no picture"
    stream = io.BytesIO()
    Image.new("RGB", (40 + number, 32), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_rows(folder: Path, num_rows: int = NUM_ROWS) -> Path:
    """JSON lines with image files."""
    lines = []
    for number in range(num_rows):
        (folder / f"{number}.png").write_bytes(picture(number))
        lines.append({"id": f"{number}", "prompt": "What?", "answer": "1", "image": f"{number}.png"})
    file = folder / "rl.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The images that are decoded, by their content."""
    seen: list[bytes] = []
    open_image = decoding.open_image

    def opened(source: ImageSource) -> Image.Image:
        seen.append(read_bytes(source))
        return open_image(source)

    monkeypatch.setattr(decoding, "open_image", opened)
    return seen


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs a function as so many processes do, each of them a thread here; what each returns."""
    own = threading.local()

    def run(count: int, function: Callable[[int], Result]) -> list[Result]:
        board: list[Any] = [None] * count
        all_here = threading.Barrier(count)

        def gather(values: list[Any]) -> list[Any]:
            board[own.index] = list(values)
            all_here.wait(10)
            together = [value for part in board for value in part]
            all_here.wait(10)
            return together

        def body(index: int) -> Result:
            own.index = index
            return function(index)

        monkeypatch.setattr(shared_check, "gather", gather)
        monkeypatch.setattr(distributed, "num_processes", lambda: count)
        monkeypatch.setattr(distributed, "process_index", lambda: own.index)
        monkeypatch.setattr(shared_check, "is_first", lambda: own.index == 0)
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(body, range(count)))

    return run


def read(file: Path, log: Path, memory: Path | None = None) -> Iterator[Prompt]:
    with RejectLog(log) as rejects:
        yield from read_prompts(file, rejects=rejects, check_all=SharedCheck(check_decoded, ImageMemory(memory)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_processes_keep_and_reject_what_one_would_and_decode_a_part_each(
    tmp_path: Path, in_processes: Callable[..., list[Any]], decoded: list[bytes], count: int
) -> None:
    file = write_rows(tmp_path)
    usable = [prompt for prompt in read_prompts(file) if int(prompt.id) not in BROKEN]
    found = in_processes(count, lambda index: list(read(file, tmp_path / f"{index}.jsonl")))
    assert found == [usable] * count
    [log] = {(tmp_path / f"{index}.jsonl").read_text() for index in range(count)}
    assert [json.loads(line)["row"] for line in log.splitlines()] == [number + 1 for number in BROKEN]
    assert sorted(decoded) == sorted(map(picture, range(NUM_ROWS)))


def test_rows_in_turn_are_one_processes(
    tmp_path: Path, in_processes: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[str]] = [[], []]

    def looks_of(index: int) -> list[Prompt]:
        check = SharedCheck(lambda record, images: rows[index].append(prompt_of(record).id), ImageMemory(None))
        return list(read_prompts(file, check_all=check))

    file = write_rows(tmp_path)
    in_processes(2, looks_of)
    assert [sorted(map(int, own)) for own in rows] == [
        [number for number in range(NUM_ROWS) if number // ROWS_AT_ONCE % 2 == index] for index in range(2)
    ]


def test_what_was_decoded_is_remembered_by_any_number_of_processes(
    tmp_path: Path, in_processes: Callable[..., list[Any]], decoded: list[bytes]
) -> None:
    file, memory = write_rows(tmp_path), tmp_path / "decoded" / "rl.jsonl"
    logs = [tmp_path / f"{number}.jsonl" for number in range(3)]
    first = in_processes(2, lambda index: list(read(file, logs[index], memory)))[0]
    written = memory.read_bytes()
    decoded.clear()
    again = in_processes(3, lambda index: list(read(file, logs[index], memory)))
    assert again == [first] * 3
    assert decoded == [picture(number) for number in BROKEN]  # which may have been mended
    assert logs[0].read_text() == logs[2].read_text() and len(logs[0].read_text().splitlines()) == len(BROKEN)
    assert memory.read_bytes() == written


def test_an_image_file_that_changed_is_decoded_again(tmp_path: Path, decoded: list[bytes]) -> None:
    file, memory, log = write_rows(tmp_path, 4), tmp_path / "memory.jsonl", tmp_path / "log.jsonl"
    assert [prompt.id for prompt in read(file, log, memory)] == ["0", "1", "3"]
    (tmp_path / "2.png").write_bytes(picture(0))
    (tmp_path / "3.png").write_bytes(picture(2))
    status = (tmp_path / "1.png").stat()
    os.utime(tmp_path / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    decoded.clear()
    assert [prompt.id for prompt in read(file, log, memory)] == ["0", "1", "2"]
    assert sorted(decoded) == sorted([picture(1), picture(0), picture(2)])
    decoded.clear()
    assert [prompt.id for prompt in read(file, log, memory)] == ["0", "1", "2"] and decoded == [picture(2)]


@pytest.mark.parametrize("damage", [b"", b"\xff", b"1 [[[", b"x [[], [], null]\n", b"1 7\n2\n4 [[[]], [5]]\n"])
def test_a_damaged_memory_is_none(tmp_path: Path, decoded: list[bytes], damage: bytes) -> None:
    file, memory, log = write_rows(tmp_path, 4), tmp_path / "memory.jsonl", tmp_path / "log.jsonl"
    before = list(read(file, log, memory))
    whole = memory.read_bytes()
    memory.write_bytes(damage)
    decoded.clear()
    assert list(read(file, log, memory)) == before
    assert len(decoded) == 4 and memory.read_bytes() == whole


def test_rows_before_a_tear_are_read_and_rejected_by_all(
    tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    rows = [json.loads(line) for line in write_rows(tmp_path).read_text().splitlines()]
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps(rows)[:-20])

    def rows_and_error(index: int) -> tuple[list[str], str]:
        found = []
        with pytest.raises(DataError) as error:
            for prompt in read(torn, tmp_path / f"{index}.jsonl"):
                found.append(prompt.id)
        return found, str(error.value)

    one, other = in_processes(2, rows_and_error)
    assert one == other and "torn.json: not valid JSON" in one[1]
    assert one[0] == [f"{number}" for number in range(NUM_ROWS - 1) if number not in BROKEN]
    logs = [(tmp_path / f"{index}.jsonl").read_text() for index in range(2)]
    assert logs[0] == logs[1] and [json.loads(line)["row"] for line in logs[0].splitlines()] == [3, ROWS_AT_ONCE + 2]


def test_another_stage_or_start_of_a_run_decodes_nothing(
    make_workspace: Callable[..., Workspace],
    tmp_path: Path,
    decoded: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_workspace()
    datasets.prepare(made)
    files = made.stage_directory("data")
    names: dict[str, Any] = {"sft": (files / "sft" / "public.jsonl", files / "sft" / "curated.jsonl")}
    names |= {name: files / f"{name}.parquet" for name in ("alignment", "rl", "dev", "test")}
    decoded.clear()
    workspace = make_workspace(1, data={"type": "files", **names})
    datasets.prepare(workspace)
    assert len(decoded) == 5  # the alignment data, of which the data stage takes the teacher's responses
    read_all(workspace, 240)
    assert len(decoded) == len(set(decoded)) == 6 + 4 + 5 + 5 + 3 + 18
    decoded.clear()
    datasets.prepare(workspace)
    read_all(workspace, 200)
    assert decoded == []

    rows = list(read_prompts(files / "rl.parquet"))
    write_verl_parquet(tmp_path / "rl.parquet", rows[1:])
    write_verl_parquet(tmp_path / "later.parquet", rows[2:])
    os.replace(tmp_path / "rl.parquet", files / "rl.parquet")
    datasets.prepare(workspace)
    read_all(workspace, 240)
    assert len(decoded) == 4
    # Replaced since the data stage took its hash, it is another file all the same.
    decoded.clear()
    os.replace(tmp_path / "later.parquet", files / "rl.parquet")
    assert len(datasets.read_rl(workspace)) == len(decoded) == 3
    decoded.clear()
    assert len(datasets.read_rl(workspace)) == 3 and not decoded
    monkeypatch.setattr(datasets, "code_version", lambda: "another")
    assert len(datasets.read_rl(workspace)) == len(decoded) == 3


def read_all(workspace: Workspace, max_response_tokens: int) -> None:
    datasets.read_sft(workspace, max_response_tokens)
    datasets.read_development(workspace, max_response_tokens)
    datasets.read_alignment(workspace, max_response_tokens)
    datasets.read_rl(workspace)
    datasets.read_test(workspace)
