"""What the documentation points to exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = "objectives|rewards|packing|data|models|runtime|rollout|evals|curation|stages|planning|report|config"


def pointers() -> set[str]:
    text = "".join(path.read_text() for path in (*ROOT.glob("docs/*.md"), ROOT / "README.md"))
    return set(re.findall(rf"`(?:prism\.)?((?:{PACKAGES})\.[a-z_]+(?:\.[a-zA-Z_]+)*)(?:\(|`)", text))


@pytest.mark.parametrize("pointer", sorted(pointers()))
def test_every_function_the_docs_name_exists(pointer: str) -> None:
    *parents, name = pointer.split(".")
    module = importlib.import_module(".".join(("prism", *parents)))
    assert hasattr(module, name) or importlib.import_module(f"prism.{pointer}")


def test_the_docs_point_to_functions() -> None:
    assert len(pointers()) > 15


PAGES = sorted((ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*/*.md")))


def anchors(page: Path) -> set[str]:
    """Of every heading what a link to it ends with."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"
