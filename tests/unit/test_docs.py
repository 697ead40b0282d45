"""What the documentation points to exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = "objectives|rewards|packing|data|models|runtime|rollout|evals|curation|stages|report|config"


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


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/data.md", "docs/method.md"])
def test_every_link_between_pages_leads_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target
