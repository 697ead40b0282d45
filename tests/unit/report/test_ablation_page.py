"""Ablations: a page that asks nothing of the outside."""

import re
from pathlib import Path

import pytest

from ablation_runs import RECIPE, evaluate, two_seeds, write, write_cell, write_game, write_listing
from html_pages import Page
from prism.report import render_ablation


@pytest.fixture
def page_text(tmp_path: Path, hostile: str) -> str:
    """Two seeds, games, two values of α; one setting holds markup and an address."""
    root = two_seeds(tmp_path)
    write_listing(root, ("full", "no-alignment", "alpha-0", "hostile"))
    for name, settings in (
        ("full", {}),
        ("alpha-0", {"align": RECIPE["align"] | {"advantage": {"alpha": 0.0}}}),
        ("hostile", {"discriminator": {"dense": hostile}}),
    ):
        cell = write_cell(root, name, seeds=(0, 1), **settings)
        for seed in (0, 1):
            evaluate(cell, "align", {"color": [seed, 1, 0], "chart": [1, 0]}, seed=seed)
            write_game(cell, seed, [{"gap/perception": 1.0}, {"gap/perception": 0.5}])
            write(cell / f"seed-{seed}" / "data" / "teacher_distribution.json", {"num_steps": {"3": 4, "4": 4}})
    return render_ablation(root).read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_its_links_stay_inside(page_text: str) -> None:
    page = Page(page_text)
    assert page.stack == []
    assert page_text.startswith("<!doctype html>")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"results", "game", "distributions", "alpha", "cells"} <= set(ids)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) == 5
    assert all(link is not None and link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_asks_nothing_of_the_outside_and_runs_nothing(page_text: str, hostile: str) -> None:
    page = Page(page_text)
    assert str(Path(hostile)) in page.text
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "img"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert not any(re.search(r"https?:|//", value or "") for value in attributes.values())


def test_the_page_shows_one_mode_at_a_time(page_text: str) -> None:
    page = Page(page_text)
    switch = [attributes["id"] for tag, attributes in page.tags if tag == "input"]
    assert switch == ["mode-greedy", "mode-sampled"]
    for mode in ("greedy", "sampled"):
        assert f'<div class="only-{mode}">' in page_text


def test_every_colour_of_the_page_is_in_the_stylesheet(page_text: str) -> None:
    style = page_text[page_text.index("<style>") : page_text.index("</style>")]
    used = {c for _, a in Page(page_text).tags for c in (a.get("class") or "").split() if c.startswith("c-")}
    assert {"c-cell-1", "c-cell-2", "c-cell-3", "c-align"} <= used
    assert all(re.search(rf"^\.{re.escape(name)} {{ --c: var\((--[\w-]+)\); }}$", style, re.MULTILINE) for name in used)


def test_the_main_comparison_stands_in_words(page_text: str) -> None:
    text = Page(page_text).text
    pair = "GRPO: PRISM → GRPO, 40 + 60 steps (full) against SFT → GRPO, 100 steps (no-alignment): +31.2"
    assert pair in text
    assert "no-alignment: warmup=none align=none rlvr.num_steps=100" in text
    assert "(+37.5 · +25.0) points of greedy accuracy over all sub-benchmarks (12 pairs, 2 seeds). Two seeds" in text
