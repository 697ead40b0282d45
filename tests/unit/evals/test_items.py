"""Which rows a limit keeps: the same share of every part of a benchmark, in the order of the rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prism.errors import DataError
from prism.evals.benchmarks import BENCHMARKS
from prism.evals.items import read_items
from prism.evals.scoring import aggregate, score_item
from prism.evals.sources import Source, SourceRow, load_benchmark

MMMU, MMMU_PRO = BENCHMARKS["mmmu"], BENCHMARKS["mmmu_pro"]


def source(*rows: dict[str, Any]) -> Source:
    found = [SourceRow(Path("test.jsonl"), number, row) for number, row in enumerate(rows, start=1)]
    return Source("test", Path("."), "0" * 64, lambda: iter(found))


def standard(number: int) -> dict[str, Any]:
    row = {"id": f"test_Math_{number}", "options": "['1', '2']", "answer": "A", "subject": "Math"}
    return row | {"question": "<image 1> How many?", "image_1": {"bytes": b"figure"}}


def vision(number: int) -> dict[str, Any]:
    row = standard(number)
    return {name: row[name] for name in ("id", "options", "answer", "subject")} | {"image": {"bytes": b"page"}}


def mmmu(subject: str, number: int) -> dict[str, Any]:
    row = {"id": f"validation_{subject}_{number}", "question": "<image 1> How many?", "options": "[]", "answer": "5"}
    return row | {"question_type": "open", "image_1": {"bytes": b"figure"}}


def test_a_limit_keeps_both_forms_of_the_same_questions() -> None:
    """The forms stand one behind the other; the second one's order differs."""
    rows = source(*map(standard, range(20)), *map(vision, reversed(range(20))))
    for limit in (2, 8, 40, 99):
        items = read_items(MMMU_PRO, rows, limit=limit)
        questions = range(min(limit // 2, 20))
        expected = [f"standard/test_Math_{number}" for number in questions]
        assert list(items) == expected + [f"vision/test_Math_{number}" for number in reversed(questions)]
        scores = [score_item("mmmu_pro", item.row, "A") for item in items.values()]
        metrics = aggregate("mmmu_pro", scores)
        assert metrics["accuracy"].mean == 1 and metrics["accuracy"].count == len(questions)
    assert Counter(name.partition("/")[0] for name in read_items(MMMU_PRO, rows, limit=5)) == {
        "standard": 3,
        "vision": 2,
    }


def test_a_limit_on_a_copy_of_the_hub_s_repository(tmp_path: Path) -> None:
    for config, make in zip(MMMU_PRO.hub_configs, (standard, vision), strict=True):
        (tmp_path / config).mkdir()
        rows = [make(number) for number in range(4)]
        for row in rows:
            row |= {name: "a.png" for name in ("image", "image_1") if name in row}
        (tmp_path / config / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.png").write_bytes(b"figure")
    items = read_items(MMMU_PRO, load_benchmark(MMMU_PRO, tmp_path), limit=4)
    assert list(items) == [f"{form}/test_Math_{number}" for form in ("standard", "vision") for number in (0, 1)]


def test_a_limit_deals_evenly_with_the_subjects() -> None:
    """Art has one question only, so that the others give more."""
    rows = source(mmmu("Art", 1), *(mmmu(subject, n) for subject in ("Math", "Physics") for n in range(1, 6)))
    names = [name.removeprefix("validation_") for name in read_items(MMMU, rows, limit=6)]
    assert names == ["Art_1", "Math_1", "Math_2", "Math_3", "Physics_1", "Physics_2"]
    assert [len(read_items(MMMU, rows, limit=limit)) for limit in (1, 2, 11, 50)] == [1, 2, 11, 11]


def test_every_benchmark_deals_with_a_key_it_has() -> None:
    assert {name for name, benchmark in BENCHMARKS.items() if benchmark.limit_by} == {"mmmu", "mmmu_pro"}
    assert (MMMU.limit_by in MMMU.keys(mmmu("Art", 1)), MMMU_PRO.limit_by in MMMU_PRO.keys(vision(1))) == (True, True)


def test_a_row_without_its_part_is_named() -> None:
    with pytest.raises(DataError, match=r"test\.jsonl, row 2: id names no subject"):
        read_items(MMMU, source(mmmu("Art", 1), mmmu("Art", 2) | {"id": "12"}), limit=1)
