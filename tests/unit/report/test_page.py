"""The page as a whole: well-formed, closed to the outside, and true to the run directory."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from html_pages import Page
from prism.config import Recipe
from prism.errors import DataError, StorageError
from prism.report import render_report
from prism.report.identity import COLOURS
from prism.report.page import describe_discriminator

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def full_text(full_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_report(full_run, tmp_path_factory.mktemp("report") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def single_text(single_seed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_report(single_seed_run, tmp_path_factory.mktemp("report") / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed(full_text: str) -> None:
    page = Page(full_text)
    assert page.stack == []
    assert full_text.startswith("<!doctype html>")
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_links_lead_to_sections_of_the_page(full_text: str) -> None:
    page = Page(full_text)
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all(link is not None and link.startswith("#") and link[1:] in ids for link in links)


def test_nothing_is_asked_of_the_outside(full_text: str) -> None:
    page = Page(full_text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert not re.search(r"https?:|//", value or "") or (value or "").startswith("data:image/")
            if name == "src":
                assert (value or "").startswith("data:image/png;base64,")
    style = full_text[full_text.index("<style>") : full_text.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)


def test_the_policy_allows_this_stylesheet_and_embedded_images_only(full_text: str) -> None:
    policies = [a["content"] for _, a in Page(full_text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    style = full_text[full_text.index("<style>") + 7 : full_text.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    expected = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert policies == [expected]
    assert not any("style" in attributes for _, attributes in Page(full_text).tags)


def test_text_of_the_run_is_text_on_the_page(full_text: str, hostile: str) -> None:
    page = Page(full_text)
    assert hostile in page.text
    assert "<script" not in full_text
    assert [a.get("src") for tag, a in page.tags if tag == "img" and not (a.get("src") or "").startswith("data:")] == []


def test_every_colour_used_is_in_the_stylesheet(full_text: str) -> None:
    style = full_text[full_text.index("<style>") : full_text.index("</style>")]
    assert all(f".c-{name} {{" in style and f"--{name}: #" in style for name in COLOURS)
    used = {c for _, a in Page(full_text).tags for c in (a.get("class") or "").split() if c.startswith("c-")}
    assert used <= {f"c-{name}" for name in COLOURS}


@pytest.mark.parametrize("mode", ["greedy", "sampled"])
def test_table_cells_are_the_numbers_of_the_summary(single_text: str, single_seed_run: Path, mode: str) -> None:
    rows = Page(single_text).rows
    start = next(i for i, row in enumerate(rows) if row[0].startswith(f"Score, %, {mode}"))
    titles = {"base": "Base", "sft": "SFT", "sft-grpo": "SFT → GRPO matched-budget baseline", "align": "PRISM"}
    names = ["base", "sft", "sft-grpo", "align", "prism-grpo", "prism-dapo", "prism-gspo"]
    for name, row in zip(names, rows[start + 1 : start + 8], strict=True):
        if name in titles:
            assert row[0].strip() == titles[name]
        path = single_seed_run / "seed-0" / name / "evaluation" / "summary.json"
        summary = json.loads(path.read_text())
        scopes = [("average", scope, "accuracy") for scope in ("in-distribution", "out-of-distribution", "all")]
        scopes += [("average", "all", metric) for metric in ("caption_exact", "caption_fraction", "valid")]
        scopes += [
            ("benchmarks", benchmark, "accuracy")
            for benchmark in ("color", "count", "position", "chart", "compare", "large-grid")
        ]
        for (part, scope, metric), cell in zip(scopes, row[1:], strict=True):
            entry = summary[part][scope][mode][metric]
            shown = f"{entry['mean'] * 100:.1f} {entry['low'] * 100:.1f}–{entry['high'] * 100:.1f}"
            assert cell.startswith(shown)


def test_the_number_of_items_stands_with_every_score(single_text: str) -> None:
    rows = Page(single_text).rows
    head = next(row for row in rows if row[0].startswith("Checkpoint"))
    start = next(i for i, row in enumerate(rows) if row[0].startswith("Score, %, greedy"))
    for row in rows[start + 1 : start + 8]:
        assert all("n = " in cell or "n = " in title for cell, title in zip(row[1:], head[1:], strict=True))


def test_each_prism_run_is_judged_against_the_baseline(full_text: str, single_text: str) -> None:
    text = Page(full_text).text
    for variant in ("GRPO", "DAPO", "GSPO"):
        assert text.count(f"PRISM → {variant} against SFT → GRPO: ") == 2, "greedy and sampled"
    assert "(240 pairs, 2 seeds)" in text
    assert text.count("(240 pairs, 2 seeds). Two seeds cannot tell it from how runs vary.") == 6
    assert "Means over two seeds and, beside each, their values" in text
    single = Page(single_text).text
    assert single.count("(120 pairs, 1 seed). One seed cannot tell it from how runs vary.") == 6
    assert "one seed says nothing about how runs vary" in single


def test_marks_and_verdicts_wait_for_three_seeds(make_run: MakeRun) -> None:
    """Every answer right after alignment and wrong without, in each seed: the smallest of intervals."""
    path = make_run(seeds=(0, 1, 2), stages=("sft-grpo", "prism-grpo"), per_benchmark=6)
    for file in path.glob("seed-*/*/evaluation/items.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        verdict = "correct" if "prism" in str(file) else "wrong"
        # One item of each benchmark is as easy for both, so that there is an interval.
        graded = [
            json.dumps(row | {"verdict": "correct" if row["item_id"].endswith("-0") else verdict}) for row in rows
        ]
        file.write_text("".join(f"{line}\n" for line in graded))
    recipe = json.loads((path / "recipe.json").read_text())
    for seeds, is_judged in (([0], False), ([0, 1], False), ([0, 1, 2], True)):
        for seed in {0, 1, 2} - set(seeds):
            (path / f"seed-{seed}").rename(path / f"set-aside-{seed}")
        (path / "recipe.json").write_text(json.dumps(recipe | {"seeds": seeds}))
        text = Page(render_report(path).read_text(encoding="utf-8")).text
        assert ("A gain." in text) is is_judged and ("+83.3 ▲" in text) is is_judged, seeds
        for seed in {0, 1, 2} - set(seeds):
            (path / f"set-aside-{seed}").rename(path / f"seed-{seed}")


def test_the_header_says_what_ran(full_text: str) -> None:
    text = Page(full_text).text
    for fact in ("tiny-world", "0, 1", "0.1.0+g1a2b3c4", "tiny Qwen3-VL", "4 experts, top 2"):
        assert fact in text
    assert "Complete: all 8 stages of the recipe finished for 2 seeds." in text
    assert "prism run runs/tiny-world/recipe.json" in text
    assert "ef" * 32 in text


@pytest.mark.parametrize(
    ("discriminator", "description"),
    [
        ({}, "moe: 4 experts, top 2, upcycled from the base"),
        ({"type": "dedicated", "num_experts": 6}, "dedicated: 6 experts, top 2, upcycled from the base"),
        ({"type": "text-only", "dense": Path("models/2b")}, "text-only: 4 experts, top 2, upcycled from models/2b"),
        ({"type": "whole-response", "top_k": 1}, "whole-response: 4 experts, top 1, upcycled from the base"),
        ({"type": "dense"}, "dense, 2 times as wide as the base"),
        ({"type": "dense", "width": 3, "dense": Path("models/2b")}, "dense, 3 times as wide as models/2b"),
        ({"checkpoint": Path("judge")}, "moe, judge"),
        ({"type": "dense", "checkpoint": Path("judge")}, "dense, judge"),
    ],
)
def test_the_discriminator_is_described(discriminator: dict[str, object], description: str) -> None:
    table = {"name": "r", "data": {}, "base": {}, "discriminator": discriminator}
    assert describe_discriminator(Recipe.model_validate(table)) == description


def test_missing_stages_are_named_and_not_shown(make_run: MakeRun) -> None:
    run = make_run(seeds=(0,), stages=("sft",))
    page = Page(render_report(run).read_text(encoding="utf-8"))
    assert "This run is not complete." in page.text
    assert "SFT → GRPO (sft-grpo), PRISM (align), PRISM → GRPO (prism-grpo)" in page.text
    headings = [row[0] for row in page.rows]
    assert not any(heading.startswith(("PRISM", "Base")) for heading in headings)
    assert not any(attributes.get("id") == "alignment" for _, attributes in page.tags)
    assert "No aligned policy and its matched-budget baseline" in page.text


def test_a_run_that_has_only_begun(make_run: MakeRun) -> None:
    page = Page(render_report(make_run(seeds=(0,), stages=())).read_text(encoding="utf-8"))
    assert page.stack == []
    assert "No checkpoint of this run has been evaluated." in page.text


def test_a_checkpoint_without_one_mode_has_dashes_there(make_run: MakeRun) -> None:
    run = make_run(seeds=(0,), stages=("sft",))
    path = run / "seed-0" / "sft" / "evaluation" / "summary.json"
    summary = json.loads(path.read_text())
    empty = {"mean": None, "low": None, "high": None, "count": 0}
    for entry in (*summary["benchmarks"].values(), *summary["average"].values()):
        entry["sampled"] = dict.fromkeys(entry["sampled"], empty)
    path.write_text(json.dumps(summary))
    rows = Page(render_report(run).read_text(encoding="utf-8")).rows
    start = next(i for i, row in enumerate(rows) if row[0].startswith("Score, %, sampled"))
    assert {cell.strip() for cell in rows[start + 1][1:]} == {"–"}


def test_the_report_is_written_where_asked_and_replaces_the_old_one(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(seeds=(0,), stages=("sft",))
    assert render_report(run) == run / "report.html"
    target = tmp_path / "new" / "page.html"
    assert render_report(run, target) == target
    assert render_report(run, target).read_text(encoding="utf-8") == (run / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recipe\.json"):
        render_report(tmp_path)


def test_a_place_that_cannot_be_written_is_named(single_seed_run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "taken", tmp_path / "file" / "report.html"):
        with pytest.raises(StorageError, match=target.name):
            render_report(single_seed_run, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_a_run_that_settings_were_chosen_on_says_so(make_run: MakeRun) -> None:
    run = make_run()
    assert "scenes of the dev split" not in render_report(run).read_text(encoding="utf-8")
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    recipe["data"] |= {"test_split": "dev"}
    (run / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    assert "scenes of the dev split" in render_report(run).read_text(encoding="utf-8")
