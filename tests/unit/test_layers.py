"""Imports point downwards only: the order of the layers is the order in which the package can be understood."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "prism"

LAYERS = (
    {"__init__"},
    {"records", "errors", "parallel", "spread"},
    {"config"},
    {"objectives", "rewards", "packing", "data"},
    {"models"},
    {"runtime"},
    {"rollout"},
    {"evals"},
    {"curation"},
    {"stages"},
    {"planning"},
    {"cli"},
    {"__main__"},
)
LEVELS = {unit: level for level, units in enumerate(LAYERS) for unit in units}
REPORT_MAY_IMPORT = {"__init__", "records", "errors", "spread", "config"}


def may_import(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if importer == "report":
        return imported in REPORT_MAY_IMPORT
    if imported == "report":
        return importer == "cli"
    return LEVELS[imported] < LEVELS[importer]


def imported_modules(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module a file imports, wherever in the file, by any kind of import.

    `package` is what a relative import starts from. `from prism import models` yields `prism.models`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield node.lineno, str(name.value)


def _is_import_call(node: ast.Call) -> bool:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called in ("import_module", "__import__") and bool(node.args)


def unit_of(module: str) -> str | None:
    """`prism.data.images` → `data`; names of the top package itself → `__init__`; None outside the package."""
    root, *rest = module.split(".")
    if root != "prism":
        return None
    return rest[0] if rest and (rest[0] in LEVELS or rest[0] == "report") else "__init__"


def violations(source: str, relative: Path) -> list[str]:
    parts = relative.with_suffix("").parts
    importer = parts[0]
    package = ".".join(("prism", *parts[:-1]))
    return [
        f"{relative}:{line}: {importer} must not import {module}"
        for line, module in imported_modules(ast.parse(source), package)
        if (unit := unit_of(module)) is not None and not may_import(importer, unit)
    ]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), path.relative_to(SOURCE)) == []


def test_every_part_of_the_package_has_a_layer() -> None:
    units = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))}
    assert units - {"report"} <= set(LEVELS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("config/a.py", "import prism.models"),
        ("config/a.py", "from prism import models"),
        ("config/a.py", "from prism.packing.tree import Branch"),
        ("objectives/a.py", "from prism.rewards import verify_answer"),
        ("packing/deep/a.py", "from ...data import images"),
        ("packing/a.py", "from ..runtime.seeding import generator"),
        ("records.py", "from prism.errors import DataError"),
        ("models/a.py", "def f():\n    if True:\n        from prism.stages import sft"),
        ("rollout/a.py", "import importlib\nimportlib.import_module('prism.evals.runner')"),
        ("report/a.py", "from prism.runtime.jsonl import JsonlLog"),
        ("stages/a.py", "from prism.report import write_report"),
        ("stages/a.py", "import prism.cli"),
    ],
)
def test_a_violation_is_found(path: str, source: str) -> None:
    assert len(violations(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/world/a.py", "from prism.data.images import open_image\nfrom prism.records import Prompt"),
        ("data/world/a.py", "from . import scene\nfrom ..images import open_image"),
        (
            "stages/a.py",
            "import torch\nimport prismatic\nfrom prism import __version__\nfrom prism.objectives import x",
        ),
        ("report/a.py", "from prism.config import load_recipe"),
        ("cli.py", "def f():\n    from prism.report import write_report\n    import prism.stages.pipeline"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []
