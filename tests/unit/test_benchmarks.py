"""What benchmarks take from the package is there: nothing else runs most of them."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_names_that_a_benchmark_imports_exist(path: Path) -> None:
    imports = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    named = [(node.module, alias.name) for node in imports for alias in node.names if is_ours(node.module)]
    assert [f"{module}.{name}" for module, name in named if not exists(str(module), name)] == []


def is_ours(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == "prism"


def exists(module: str, name: str) -> bool:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    is_package = hasattr(found, "__path__")
    return hasattr(found, name) or (is_package and importlib.util.find_spec(f"{module}.{name}") is not None)


def test_a_name_that_is_gone_is_found() -> None:
    assert exists("prism.runtime", "jsonl") and exists("prism.runtime.jsonl", "JsonlLog")
    assert not exists("prism.runtime", "choose_threads") and not exists("prism.nothing", "x")
