"""Counts against hand-worked ones, and a data card that hostile rows cannot get out of."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from curated_rows import Scripted, fill
from html_pages import Page
from pictures import picture
from prism.config import SplitConfig
from prism.curation import Row, Store, run_step, run_whole_step
from prism.curation.rows import Outcome, dropped, kept
from prism.curation.split import Split
from prism.curation.statistics import collect, quantile, statistics_lines
from prism.records import ImageSource, Prompt
from prism.report import render_data_card

HOSTILE = (
    "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\"'><svg onload=alert(3)><a href='javascript:alert(4)'>x</a><!-- ]]> &#60;script> http://evil.example/x.png"
)


def shown(caption: str, steps: int) -> str:
    think = "\n".join(f"{n + 1}. step" for n in range(steps))
    return f"<caption>{caption}</caption><think>{think}</think><answer>2</answer>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", 2)


def test_the_numbers_are_those_of_the_rows(store: Store) -> None:
    wide = io.BytesIO()
    Image.new("RGB", (700, 30)).save(wide, "JPEG")
    rows = [
        Row("a/1", Prompt("1", "one two three", (ImageSource(data=wide.getvalue()),), "2"), shown("x, y", 3)),
        Row("a/2", Prompt("2", "one two", answer="2"), "no format at all"),
        Row("b/3", Prompt("3", "one", answer="2"), None),
        Row("b/4", Prompt("4", "one", answer="2"), None),
    ]
    fill(store, rows)

    def rate(row: Row) -> Outcome:
        if row.id == "b/4":
            return dropped(row, "too easy")
        values = {"a/1": (0.0, "hard"), "a/2": (0.9, "easy"), "b/3": (0.5, "rl")}
        pass_rate, name = values[row.id]
        return kept(row, set=name, pass_rate=pass_rate, num_samples=8, num_unverifiable=0)

    run_step(store, Scripted("difficulty", rate))
    run_whole_step(store, Split(SplitConfig()))
    found = collect(store)
    assert found == json.loads((store.directory / "card" / "statistics.json").read_text())
    counts = {entry["name"]: entry["counts"] for entry in found["distributions"]}
    assert counts["question_words"] == {"alignment": {"3": 1}, "rl": {"1": 1}, "sft": {"2": 1}}
    assert counts["num_images"] == {"alignment": {"1": 1}, "rl": {"0": 1}, "sft": {"0": 1}}
    assert counts["longer_side"] == {"alignment": {"700": 1}}
    assert (counts["num_items"], counts["num_steps"]) == ({"alignment": {"2": 1}}, {"alignment": {"3": 1}})
    assert counts["pass_rate"] == {"alignment": {"0": 1}, "rl": {"50": 1}, "sft": {"90": 1}}
    assert counts["score"]["rl"] == {"100": 1}
    assert found["sources"] == {"a": {"alignment": 1, "sft": 1}, "b": {"rl": 1}}
    assert {entry["step"]: (entry["num_in"], entry["num_kept"]) for entry in found["funnels"]} == {
        "import of made": (4, 4),
        "difficulty": (4, 3),
        "split": (3, 3),
    }
    lines = statistics_lines(found)
    assert "difficulty: 4 in, 3 kept, 0 passed, 1 dropped" in lines and "          1 dropped: too easy" in lines
    assert "Words of the question, sft: median 2, 90% within 2 to 2" in lines

    [picture_file] = {name for example in found["examples"] for name in example["images"]}
    with Image.open(store.directory / picture_file) as small:
        assert small.size == (384, 16) and small.format == "PNG"


def test_quantiles() -> None:
    assert [quantile({"10": 1, "2": 2, "3": 1}, share) for share in (0.05, 0.5, 0.75, 0.76, 1.0)] == [2, 2, 3, 10, 10]


def test_nothing_in_a_row_becomes_markup(store: Store) -> None:
    hidden = picture(1, 1, seed=1).data or b""
    rows = [
        Row(
            f"{HOSTILE}/{n}",
            Prompt(str(n), HOSTILE, (ImageSource(data=hidden + HOSTILE.encode()),), HOSTILE, choices=(HOSTILE,)),
            text,
        )
        for n, text in enumerate([shown(HOSTILE, 1), HOSTILE])
    ]
    fill(store, rows, source=HOSTILE)
    run_step(store, Scripted(HOSTILE, lambda row: Outcome(row.id, "passed", HOSTILE)))
    collect(store)
    text = render_data_card(store.directory).read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "link"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert str(attributes.get("src", "data:image/png;base64,")).startswith("data:image/png;base64,")
        assert str(attributes.get("href", "#")).startswith("#")
    assert page.text.count("alert(1)") > 6
    [policy] = [each["content"] for tag, each in page.tags if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'")
    assert HOSTILE.encode() not in b"".join(path.read_bytes() for path in (store.directory / "card").glob("*.png"))


def test_an_empty_store_has_a_card(store: Store) -> None:
    assert statistics_lines(collect(store))[-1] == "  none"
    assert "Nothing has been imported." in render_data_card(store.directory).read_text()
