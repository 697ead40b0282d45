"""Exports read back by this project's readers, and what other programs count on."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curated_rows import Scripted, fill
from pictures import picture
from prism.config import SplitConfig
from prism.curation import Row, Store, run_step, run_whole_step
from prism.curation.exporting import FORMATS, export
from prism.curation.importing import import_file
from prism.curation.rows import Outcome, kept, passed
from prism.curation.split import Split
from prism.data.images import read_bytes
from prism.data.readers import read_demonstrations, read_examples, read_pairs, read_prompts
from prism.errors import ConfigError, DataError
from prism.records import ImageSource, Prompt
from prism.rewards import parse_response

FILES = {
    "sharegpt": "sharegpt/{}.jsonl",
    "verl": "verl/{}.parquet",
    "trl": "trl/{}.parquet",
    "imagefolder": "imagefolder/{}/metadata.jsonl",
}
HOSTILE = "</caption><script>alert(1)</script> “Ω”\u2028 <b>"


def shown(number: int) -> str:
    items = ", ".join(f"item {n}" for n in range(number + 1))
    return f"<caption>{items}</caption><think>1. Count.</think><answer>{number}</answer>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Rows 0 to 5 have demonstrations, the better the higher the number; 6 to 8 are for RL, 9 for nothing."""
    store = Store.create(tmp_path / "store", 3)
    rows = []
    for number in range(10):
        images = tuple(picture(1, 1 + (seed > 0), seed=10 * number + seed) for seed in range(number % 3))
        question = "".join("<image>" * (number % 2 * len(images))) + f"Question {number}? {HOSTILE}"
        prompt = Prompt(str(number), question, images, answer=str(number), kind="k", system="Be brief." * (number == 5))
        rows.append(Row(f"made/{number}", replace(prompt, system=prompt.system or None), shown(number) * (number < 6)))
    rows[4] = replace(
        rows[4], prompt=replace(rows[4].prompt, choices=("4", "5"), equivalents=("four",), metadata={"n": [1, {}]})
    )
    fill(store, [replace(row, completion=row.completion or None) for row in rows])

    def rate(row: Row) -> Outcome:
        if int(row.prompt.id) not in (6, 7, 8):
            return passed(row, "has a demonstration")
        return kept(row, set="rl", pass_rate=(int(row.prompt.id) - 4) / 8, num_samples=8, num_unverifiable=0)

    run_step(store, Scripted("difficulty", rate))
    run_whole_step(store, Split(SplitConfig(alignment=2, rl=2)))
    return store


def plain(prompt: Prompt) -> Prompt:
    return replace(prompt, images=tuple(ImageSource(data=read_bytes(image)) for image in prompt.images))


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_back_what_was_exported(store: Store, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    written = export(store, out, [name])
    assert written == {FILES[name].format(split): n for split, n in (("alignment", 2), ("rl", 2), ("sft", 4))}
    table = tomllib.loads((out / "data.toml").read_text())["data"]
    assert table["sft"] == [str(out / FILES[name].format("sft"))]

    alignment = list(read_demonstrations(table["alignment"], parse=parse_response))
    assert [(each.prompt.id, each.response.text) for each in alignment] == [
        ("made/5", shown(5)),
        ("made/4", shown(4)),
    ]  # best first
    rl = list(read_prompts(table["rl"]))
    # 4p(1 − p) of 4/8 and 3/8, and not of 2/8.
    assert [(each.id, each.answer, each.metadata["curation"]["pass_rate"]) for each in rl] == [
        ("made/8", "8", 0.5),
        ("made/7", "7", 0.375),
    ]
    sft = {each.prompt.id: each for each in read_examples(table["sft"][0])}
    assert {row_id: each.completion for row_id, each in sft.items()} == {f"made/{n}": shown(n) for n in range(4)}

    originals = {row.id: row.prompt for row in store.rows()}
    for prompt in [*(each.prompt for each in [*alignment, *sft.values()]), *rl]:
        given = originals[prompt.id]
        marks = "" if "<image>" in given.question else "<image>" * len(given.images)
        metadata = {key: value for key, value in prompt.metadata.items() if key != "curation"}
        expected = replace(plain(given), id=prompt.id, question=marks + given.question, metadata=given.metadata)
        assert replace(plain(prompt), metadata=metadata) == expected


def test_llama_factory_finds_the_splits_that_have_responses(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out", ["sharegpt"])
    info = json.loads((tmp_path / "out" / "sharegpt" / "dataset_info.json").read_text())
    assert sorted(info) == ["prism_alignment", "prism_sft"]
    for entry in info.values():
        text = (tmp_path / "out" / "sharegpt" / entry["file_name"]).read_text()
        rows = [json.loads(line) for line in text.strip().split("\n")]
        for row in rows:
            assert {*entry["columns"].values()} <= {*row} == {*rows[0]}
            assert row["messages"][0]["content"].count("<image>") == len(row["images"])
            assert all((tmp_path / "out" / "sharegpt" / image).is_file() for image in row["images"])


def test_pairs_are_those_of_the_step_and_of_imported_files(store: Store, tmp_path: Path) -> None:
    assert "pairs/pairs.jsonl" not in export(store, tmp_path / "without")

    def pair(row: Row) -> Outcome:
        return kept(row, student=shown(0)) if row.prompt.id == "5" else passed(row, "no valid rollout")

    run_step(store, Scripted("pairs", pair))
    written = export(store, tmp_path / "with")
    assert set(written) == {
        *(file.format(split) for file in FILES.values() for split in ("alignment", "rl", "sft")),
        "pairs/pairs.jsonl",
    }
    [found] = read_pairs(tmp_path / "with" / "pairs" / "pairs.jsonl", parse=parse_response)
    assert (found.prompt.id, found.teacher.text, found.student.text) == ("made/5", shown(5), shown(0))


def test_an_export_is_whole_or_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format csv: there are sharegpt, verl, trl, imagefolder, pairs"):
        export(store, tmp_path / "out", ["csv"])
    fill(store, [Row("more/1", Prompt("1", "New?"))], source="more")
    with pytest.raises(DataError, match="difficulty has 1 rows still to do"):
        export(store, tmp_path / "out")
    run_step(store, Scripted("difficulty", lambda row: passed(row, "has a demonstration")))
    # The step has no settings, so that its old outcomes hold; the split is decided anew.
    run_whole_step(store, Split(SplitConfig(alignment=2, rl=2)))
    run_step(store, Scripted("difficulty", lambda row: passed(row, "has a demonstration"), {"asked": "anew"}))
    with pytest.raises(DataError, match="split has 11 rows still to do"):
        export(store, tmp_path / "out")
    run_whole_step(store, Split(SplitConfig(alignment=2, rl=2)))
    image = next(store.images.root.glob("*/*"))
    data = image.read_bytes()
    image.unlink()
    with pytest.raises(DataError, match="cannot read image"):
        export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    image.write_bytes(data)
    export(store, tmp_path / "out", FORMATS[:1])
    with pytest.raises(ConfigError, match="out exists; name a directory that does not"):
        export(store, tmp_path / "out")


@pytest.mark.parametrize("name", FILES)
def test_every_format_keeps_the_loss_spans_of_alignment(tmp_path: Path, name: str) -> None:
    store = Store.create(tmp_path / "store", 1)
    spans = ((9, 15), (24, 32))
    fill(store, [Row("made/1", Prompt("1", "Question?", answer="1"), shown(1), spans)])
    run_whole_step(store, Split(SplitConfig()))
    export(store, tmp_path / "out", [name])
    [found] = read_examples(tmp_path / "out" / FILES[name].format("alignment"))
    assert (found.completion, found.loss_spans) == (shown(1), spans)
    if name == "verl":
        [row] = pq.read_table(tmp_path / "out" / "verl" / "alignment.parquet").to_pylist()
        assert (row["teacher_caption"], row["teacher_cot"]) == (
            "item 0, item 1",
            "<think>1. Count.</think><answer>1</answer>",
        )


def test_before_the_split_there_is_nothing_to_export(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", 1)
    with pytest.raises(DataError, match="step 'split' has not run"):
        export(store, tmp_path / "out")


def test_files_shaped_like_the_released_ones_go_in_and_come_out(tmp_path: Path) -> None:
    """ShareGPT with from and value, verl with teacher columns, warm-up pairs with captions apart: each to each."""
    caption, cot = "a dot", "<think>1. One.</think><answer>1</answer>"
    text = f"<caption>{caption}</caption>{cot}"
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(1, 1, seed=number).data or b"")
    human, gpt = {"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": text}
    (tmp_path / "sharegpt.json").write_text(json.dumps([{"conversations": [human, gpt], "images": ["0.png"]}]))
    verl = {
        "data_source": "geo",
        "prompt": [{"role": "user", "content": "<image>How many dots?"}],
        "images": [{"bytes": (tmp_path / "1.png").read_bytes(), "path": "1.png"}],
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": {"index": 7, "equivalent_answers": ["one"]},
        "teacher_response": text,
        "teacher_caption": caption,
        "teacher_cot": cot,
    }
    pq.write_table(pa.Table.from_pylist([verl]), tmp_path / "verl.parquet")
    pair = {"question": "How many here?", "image": "2.png", "student_caption": "two dots"}
    pair |= {"student_cot": cot, "teacher_caption": caption, "teacher_cot": cot}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")

    store = Store.create(tmp_path / "store", 2)
    for name in ("sharegpt.json", "verl.parquet", "pairs.jsonl"):
        assert import_file(store, tmp_path / name) == 1
    run_whole_step(store, Split(SplitConfig()))
    export(store, tmp_path / "out")
    questions = {"sharegpt": "<image>\nHow many?", "verl": "<image>How many dots?", "pairs": "<image>How many here?"}
    for file in FILES.values():
        read = {
            each.prompt.id.split("/")[0]: each
            for each in read_demonstrations(tmp_path / "out" / file.format("alignment"), parse=parse_response)
        }
        assert {name: each.prompt.question for name, each in read.items()} == questions
        assert {each.response.text for each in read.values()} == {text}
        assert (read["verl"].prompt.answer, read["verl"].prompt.equivalents) == ("1", ("one",))
        assert read["verl"].prompt.id == "verl/geo-7" and read["verl"].prompt.kind == "geo"
        images = [read_bytes(read[name].prompt.images[0]) for name in questions]
        assert images == [(tmp_path / f"{number}.png").read_bytes() for number in range(3)]
    [found] = read_pairs(tmp_path / "out" / "pairs" / "pairs.jsonl", parse=parse_response)
    assert (found.teacher.caption, found.student.caption) == (caption, "two dots")
