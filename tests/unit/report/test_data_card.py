"""The card of a data set: what it shows, and what is wrong told in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from prism.errors import DataError
from prism.report import render_data_card


def funnel(step: str, num_kept: int, **parts: Any) -> dict[str, Any]:
    parts = {"num_pending": 0, "dropped": {}, "passed": {}} | parts
    num_in = num_kept + parts["num_pending"] + sum(parts["dropped"].values()) + sum(parts["passed"].values())
    return {"step": step, "num_kept": num_kept, "num_in": num_in, **parts}


@pytest.fixture
def statistics() -> dict[str, Any]:
    return {
        "store": "geometry",
        "funnels": [
            funnel("import of a", 1200, dropped={"images has an image that cannot be decoded": 34}),
            funnel("verify", 900, num_pending=100, dropped={"wrong": 150}, passed={"has no answer to check": 50}),
        ],
        "spending": {
            "teach": {
                "attempts": {"answered": 20, "timeout": 1}, "num_requests": 20, "prompt_tokens": 5000,
                "completion_tokens": 7000, "cost": 1.25, "cost_at_most": 0.05,
            },
            "verify": {"attempts": {}},
        },
        "sources": {"a": {"sft": 600, "rl": 100}, "b": {"alignment": 200}},
        "distributions": [
            {"name": "n", "title": "Words", "counts": {"sft": {"1": 99, "2": 100, "5000": 1}, "rl": {"2": 100}}},
            {"name": "m", "title": "Never measured", "counts": {}},
        ],
        "examples": [
            {
                "split": "rl", "id": "a/1", "question": "<image>How many?", "choices": ["one", "two"], "answer": "2",
                "response": None, "is_valid": False, "facts": {"pass rate": 0.25}, "images": ["../secret.png"],
                "num_images": 3,
            }
        ],
    }  # fmt: skip


def write(directory: Path, statistics: Any) -> Path:
    (directory / "card").mkdir(parents=True, exist_ok=True)
    (directory / "card" / "statistics.json").write_text(json.dumps(statistics))
    return directory


def test_counts_reasons_and_costs_are_on_the_page(tmp_path: Path, statistics: dict[str, Any]) -> None:
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    page = render_data_card(write(tmp_path / "store", statistics), tmp_path / "out.html").read_text()
    for text in (
        "34 dropped: images has an image that cannot be decoded",
        "50 passed: has no answer to check",
        "<dt>Rows read</dt><dd>1,234</dd>",
        "<dt>Rows that went through every step</dt><dd>900</dd>",
        '<th scope="row">a</th><td>0</td><td>100</td><td>600</td>',
        "n = 200, mean 26.5, largest 5,000",
        "<td>20</td><td>21</td><td>5,000</td><td>7,000</td><td>1.25</td><td>0.05</td>",
        "▣ How many?",
        "and 2 more",
        "outside the store and is not shown",
    ):
        assert text in page, text
    assert "Never measured" not in page and "data:image" not in page and "Decoding" not in page


def test_the_bars_are_as_long_as_there_are_rows(tmp_path: Path, statistics: dict[str, Any]) -> None:
    """1,234 rows are 860 − 190 − 96 = 574 wide."""
    page = render_data_card(write(tmp_path, statistics)).read_text()
    for title, count in (("1,200 kept", 1200), ("34 dropped", 34), ("100 still to do", 100)):
        bar = page.partition(f"{title}</title>")[2].partition("/>")[0]
        width = float(bar.partition('width="')[2].partition('"')[0])
        assert width == pytest.approx(574 * count / 1234, abs=0.01)


@pytest.mark.parametrize("damage", ["{", "[]", '{"store": "x"}'])
def test_damage_is_told(tmp_path: Path, damage: str) -> None:
    with pytest.raises(DataError, match=r"statistics\.json.*prism data stats"):
        render_data_card(tmp_path)
    write(tmp_path, {})
    (tmp_path / "card" / "statistics.json").write_text(damage)
    with pytest.raises(DataError, match=r"statistics\.json.*prism data stats"):
        render_data_card(tmp_path)
