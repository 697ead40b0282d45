"""What is written reads back equal; images count by their bytes."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.data.formats import parquet
from prism.data.images import read_bytes
from prism.data.readers import ResponsePair, read_demonstrations, read_examples, read_pairs, read_prompts
from prism.data.writers import write_image_folder, write_pairs, write_sharegpt, write_trl, write_verl_parquet
from prism.errors import DataError, StorageError
from prism.records import Demonstration, Example, ImageSource, Prompt, Response

# Not decodable, which nothing here asks for: only the first bytes tell a format.
FIRST = ImageSource(data=b"\x89PNG\r\n\x1a\n first")
SECOND = ImageSource(data=b"\xff\xd8\xff second")


def parse(text: str) -> Response:
    caption, think, answer = text.split("|")
    return Response(text, True, None, caption, think, answer, (0, len(caption)))


def embedded(prompt: Prompt) -> Prompt:
    """The prompt with its images in memory."""
    return replace(prompt, images=tuple(ImageSource(data=read_bytes(image)) for image in prompt.images))


Record = TypeVar("Record", Example, Demonstration, ResponsePair)


def whole(records: Iterable[Record]) -> list[Record]:
    """The records with their images in memory."""
    return [replace(record, prompt=embedded(record.prompt)) for record in records]


PROMPTS = (
    Prompt("p-1", "<image>How many red dots?", (FIRST,), "2", "count", ("1", "2"), ("two",), "Be brief."),
    Prompt("p-2", "Compare <image> and <image>.\n\n“Ω”\u2028", (FIRST, SECOND), " 1,000 ", "", (), ()),
    Prompt("p-3", "No image & no <mark>?", answer="x", metadata={"scene": {"dots": [[1, 2.5], None, True]}, "": {}}),
)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("image_dir", ["data/images", "elsewhere"])
def test_sharegpt_round_trip(tmp_path: Path, suffix: str, image_dir: str) -> None:
    spans = (None, ((0, 2), (3, 5)), ())
    examples = [Example(prompt, "Eleven.", span) for prompt, span in zip(PROMPTS, spans, strict=True)]
    file = tmp_path / "data" / f"sft{suffix}"
    assert write_sharegpt(file, iter(examples), tmp_path / image_dir) == 3
    read = list(read_examples(file))
    assert whole(read) == examples


def test_sharegpt_rows_are_what_other_programs_expect(tmp_path: Path) -> None:
    write_sharegpt(tmp_path / "sft.json", [Example(PROMPTS[1], "Equal.")], tmp_path / "images")
    (row,) = json.loads((tmp_path / "sft.json").read_text(encoding="utf-8"))
    assert row["messages"] == [
        {"role": "user", "content": PROMPTS[1].question},
        {"role": "assistant", "content": "Equal."},
    ]
    first, second = row["images"]
    assert (first.split("/")[0], Path(first).suffix, Path(second).suffix) == ("images", ".png", ".jpg")
    assert (tmp_path / first).read_bytes() == FIRST.data


def test_equal_images_share_a_file_and_a_damaged_one_is_mended(tmp_path: Path) -> None:
    examples = [Example(replace(PROMPTS[0], id=str(index)), "Two.") for index in range(4)]
    for _ in range(2):
        write_sharegpt(tmp_path / "sft.jsonl", examples, tmp_path / "images")
        (image,) = (tmp_path / "images").iterdir()
        assert image.read_bytes() == FIRST.data
        image.write_bytes(b"damaged")


@pytest.mark.parametrize("num_rows", [1, 64, 65])
def test_verl_prompts_round_trip_over_row_groups(
    tmp_path: Path, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 32)
    prompts = [replace(PROMPTS[index % 3], id=f"{index}") for index in range(num_rows)]
    assert write_verl_parquet(tmp_path / "rl.parquet", iter(prompts)) == num_rows
    assert list(map(embedded, read_prompts(tmp_path / "rl.parquet"))) == prompts


def test_row_groups_are_as_large_as_memory_is_meant_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While rows are asked for, Arrow holds no more than a group, whatever was written before; neither does the
    footer grow by what the rows hold."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2**20)
    noise = random.Random(0).randbytes(2**18)
    held: list[int] = []

    def prompts() -> Iterator[Prompt]:
        before = pa.total_allocated_bytes()
        for number in range(60):
            held.append(pa.total_allocated_bytes() - before)
            image = ImageSource(data=b"\x89PNG\r\n\x1a\n" + bytes([number]) + noise)
            yield Prompt(str(number), f"{number} " * 2000, (image,), "1")

    write_verl_parquet(tmp_path / "rl.parquet", prompts())
    metadata = pq.ParquetFile(tmp_path / "rl.parquet").metadata
    assert metadata.num_row_groups == 15  # four rows of a quarter MiB each
    assert max(held[30:]) <= max(held[:30]) < 8 * 2**20
    assert metadata.serialized_size < 15 * 3000
    assert not any(metadata.row_group(0).column(n).is_stats_set for n in range(metadata.num_columns))

    monkeypatch.setattr(parquet, "GROUP_BYTES", 2**22)
    write_verl_parquet(tmp_path / "rl.parquet", (replace(PROMPTS[2], id=str(n)) for n in range(300)))
    assert pq.ParquetFile(tmp_path / "rl.parquet").metadata.num_row_groups == 1


def test_verl_demonstrations_and_examples_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "align.parquet"
    demonstrations = [Demonstration(prompt, parse("dots|1 + 1|2")) for prompt in PROMPTS]
    write_verl_parquet(file, demonstrations)
    assert whole(read_demonstrations(file, parse=parse)) == demonstrations
    assert list(map(embedded, read_prompts(file))) == list(PROMPTS)

    examples = [
        Example(PROMPTS[0], "Two.", ((0, 3),)),
        Example(PROMPTS[2], "Two.", None),
        Example(PROMPTS[2], "No.", ()),
    ]
    write_verl_parquet(file, examples)
    assert whole(read_examples(file)) == examples


def test_verl_examples_have_their_parts_in_columns_and_keep_their_spans(tmp_path: Path) -> None:
    examples = [Example(PROMPTS[0], "dots|1 + 1|2", ((5, 10),)), Example(PROMPTS[2], "no", None)]

    def parse_valid(text: str) -> Response:
        return parse(text) if "|" in text else Response(text, False, "missing_caption")

    write_verl_parquet(tmp_path / "a.parquet", examples, parse=parse_valid)
    assert whole(read_examples(tmp_path / "a.parquet")) == examples
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    cot = "<think>1 + 1</think><answer>2</answer>"
    assert [(row["teacher_caption"], row["teacher_cot"]) for row in rows] == [("dots", cot), (None, None)]


def test_verl_columns_are_those_that_verl_reads(tmp_path: Path) -> None:
    write_verl_parquet(tmp_path / "a.parquet", [Demonstration(PROMPTS[0], parse("dots|1 + 1|2"))])
    (row,) = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert row["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>How many red dots?"},
    ]
    assert row["images"] == [{"bytes": FIRST.data, "path": "image.png"}]
    assert row["data_source"] == "count"
    assert row["reward_model"] == {"style": "rule", "ground_truth": "2"}
    assert row["extra_info"]["equivalent_answers"] == ["two"]
    assert (row["teacher_response"], row["teacher_caption"]) == ("dots|1 + 1|2", "dots")
    assert row["teacher_cot"] == "<think>1 + 1</think><answer>2</answer>"


def test_images_in_files_are_embedded(tmp_path: Path) -> None:
    (tmp_path / "dots.png").write_bytes(FIRST.data or b"")
    prompt = replace(PROMPTS[0], images=(ImageSource(path=tmp_path / "dots.png"),))
    write_verl_parquet(tmp_path / "a.parquet", [prompt])
    (tmp_path / "dots.png").unlink()
    assert list(map(embedded, read_prompts(tmp_path / "a.parquet"))) == [PROMPTS[0]]


@pytest.mark.parametrize("num_rows", [1, 65])
def test_trl_round_trip(tmp_path: Path, num_rows: int) -> None:
    prompts = [replace(PROMPTS[index % 3], id=f"{index}") for index in range(num_rows)]
    assert write_trl(tmp_path / "rl.parquet", iter(prompts)) == num_rows
    assert list(map(embedded, read_prompts(tmp_path / "rl.parquet"))) == prompts
    spans = (None, ((0, 2), (3, 5)), ())
    examples = [Example(prompt, "Eleven.", spans[index % 3]) for index, prompt in enumerate(prompts)]
    write_trl(tmp_path / "sft.parquet", examples)
    assert whole(read_examples(tmp_path / "sft.parquet")) == examples


def test_image_folders_and_prompts_in_sharegpt_round_trip(tmp_path: Path) -> None:
    examples = [Example(prompt, "Eleven.") for prompt in PROMPTS]
    assert write_image_folder(tmp_path / "sft", examples) == 3
    read = list(read_examples(tmp_path / "sft" / "metadata.jsonl"))
    assert whole(read) == examples
    write_sharegpt(tmp_path / "rl.jsonl", PROMPTS, tmp_path / "images")
    assert [embedded(prompt) for prompt in read_prompts(tmp_path / "rl.jsonl")] == list(PROMPTS)


def test_what_other_json_rows_keep_in_extra_info_stays_theirs(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "Which?", "answer": "1", "extra_info": info} for info in ({"choices": [1]}, "{}x", 7)]
    for row in rows:
        (tmp_path / "rl.jsonl").write_text(json.dumps(row))
        [prompt] = read_prompts(tmp_path / "rl.jsonl")
        assert prompt.choices == () and prompt.metadata == {"extra_info": row["extra_info"]}


def test_pairs_round_trip(tmp_path: Path) -> None:
    pairs = [ResponsePair(prompt, parse("dots|1 + 1|2"), parse("no dots|0|0")) for prompt in PROMPTS]
    assert write_pairs(tmp_path / "pairs.jsonl", iter(pairs), tmp_path / "images") == 3
    read = list(read_pairs(tmp_path / "pairs.jsonl", parse=parse))
    assert whole(read) == pairs


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_verl_parquet(tmp_path / f"{name}.parquet", PROMPTS)
        write_sharegpt(tmp_path / f"{name}.json", [Example(PROMPTS[0], "Two.")], tmp_path / "images")
    for suffix in (".parquet", ".json"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


# Every character but half surrogate pairs, which no file can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VISIBLE = TEXT.filter(lambda text: text.strip() and "<image>" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ANY_PROMPT = st.builds(
    Prompt,
    id=TEXT.filter(bool),
    question=VISIBLE,
    answer=VISIBLE,
    kind=TEXT,
    choices=st.lists(TEXT, max_size=3).map(tuple),
    equivalents=st.lists(TEXT, max_size=2).map(tuple),
    system=st.none() | VISIBLE,
    metadata=st.dictionaries(TEXT, JSON, max_size=4),
)
REUSED_FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@REUSED_FOLDER
@given(prompt=ANY_PROMPT, completion=VISIBLE)
def test_any_text_and_any_json_metadata_survive_sharegpt(tmp_path: Path, prompt: Prompt, completion: str) -> None:
    example = Example(prompt, completion)
    write_sharegpt(tmp_path / "sft.jsonl", [example], tmp_path)
    assert repr(list(read_examples(tmp_path / "sft.jsonl"))) == repr([example])


@REUSED_FOLDER
@given(prompts=st.lists(ANY_PROMPT, min_size=1, max_size=3, unique_by=lambda prompt: prompt.id))
def test_any_text_and_any_json_metadata_survive_verl(tmp_path: Path, prompts: list[Prompt]) -> None:
    write_verl_parquet(tmp_path / "rl.parquet", prompts)
    assert repr(list(read_prompts(tmp_path / "rl.parquet"))) == repr(prompts)


def sharegpt(file: Path, prompts: list[Prompt]) -> None:
    write_sharegpt(file.with_suffix(".jsonl"), (Example(prompt, "Two.") for prompt in prompts), file.parent / "images")


def trl(file: Path, prompts: list[Prompt]) -> None:
    write_trl(file.with_suffix(".parquet"), prompts)


def verl(file: Path, prompts: list[Prompt]) -> None:
    write_verl_parquet(file.with_suffix(".parquet"), prompts)


Write = Callable[[Path, list[Prompt]], None]


@pytest.mark.parametrize("write", [sharegpt, trl, verl])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"position": (1, 2)}}, "p-1, metadata: JSON does not give it back unchanged"),
        ({"metadata": {1: "one"}}, "p-1, metadata: JSON does not give it back unchanged"),
        ({"metadata": {"gap": float("nan")}}, "p-1, metadata: cannot be written as JSON"),
        ({"metadata": {"raw": b"bytes"}}, "p-1, metadata: cannot be written as JSON"),
        ({"question": "half \ud83d"}, "cannot be written as"),
        ({"id": ""}, "without an id"),
        ({"images": (ImageSource(path=Path("lost.png")),)}, "lost.png: cannot read image"),
    ],
)
def test_what_would_not_come_back_is_refused_and_the_old_file_stays(
    tmp_path: Path, write: Write, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path / "data", list(PROMPTS))
    before = {file: file.read_bytes() for file in tmp_path.glob("data.*")}
    with pytest.raises(DataError, match=message):
        write(tmp_path / "data", [PROMPTS[1], replace(PROMPTS[0], **changes)])
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("write", [sharegpt, trl, verl])
def test_an_empty_file_is_never_written(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match="nothing to write"):
        write(tmp_path / "data", [])
    assert not list(tmp_path.iterdir())


def test_wrong_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.json or \.jsonl"):
        write_sharegpt(tmp_path / "a.parquet", [], tmp_path)
    with pytest.raises(DataError, match=r"\.parquet"):
        write_verl_parquet(tmp_path / "a.json", [])
    with pytest.raises(DataError, match=r"\.jsonl"):
        write_pairs(tmp_path / "a.json", [], tmp_path)


def test_kinds_of_records_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a Example among records of type Prompt"):
        write_verl_parquet(tmp_path / "a.parquet", [PROMPTS[0], Example(PROMPTS[1], "Two.")])


@pytest.mark.parametrize("write", [sharegpt, trl, verl])
def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path, write: Write) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*file.data\."):
        write(tmp_path / "file" / "data", [PROMPTS[2]])


def test_a_failing_source_leaves_nothing_behind(tmp_path: Path) -> None:
    def prompts() -> Iterator[Prompt]:
        yield PROMPTS[0]
        raise RuntimeError("the world ends")

    with pytest.raises(RuntimeError, match="the world ends"):
        write_verl_parquet(tmp_path / "a.parquet", prompts())
    assert not list(tmp_path.iterdir())
