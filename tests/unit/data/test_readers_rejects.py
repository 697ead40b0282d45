"""Every bad row ends in the rejects file or in an error that names it; wrong files are errors at once."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from prism.data.decoding import Decoded
from prism.data.readers import read_demonstrations, read_examples, read_pairs, read_prompts
from prism.data.rejects import RejectLog, RowError
from prism.errors import DataError
from prism.rewards.format import parse_response
from prism.stages.row_check import check_decoded
from prism.stages.shared_check import Check, ImageMemory, SharedCheck
from strange_rows import any_json_row

RESPONSE = "<caption>Two dots.</caption><think>1 + 1.</think><answer>2</answer>"


def checking(check: Check) -> SharedCheck:
    return SharedCheck(check, ImageMemory(None))


def png() -> bytes:
    """Noise, so that half the file is not the whole picture."""
    stream = BytesIO()
    Image.effect_noise((16, 12), 60).save(stream, "PNG")
    return stream.getvalue()


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "img" / name).write_bytes(png())
    return tmp_path


def verl_row(**changes: Any) -> dict[str, Any]:
    row = {
        "data_source": "geometry",
        "prompt": [{"role": "user", "content": "<image>Find x."}],
        "images": [{"bytes": png(), "path": "fig.png"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "35"},
        "extra_info": {"split": "train", "index": 7, "equivalent_answers": ["x=35"], "choices": ["35", "53"]},
    }
    return row | changes


def pair_row(**changes: Any) -> dict[str, Any]:
    return {
        "question": "<image>How many?",
        "image": "img/a.png",
        "teacher_caption": "Two dots.",
        "teacher_cot": "<think>1 + 1.</think><answer>2</answer>",
        "student_caption": "Three dots.",
        "student_cot": "<think>1 + 2.</think><answer>3</answer>",
    } | changes


GOOD = {
    "messages": [{"role": "user", "content": "<image>How many?"}, {"role": "assistant", "content": RESPONSE}],
    "images": ["img/a.png"],
    "answer": "2",
}


def demonstrations(path: Path, **options: Any) -> Iterator[object]:
    return read_demonstrations(path, parse=parse_response, **options)


def pairs(path: Path, **options: Any) -> Iterator[object]:
    return read_pairs(path, parse=parse_response, **options)


BAD_EXAMPLES: list[tuple[Any, str, str]] = [
    ("text", "row", "is not an object"),
    ([], "row", "is not an object"),
    ({"text": "Why?"}, "row", "has neither prompt, messages nor conversations"),
    (GOOD | {"images": ["img/lost.png"]}, "images", "names a file that does not exist"),
    (GOOD | {"images": ["../outside.png"]}, "images", "points outside the image directory"),
    (GOOD | {"images": []}, "images", "differ in number from the image marks"),
    (GOOD | {"images": ["img/a.png", "img/b.png"]}, "images", "differ in number from the image marks"),
    (GOOD | {"image": "img/a.png", "images": 3}, "images", "has an entry that is not an image reference"),
    (GOOD | {"videos": ["a.mp4"]}, "videos", "is not supported; only images are"),
    (GOOD | {"messages": GOOD["messages"][::-1]}, "messages", "has a wrong order of roles"),
    (GOOD | {"messages": GOOD["messages"][:1]}, "messages", "is missing"),
    (
        GOOD | {"messages": [GOOD["messages"][0], {"role": "assistant", "content": "  "}]},
        "messages",
        "is empty",
    ),
    (GOOD | {"system": 5.5, "messages": 3}, "messages", "is not a list of messages"),
    (GOOD | {"system": "<image>"}, "system", "has an image mark outside the question"),
    (GOOD | {"answer": ["2"]}, "answer", "is not a string"),
    (GOOD | {"choices": "2 or 3"}, "choices", "is not a list"),
    (GOOD | {"choices": ["2", None]}, "choices", "has an empty entry"),
    (GOOD | {"id": True}, "id", "is not a string"),
    (GOOD | {"loss_spans": [[0, 9000]]}, "loss_spans", "has a span outside its completion"),
    (GOOD | {"loss_spans": "all"}, "loss_spans", "is not a list of [start, end] pairs"),
    ({"prompt": 5, "completion": "2"}, "prompt", "is neither text nor a list of messages"),
    ({"prompt": " ", "completion": "2"}, "question", "is empty"),
    ({"prompt": "Why?"}, "completion", "is missing"),
    ({"prompt": GOOD["messages"], "images": ["img/a.png"]}, "prompt",
     "ends with an answer; it belongs into the completion"),
    ({"prompt": "Why?", "teacher_response": "2"}, "prompt", "is not a list of messages"),
    (
        {
            "prompt": [{"role": "user", "content": [{"type": "image", "image": "img/a.png"}]}],
            "completion": "2",
            "images": ["img/a.png"],
        },
        "images",
        "stands beside images given inside the messages",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "field", "reason"), BAD_EXAMPLES)
def test_a_bad_example_is_rejected_alone_and_named(folder: Path, row: Any, field: str, reason: str) -> None:
    file = write_lines(folder / "sft.jsonl", [GOOD, row, GOOD])
    with RejectLog(folder / "rejects.jsonl") as rejects:
        assert len(list(read_examples(file, rejects=rejects))) == 2
    (entry,) = [json.loads(line) for line in rejects.path.read_text().splitlines()]
    assert (entry["file"], entry["row"], entry["field"], entry["reason"]) == (str(file), 2, field, reason)

    with pytest.raises(DataError) as caught:
        list(read_examples(file))
    assert str(caught.value).startswith(f"{file}, row 2: {field} {reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "good", "bad", "field", "reason"),
    [
        (read_prompts, GOOD, GOOD | {"answer": " ", "id": "1"}, "answer", "is empty"),
        (read_prompts, GOOD, GOOD | {"answer": None, "id": "1"}, "answer", "is empty"),
        (read_prompts, GOOD, GOOD, "id", "is that of an earlier row"),
        (demonstrations, GOOD, GOOD | {"messages": [GOOD["messages"][0], {"role": "assistant", "content": "2"}]},
         "messages", "is an invalid response: missing_caption"),
        (pairs, pair_row(), pair_row(question=None), "prompt", "is missing"),
        (pairs, pair_row(), pair_row(question=7), "question", "is not a string"),
        (pairs, pair_row(), pair_row(student_caption=None, student_cot=None), "student_response",
         "is missing, and so are student_caption and student_cot"),
        (pairs, pair_row(), pair_row(student_cot="1 + 2.", answer="2"), "student_cot",
         "has no answer, nor has the row"),
        (pairs, pair_row(), pair_row(teacher_response="2"), "teacher_response",
         "is an invalid response: missing_caption"),
        (pairs, pair_row(), pair_row(image="img/lost.png"), "image", "names a file that does not exist"),
    ],
)  # fmt: skip
def test_what_single_readers_ask_for(
    folder: Path, read: Callable[..., Iterator[object]], good: object, bad: object, field: str, reason: str
) -> None:
    file = write_lines(folder / "data.jsonl", [good, bad])
    with RejectLog(folder / "rejects.jsonl") as rejects:
        assert len(list(read(file, rejects=rejects))) == 1
    entry = json.loads(rejects.path.read_text())
    assert (entry["row"], entry["field"], entry["reason"]) == (2, field, reason)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"reward_model": {"style": "rule", "ground_truth": ""}}, "reward_model.ground_truth", "is empty"),
        ({"reward_model": None}, "reward_model.ground_truth", "is empty"),
        ({"extra_info": {"index": 8, "choices": [None]}}, "extra_info.choices", "has an empty entry"),
        ({"images": [{"bytes": None, "path": None}]}, "images", "has an entry with neither bytes nor path"),
        ({"images": None}, "images", "differ in number from the image marks"),
        ({"prompt": None}, "row", "has neither prompt, messages nor conversations"),
    ],
)
def test_bad_verl_rows(folder: Path, changes: dict[str, Any], field: str, reason: str) -> None:
    bad = verl_row(extra_info={"index": 8}) | changes
    file = write_parquet(folder / "train.parquet", [verl_row(), bad])
    with RejectLog(folder / "rejects.jsonl") as rejects:
        assert [prompt.id for prompt in read_prompts(file, rejects=rejects)] == ["geometry-7"]
    entry = json.loads(rejects.path.read_text())
    assert (entry["row"], entry["field"], entry["reason"]) == (2, field, reason)


@pytest.mark.parametrize("damage", ["truncated", "not an image", "empty"])
def test_undecodable_images_are_found_when_asked_for(folder: Path, damage: str) -> None:
    whole = png()
    content = {"truncated": whole[: len(whole) // 2], "not an image": b"GIF89a, or so it says", "empty": b""}[damage]
    (folder / "img" / "broken.png").write_bytes(content)
    file = write_lines(folder / "sft.jsonl", [GOOD, GOOD | {"images": ["img/broken.png"]}])
    with RejectLog(folder / "rejects.jsonl") as rejects:
        assert len(list(read_examples(file, rejects=rejects, check_all=checking(check_decoded)))) == 1
    entry = json.loads(rejects.path.read_text())
    assert (entry["row"], entry["field"]) == (2, "images")
    assert entry["reason"] == "has an image that cannot be decoded"
    assert "broken.png" in entry["detail"]


def test_rows_are_checked_together_and_keep_their_order(folder: Path) -> None:
    """Each of two rows waits until the other is being checked; the first takes longer than the next two."""
    rows = [GOOD | {"id": str(place)} for place in range(10)]
    file = write_lines(folder / "sft.jsonl", rows)
    both, rest = threading.Barrier(2, timeout=30), threading.Event()

    def check(example: Any, images: Decoded) -> None:
        place = int(example.prompt.id)
        if place < 2:
            both.wait()
        if place == 0:
            assert rest.wait(30)
        if place == 2:
            rest.set()
        if place % 3 == 2:
            raise RowError("images", "are not wanted", str(place))

    with RejectLog(folder / "rejects.jsonl") as rejects:
        kept = [example.prompt.id for example in read_examples(file, rejects=rejects, check_all=checking(check))]
    assert kept == ["0", "1", "3", "4", "6", "7", "9"]
    assert [json.loads(line)["row"] for line in rejects.path.read_text().splitlines()] == [3, 6, 9]


def test_rows_before_a_tear_are_read_and_rejected(folder: Path) -> None:
    file = folder / "sft.json"
    file.write_text(json.dumps([GOOD | {"id": str(place)} for place in range(40)])[:-9])

    def check(example: Any, images: Decoded) -> None:
        if example.prompt.id == "3":
            raise RowError("images", "are not wanted")

    kept = []
    with RejectLog(folder / "rejects.jsonl") as rejects:
        examples = read_examples(file, rejects=rejects, check_all=checking(check))
        with pytest.raises(DataError, match=r"sft\.json.*JSON"):
            kept.extend(example.prompt.id for example in examples)
    assert kept == [str(place) for place in range(39) if place != 3]
    assert rejects.counts == {"images are not wanted": 1}


def test_an_unreadable_line_is_a_rejected_row(folder: Path) -> None:
    file = folder / "sft.jsonl"
    file.write_text(json.dumps(GOOD) + '\n{"messages": [')
    with RejectLog(folder / "rejects.jsonl") as rejects:
        assert len(list(read_examples(file, rejects=rejects))) == 1
    assert rejects.counts == {"row is not valid JSON": 1}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=any_json_row)
@pytest.mark.parametrize("read", [read_examples, read_prompts, demonstrations, pairs])
def test_no_row_is_strange_enough_for_another_error(
    folder: Path, read: Callable[..., Iterator[object]], row: dict[str, Any]
) -> None:
    file = write_lines(folder / "data.jsonl", [row])
    with RejectLog(folder / "rejects.jsonl") as rejects:
        try:
            num_kept = len(list(read(file, rejects=rejects)))
        except DataError:
            num_kept = 0
    assert num_kept + rejects.total == 1


def test_a_file_with_every_row_rejected_is_an_error(folder: Path) -> None:
    file = write_lines(folder / "sft.jsonl", [GOOD | {"images": ["img/lost.png"]}] * 3)
    with RejectLog(folder / "rejects.jsonl") as rejects:
        with pytest.raises(DataError, match=r"all 3 rows were rejected; row 1: images names a file that does not"):
            list(read_examples(file, rejects=rejects))
        assert rejects.total == 3


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (read_examples, {"text": "Why?"}, "found text"),
        (read_examples, {"prompt": "Why?", "answer": "2"}, "none of the columns messages, "),
        (read_prompts, {"prompt": "Why?", "label": "2"}, "found label, prompt"),
        (pairs, {"question": "Why?", "student_caption": "2"}, "none of the columns teacher_response"),
    ],
)
def test_parquet_without_a_needed_column_is_refused_at_the_call(
    folder: Path, read: Callable[..., Iterator[object]], row: dict[str, Any], message: str
) -> None:
    file = write_parquet(folder / "data.parquet", [row])
    with RejectLog(folder / "rejects.jsonl") as rejects, pytest.raises(DataError, match=message):
        read(file, rejects=rejects)


@pytest.mark.parametrize("read", [read_examples, read_prompts, demonstrations, pairs])
@pytest.mark.parametrize(("name", "content"), [("a.csv", "x"), ("a.json", "[1,"), ("a.jsonl", ""), ("a.parquet", "x")])
def test_wrong_files_are_refused_at_the_call(
    folder: Path, read: Callable[..., Iterator[object]], name: str, content: str
) -> None:
    (folder / name).write_text(content)
    with RejectLog(folder / "rejects.jsonl") as rejects, pytest.raises(DataError, match=re.escape(name)):
        read(folder / name, rejects=rejects)


def test_a_file_of_blank_lines_has_no_rows(folder: Path) -> None:
    (folder / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no rows"):
        list(read_examples(folder / "blank.jsonl"))


def test_rows_are_read_as_they_are_asked_for(folder: Path) -> None:
    file = write_lines(folder / "sft.jsonl", [GOOD, "bad"])
    examples = read_examples(file)
    assert next(examples).completion == RESPONSE
    with pytest.raises(DataError, match="row 2"):
        next(examples)
