"""Files as other programs write them. What is wrong with files is in test_readers_rejects."""

import base64
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prism.data.images import read_bytes
from prism.data.readers import read_demonstrations, read_examples, read_pairs, read_prompts
from prism.data.writers import write_sharegpt
from prism.errors import DataError
from prism.records import ImageSource, Prompt
from prism.rewards.format import parse_response

RESPONSE = "<caption>Two dots.</caption><think>1 + 1.</think><answer>2</answer>"


def png(colour: str = "red") -> bytes:
    stream = BytesIO()
    Image.new("RGB", (16, 12), colour).save(stream, "PNG")
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
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        (tmp_path / "img" / name).write_bytes(png(colour))
    return tmp_path


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                {"role": "user", "content": "<image>Or <image>?"},
                {"role": "assistant", "content": RESPONSE},
            ],
            "images": ["img/a.png", "img/b.png"],
            "system": "Be brief.",
        },
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "<image>Or <image>?"},
                {"from": "gpt", "value": RESPONSE},
            ],
            "images": ["img/a.png", "img/b.png"],
        },
        {
            "prompt": "<image>Or <image>?",
            "completion": RESPONSE,
            "images": ["img/a.png", "img/b.png"],
            "system": "Be brief.",
        },
        {
            "prompt": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "img/a.png"},
                        {"type": "text", "text": "Or "},
                        {"type": "image", "image": "img/b.png"},
                        {"type": "text", "text": "?"},
                    ],
                },
            ],
            "completion": [{"role": "assistant", "content": RESPONSE}],
        },
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Or <image>?"}],
            "images": [{"bytes": None, "path": "img/a.png"}, {"bytes": None, "path": "img/b.png"}],
            "teacher_response": RESPONSE,
        },
    ],
    ids=["messages", "conversations", "trl-text", "trl-messages", "verl"],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_one_example_in_every_format(folder: Path, row: dict[str, Any], suffix: str) -> None:
    file = folder / f"data{suffix}"
    if suffix == ".parquet":
        write_parquet(file, [row])
    elif suffix == ".json":
        file.write_text(json.dumps([row]))
    else:
        write_lines(file, [row])
    (example,) = read_examples(file)
    assert example.completion == RESPONSE
    assert example.prompt.question == "<image>Or <image>?"
    assert example.prompt.system == "Be brief."
    assert example.prompt.images == (
        ImageSource(path=folder / "img" / "a.png"),
        ImageSource(path=folder / "img" / "b.png"),
    )


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


def test_a_verl_file_as_its_preprocessing_scripts_write_it(folder: Path) -> None:
    file = write_parquet(folder / "train.parquet", [verl_row()])
    [prompt] = read_prompts(file)
    assert replace(prompt, images=()) == Prompt(
        id="geometry-7",
        question="<image>Find x.",
        answer="35",
        kind="geometry",
        choices=("35", "53"),
        equivalents=("x=35",),
        metadata={"ability": "math", "split": "train"},
    )
    assert list(map(read_bytes, prompt.images)) == [png()]


ASKED = "What is the area?"
SHOWN = "What is the area?\nA. 10\nB. 20"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "answer": "B"},
        {"messages": [{"role": "user", "content": ASKED}], "answer": "B"},
        {"conversations": [{"from": "human", "value": ASKED}], "answer": "B", "extra_info": ""},
        {"prompt": [{"role": "user", "content": ASKED}], "reward_model": {"ground_truth": "B"}},
    ],
)
def test_a_column_of_choices_is_shown_in_the_question(folder: Path, row: dict[str, Any]) -> None:
    rows = [
        row | {"choices": [10, "20"]},
        row | {"choices": [10, "20"], "id": "own"},
        row | {"choices": None, "id": "open"},
    ]
    anonymous, named, without = read_prompts(write_lines(folder / "rl.jsonl", rows))
    assert (named.question, named.choices, named.answer) == (SHOWN, ("10", "20"), "B")
    assert (without.question, without.choices) == (ASKED, ())
    assert replace(anonymous, id="own") == named


def test_every_reader_shows_the_choices_and_none_twice(folder: Path) -> None:
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": RESPONSE}]
    rows = [{"messages": turns, "choices": ["10", "20"]}]
    [example] = read_examples(write_lines(folder / "sft.jsonl", rows))
    [demonstration] = read_demonstrations(folder / "sft.jsonl", parse=parse_response)
    pair = {"question": ASKED, "choices": ["10", "20"], "teacher_response": RESPONSE, "student_response": RESPONSE}
    [read_pair] = read_pairs(write_lines(folder / "pairs.jsonl", [pair]), parse=parse_response)
    assert {each.prompt.question for each in (example, demonstration, read_pair)} == {SHOWN}
    # Written and read again, by the writers and as columns.
    write_sharegpt(folder / "again.jsonl", [example], folder)
    assert list(read_examples(folder / "again.jsonl")) == [example]
    rows = [{"messages": [{"role": "user", "content": SHOWN}, turns[1]], "choices": ["10", "20"]}]
    [columns] = read_examples(write_lines(folder / "columns.jsonl", rows))
    assert columns.prompt.question == SHOWN


def test_choices_may_be_pictures(folder: Path) -> None:
    row = {"prompt": "<image>Which is like it?", "choices": ["<image>", "<image>"], "answer": "A"}
    [prompt] = read_prompts(
        write_lines(folder / "rl.jsonl", [row | {"images": ["img/a.png", "img/b.png", "img/a.png"]}])
    )
    assert prompt.question == "<image>Which is like it?\nA. <image>\nB. <image>"
    write_lines(folder / "rl.jsonl", [row | {"images": ["img/a.png"]}])
    with pytest.raises(DataError, match=r"differ in number from the image marks \(1 for 3 marks\)"):
        list(read_prompts(folder / "rl.jsonl"))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_integers_of_any_size_are_answers(folder: Path, suffix: str) -> None:
    huge = 10**400
    row = {"prompt": "How many?", "answer": huge, "equivalents": [-huge], "choices": [1, huge], "n": huge, "kind": huge}
    file = folder / f"rl{suffix}"
    file.write_text(json.dumps([row]) if suffix == ".json" else json.dumps(row) + "\n")
    [prompt] = read_prompts(file)
    assert (prompt.answer, prompt.equivalents, prompt.kind) == (str(huge), (f"-{huge}",), str(huge))
    assert prompt.choices == ("1", str(huge)) and prompt.metadata == {"n": huge}


def test_teacher_parts_stand_in_for_a_missing_teacher_response(folder: Path) -> None:
    rows = [
        verl_row(teacher_response=None, teacher_caption="Two dots.", teacher_cot="1 + 1."),
        verl_row(teacher_response=RESPONSE, teacher_caption=None, teacher_cot=None),
    ]
    file = write_parquet(folder / "align.parquet", rows)
    composed, given = read_demonstrations(file, parse=parse_response)
    assert (composed.response.caption, composed.response.think, composed.response.answer) == (
        "Two dots.",
        "1 + 1.",
        "35",
    )
    assert given.response == parse_response(RESPONSE)
    assert [example.completion for example in read_examples(file)] == [composed.response.text, RESPONSE]


def test_a_trl_file_for_rl_has_an_answer_column(folder: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": "What is 2 + 3?"}], "solution": "5", "level": 2},
        {"prompt": "What is 2 * 3?", "answer": 6, "id": 12},
    ]
    first, second = read_prompts(write_lines(folder / "rl.jsonl", rows))
    assert (first.answer, first.metadata) == ("5", {"level": 2})
    assert (second.answer, second.id) == ("6", "12")


def test_an_image_without_any_mark_is_allowed(folder: Path) -> None:
    file = write_lines(folder / "rl.jsonl", [{"prompt": "How many?", "image": "img/a.png", "answer": "2"}])
    (prompt,) = read_prompts(file)
    assert len(prompt.images) == 1 and prompt.question == "How many?"


def test_a_messages_row_may_take_base64_images(folder: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "How many?"}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "2"}]}
    (example,) = read_examples(write_lines(folder / "sft.jsonl", [row]))
    assert example.prompt.images == (ImageSource(data=png()),)


def test_an_image_root_of_ones_own(folder: Path) -> None:
    (folder / "lists").mkdir()
    file = write_lines(folder / "lists" / "rl.jsonl", [{"prompt": "<image>?", "images": ["a.png"], "answer": "2"}])
    (prompt,) = read_prompts(file, image_root=folder / "img")
    assert prompt.images == (ImageSource(path=folder / "img" / "a.png"),)
    with pytest.raises(DataError, match="does not exist"):
        list(read_prompts(file))


def test_rows_without_an_id_get_one_from_their_content(folder: Path) -> None:
    rows = [
        {"prompt": "<image>?", "images": ["img/a.png"], "answer": "2"},
        {"prompt": "<image>?", "images": ["img/b.png"], "answer": "2"},
        {"prompt": "<image>?", "images": ["img/a.png"], "answer": "3"},
    ]
    ids = [prompt.id for prompt in read_prompts(write_lines(folder / "rl.jsonl", rows))]
    assert len(set(ids)) == 3

    moved = folder.parent / f"{folder.name}-moved"
    folder.rename(moved)
    reversed_ids = [prompt.id for prompt in read_prompts(write_lines(moved / "other.jsonl", rows[::-1]))]
    assert reversed_ids == ids[::-1]


def pair_row(**changes: Any) -> dict[str, Any]:
    return {
        "question": "<image>How many?",
        "image": "img/a.png",
        "teacher_caption": "Two dots.",
        "teacher_cot": "<think>1 + 1.</think><answer>2</answer>",
        "student_caption": "Three dots.",
        "student_cot": "<think>1 + 2.</think><answer>3</answer>",
    } | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"question": None, "prompt": "<image>How many?"},
        {"question": None, "prompt": [{"role": "user", "content": "<image>How many?"}]},
        {"teacher_response": RESPONSE, "teacher_caption": None, "teacher_cot": None},
        {"teacher_cot": "1 + 1.", "answer": "2"},
    ],
)
def test_warm_up_pairs(folder: Path, changes: dict[str, Any]) -> None:
    (pair,) = read_pairs(write_lines(folder / "pairs.jsonl", [pair_row(**changes)]), parse=parse_response)
    assert pair.prompt.question == "<image>How many?"
    assert pair.prompt.images == (ImageSource(path=folder / "img" / "a.png"),)
    assert pair.teacher == parse_response(RESPONSE)
    assert (pair.student.caption, pair.student.think, pair.student.answer) == ("Three dots.", "1 + 2.", "3")
