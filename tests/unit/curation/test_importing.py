"""Files into a store: nothing is lost, nothing counted twice, and what is hostile is refused with a reason."""

import datetime
import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prism.cli import main
from prism.config import EvaluationSet
from prism.curation import Part, Store, count_import, count_step, run_whole_step
from prism.curation.decontaminate import run_decontaminate
from prism.curation.dedup import Dedup
from prism.curation.importing import ImportSettings, import_file
from prism.curation.split import shared_keys
from prism.data import row_files
from prism.data.images import read_bytes
from prism.data.readers import read_examples
from prism.data.rejects import RowError
from prism.data.remote_images import ImageFetcher
from prism.data.world.datasets import CURATED, FAITHFUL, demonstrations
from prism.data.writers import write_sharegpt, write_verl_parquet
from prism.errors import DataError
from prism.records import Example, ImageSource, Prompt


def png(side: int = 8, seed: int = 0) -> bytes:
    stream = BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(3 * side * side)).save(stream, "PNG")
    return stream.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of side × side black pixels, a few hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rejects(store: Store, source: str) -> dict[str, int]:
    return dict(count_import(store)[source].dropped)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_the_world_comes_back_from_the_store_as_from_its_file(tmp_path: Path, store: Store, name: str) -> None:
    file = tmp_path / name
    written = list(demonstrations("curated", CURATED, FAITHFUL, 30, seed=1))
    if file.suffix == ".parquet":
        write_verl_parquet(file, written)
    else:
        write_sharegpt(file, written, tmp_path / "images")
    assert import_file(store, file) == 30
    stored = {row.prompt.id: row for row in store.rows()}

    def content(example: Example) -> tuple[Any, ...]:
        prompt = example.prompt
        images = list(map(read_bytes, prompt.images))
        return (
            prompt.question,
            prompt.answer,
            prompt.kind,
            prompt.choices,
            prompt.metadata,
            images,
            example.completion,
        )

    read = {example.prompt.id: content(example) for example in read_examples(file)}
    assert {key: content(Example(row.prompt, row.completion or "")) for key, row in stored.items()} == read
    assert read == {example.prompt.id: content(example) for example in written}


def test_imported_again_in_parts_or_after_a_stop_every_row_is_there_once(tmp_path: Path, store: Store) -> None:
    rows = [{"prompt": f"q{n}", "answer": str(n), "id": n} for n in range(20)]
    rows[7] = {"prompt": "q7 again", "answer": "7", "id": 3}
    file = lines(tmp_path / "rows.jsonl", [*rows, "no object", {"answer": "5"}])
    assert sum(import_file(store, file, part=Part(index, 3)) for index in range(3)) == 19
    for _ in range(2):
        assert import_file(store, file) == 0  # rows are passed over, rejects tried again and counted once
    assert sorted(row.id for row in store.rows()) == sorted(f"rows/{n}" for n in range(20) if n != 7)
    assert rejects(store, "rows") == {
        "id is that of an earlier row": 1,
        "row is not an object": 1,
        "row has neither prompt, messages nor conversations": 1,
    }
    lines(file, [{"prompt": "before them all", "answer": "1", "id": 99}, *rows])
    with pytest.raises(DataError, match=r"is not the file that was imported as .rows.*name another --source"):
        import_file(store, file)
    assert import_file(store, file, source="second") == 20
    with pytest.raises(DataError, match="not by these columns"):
        import_file(store, file, source="second", settings=ImportSettings(columns={"answer": "id"}))


def test_a_rejected_row_is_tried_again_and_a_row_that_is_there_stays(tmp_path: Path, store: Store) -> None:
    rows = [{"prompt": "<image>?", "images": [f"{n}.png"], "answer": "1", "id": n} for n in range(12)]
    file = lines(tmp_path / "rows.jsonl", rows)
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(png(seed=number) if number % 2 else b"not yet")
    assert import_file(store, file) == 6
    assert rejects(store, "rows") == {"images has an image that cannot be decoded": 6}
    for number in range(12):
        image = tmp_path / f"{number}.png"
        image.unlink() if number % 2 else image.write_bytes(png(seed=number))
    assert sum(import_file(store, file, part=Part(index, 2)) for index in range(2)) == 6
    assert rejects(store, "rows") == {}
    assert len(list(store.rows())) == 12


class Addresses(ImageFetcher):
    """Has an image at every address but the last."""

    fetched: ClassVar[list[str]] = []

    def fetch(self, url: str, field: str = "images") -> bytes:
        self.fetched.append(url)
        if url.endswith("/11"):
            raise RowError(field, "has an image that cannot be fetched", "status 503")
        return png(seed=len(self.fetched))


def test_images_are_fetched_once_whoever_fetches_them(tmp_path: Path, store: Store) -> None:
    rows = [{"prompt": "<image>?", "images": [f"http://x/{n}"], "answer": "1", "id": n} for n in range(12)]
    nameless = {"prompt": "<image>?", "images": ["http://x/12"], "answer": "1"}
    file = lines(tmp_path / "rows.jsonl", [*rows, nameless])
    assert import_file(store, file) == 0  # without the wish to fetch
    fetcher = Addresses()
    fetcher.fetched.clear()
    settings = ImportSettings(fetcher=fetcher)
    assert sum(import_file(store, file, part=Part(index, 3), settings=settings) for index in range(3)) == 11
    assert sorted(fetcher.fetched) == sorted(f"http://x/{n}" for n in range(12))
    assert rejects(store, "rows") == {
        "images has an image that cannot be fetched": 1,
        "id is missing: with --shard, images are fetched for rows that bring an id along": 1,
    }
    fetcher.fetched.clear()
    assert import_file(store, file, settings=settings) == 1
    assert sorted(fetcher.fetched) == ["http://x/11", "http://x/12"]  # what failed is tried again
    assert rejects(store, "rows") == {"images has an image that cannot be fetched": 1}


def test_killed_at_any_moment_an_import_goes_on(tmp_path: Path, store: Store) -> None:
    rows = [{"prompt": f"<image>{n}?", "images": [f"{n % 7}.png"], "answer": "1", "id": n % 390} for n in range(400)]
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(png(64, seed=number))
    file = lines(tmp_path / "rows.jsonl", rows)
    command = [sys.executable, "-c", "import sys; from prism.cli import main; sys.exit(main())"]
    command += ["data", "import", str(store.directory), str(file)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "src"), "OMP_NUM_THREADS": "1"}
    delays = random.Random(1)
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while not any(path.stat().st_size for path in store.directory.glob("shards/*/rows.sqlite-journal")):
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(delays.uniform(0, 0.05))
        process.kill()
        process.wait()
    import_file(store, file)
    assert len({row.id for row in store.rows()}) == 390
    assert rejects(store, "rows") == {"id is that of an earlier row": 10}


def test_hostile_rows_are_rejected_with_a_reason(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_ROW_BYTES", 2_000_000)
    outside = tmp_path / "private.png"
    outside.write_bytes(png())
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "bomb.png").write_bytes(bomb(20_000))
    (folder / "cut.png").write_bytes(png(64)[:-40])
    (folder / "text.png").write_text("root:x:0:0")
    os.mkfifo(folder / "pipe.png")
    images = {
        "bomb": "bomb.png",
        "cut": "cut.png",
        "text": "text.png",
        "pipe": "pipe.png",
        "up": "../private.png",
        "inner": "a/../../private.png",
        "absolute": str(outside),
        "uri": f"file://{outside}",
        "remote": "http://127.0.0.1:1/x.png",
        "etc": "/etc/passwd",
        "address": "http://[x/a.png",
        "file": "file://[x/a.png",
    }
    rows: list[Any] = [
        {"id": key, "prompt": "<image>?", "answer": "1", "images": [path]} for key, path in images.items()
    ]
    rows += [{"id": "nul", "prompt": "a\x00b", "answer": "1"}]
    rows += [{"id": "long", "prompt": "x" * 3_000_000, "answer": "1"}]
    rows += [{"id": "half", "prompt": "\ud800", "answer": "1"}]
    for number, html in enumerate(
        ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<a href='javascript:x()'>y</a>", "<IFRAME >"]
    ):
        completion = f"<caption>{html}</caption><think>t</think><answer>1</answer>"
        rows += [{"id": f"html{number}", "prompt": "q", "completion": completion, "answer": "1"}]
    fine = {"id": "fine", "prompt": "Is a < b and <b>c</b> > d, once = twice?", "answer": "1"}
    assert import_file(store, lines(folder / "rows.jsonl", [*rows, fine])) == 1
    assert [row.id for row in store.rows()] == ["rows/fine"]
    assert rejects(store, "rows") == {
        "images has an image that cannot be decoded": 3,
        "images names a file that does not exist": 1,
        "images points outside the image directory": 5,
        "images has a remote address; download the image and name the file": 1,
        "images has an address that is none": 2,
        "question has a NUL character": 1,
        "row is longer than 2,000,000 bytes": 1,
        "prompt.content has half a surrogate pair, which no tokenizer takes": 1,
        "completion has HTML that a browser would run": 4,
    }
    assert not list(store.images.root.rglob("*.*"))


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    return value


RESPONSE = "<caption>c</caption><think>t</think><answer>4</answer>"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extra": nested(600)}, "row is nested too deeply"),
        ({"metadata": nested(101)}, "row is nested too deeply"),
        ({"loss_spans": [nested(600)]}, "row is nested too deeply"),
        ({"metadata": {"a": "\ud800"}}, "metadata has half a surrogate pair, which no tokenizer takes"),
        ({"metadata": json.dumps({"a": ["\ud800"]})}, "metadata has half a surrogate pair, which no tokenizer takes"),
        ({"metadata": "\ud800"}, "metadata has half a surrogate pair, which no tokenizer takes"),
        ({"\ud800": 1}, "metadata has half a surrogate pair, which no tokenizer takes"),
        ({"note": "\ud800"}, "metadata has half a surrogate pair, which no tokenizer takes"),
        ({"metadata": {"a": {"b": float("nan")}}}, "metadata has a value that JSON cannot hold"),
        ({"metadata": '{"a": -Infinity}'}, "metadata has a value that JSON cannot hold"),
        ({"completion": " \n"}, "completion is empty"),
        ({"loss_spans": [[False, True]]}, "loss_spans has a span outside its completion"),
        ({"kind": "<svg/onload=f()>"}, "kind has HTML that a browser would run"),
        ({"equivalents": ["4", "\x00"]}, "equivalents has a NUL character"),
        ({"choices": ["<img src='x'onerror=f()>"]}, "choices has HTML that a browser would run"),
        ({"metadata": {"student_response": "\x00"}}, "student_response has a NUL character"),
    ],
)
def test_a_hostile_row_keeps_no_other_out(tmp_path: Path, store: Store, changes: dict[str, Any], reason: str) -> None:
    good = {"prompt": "q", "completion": RESPONSE, "answer": "4"}
    rows = [good | changes, good | {"id": "behind", "depth": nested(90)}]
    assert import_file(store, lines(tmp_path / "rows.jsonl", rows)) == 1
    assert [row.id for row in store.rows()] == ["rows/behind"]
    assert rejects(store, "rows") == {reason: 1}


LONG_QUESTION = (
    "A farmer walks past a meadow in spring and hears an animal behind the old wooden fence; which one is it?"
)


def test_options_are_in_the_question_and_their_order_makes_no_other_problem(tmp_path: Path, store: Store) -> None:
    row = {"prompt": LONG_QUESTION, "choices": ["cat", "dog"], "answer": "B", "id": "a"}
    shuffled = row | {"choices": ["dog", "cat"], "answer": "A", "id": "b"}
    assert import_file(store, lines(tmp_path / "rows.jsonl", [row, shuffled])) == 2
    first, second = sorted(store.rows(), key=lambda row: row.id)
    assert first.prompt.question == f"{LONG_QUESTION}\nA. cat\nB. dog"
    assert second.prompt.question == f"{LONG_QUESTION}\nA. dog\nB. cat"
    assert shared_keys(first.prompt) == shared_keys(second.prompt)
    run_whole_step(store, Dedup(store.images.root))
    assert [outcome.status for outcome in store.outcomes("dedup")].count("dropped") == 1
    path = lines(tmp_path / "held.jsonl", [shuffled])
    run_decontaminate(store, [EvaluationSet(name="held", path=path)], Part())
    assert count_step(store, "decontaminate").num_kept == 0


@pytest.mark.parametrize("number", [10**309, -(10**4000)], ids=["positive", "negative"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_number_larger_than_any_float_ends_no_import(tmp_path: Path, store: Store, number: int, suffix: str) -> None:
    rows = [{"prompt": "q", "id": 1, "answer": number, "n": number}, {"prompt": "q", "id": number, "answer": 2}]
    file = tmp_path / f"rows{suffix}"
    file.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
    assert import_file(store, file) == 2
    assert {row.prompt.id: row.prompt.answer for row in store.rows()} == {"1": str(number), str(number): "2"}


@pytest.mark.parametrize("author", ["teacher", "student"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RESPONSE.replace("t<", "an <image> <"), "{}_response has an image mark outside the question"),
        (" ", "{}_response is empty"),
        (RESPONSE.replace("t<", "<svg onload=f()><"), "{} has HTML that a browser would run"),
        (RESPONSE.replace("t<", "\x00<"), "{} has a NUL character"),
    ],
)
def test_responses_of_pairs_are_looked_at(tmp_path: Path, store: Store, author: str, text: str, reason: str) -> None:
    pair = {"question": "q", "answer": "4", "teacher_response": RESPONSE, "student_response": RESPONSE}
    file = lines(tmp_path / "pairs.jsonl", [pair | {f"{author}_response": text, "id": 1}, pair | {"id": 2}])
    assert import_file(store, file) == 1
    name = author if reason.startswith("{}_") else {"teacher": "completion", "student": "student_response"}[author]
    assert rejects(store, "pairs") == {reason.format(name): 1}


def test_values_of_parquet_that_python_or_json_cannot_hold(tmp_path: Path, store: Store) -> None:
    day = datetime.date(2024, 2, 29)
    rows = [{"prompt": "q", "completion": RESPONSE, "id": str(n), "at": 0, "metadata": {"day": None}} for n in range(4)]
    rows[1]["at"] = 2**50
    rows[2]["metadata"] = {"day": day}
    schema = {"prompt": pa.string(), "completion": pa.string(), "id": pa.string()}
    schema |= {"at": pa.timestamp("s"), "metadata": pa.struct({"day": pa.date32()})}
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(schema)), tmp_path / "rows.parquet")
    assert import_file(store, tmp_path / "rows.parquet") == 2
    assert {row.id: row.prompt.metadata for row in store.rows()} == {f"rows/{n}": {"day": None} for n in (0, 3)}
    assert rejects(store, "rows") == {
        "row has a value that Python cannot hold": 1,
        "metadata has a value that JSON cannot hold": 1,
    }


def test_columns_of_other_names_and_pairs(tmp_path: Path, store: Store) -> None:
    image = ImageSource(data=png())
    (tmp_path / "a.png").write_bytes(image.data or b"")
    rows = [{"problem": "<image>?", "prompt": "Solve.", "solution": "4", "picture": "a.png", "level": 3}]
    settings = ImportSettings(columns={"prompt": "problem", "images": "picture"})
    assert import_file(store, lines(tmp_path / "plain.jsonl", rows), settings=settings) == 1
    response = "<caption>c</caption><think>t</think><answer>4</answer>"
    pair = {"question": "q", "answer": "4", "teacher_response": response, "student_response": "no idea"}
    assert import_file(store, lines(tmp_path / "pairs.jsonl", [pair])) == 1
    found = {row.id.split("/")[0]: row for row in store.rows()}
    assert (found["plain"].prompt.question, found["plain"].prompt.answer) == ("<image>?", "4")
    assert found["plain"].prompt.metadata == {"level": 3}
    assert found["pairs"].completion == response
    assert found["pairs"].prompt.metadata == {"student_response": "no idea"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path / "rows.jsonl", [{"problem": "q", "answer": "1", "id": 1}, {"problem": ""}])
    command = ["data", "import", str(tmp_path / "store"), str(file), "--column", "prompt=problem", "--num-shards", "2"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: 1 new rows",
        "import of rows: 2 in, 1 kept, 0 passed, 1 dropped",
        "          1 dropped: question is empty",
    ]
    assert main([*command[:3], str(tmp_path / "gone.jsonl")]) == 2
    assert "cannot be opened" in capsys.readouterr().err
    assert main([*command, "--shard", "5/2"]) == 2
    assert main([*command[:-1], "3"]) == 2
    assert "has 2 shards, which cannot change" in capsys.readouterr().err
    assert Prompt("1", "q", answer="1") in [row.prompt for row in Store(tmp_path / "store").rows()]
