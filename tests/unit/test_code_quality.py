"""Bounds that keep the source readable and safe."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "prism"
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FUNCTION = 80
LONGEST_FILE = 400

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


def long_functions(source: str) -> list[str]:
    return [
        f"{node.name} (line {node.lineno})"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > LONGEST_FUNCTION
    ]


def unsafe_constructs(source: str) -> Iterator[str]:
    """eval and exec, pickle, torch.load, and code that comes along with a checkpoint."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            if modules & {"pickle", "dill", "marshal", "shelve"}:
                yield f"line {node.lineno}: pickle"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                yield f"line {node.lineno}: {node.func.id}"
            if ast.unparse(node.func) == "torch.load":
                yield f"line {node.lineno}: torch.load"
            if any(keyword.arg == "trust_remote_code" for keyword in node.keywords):
                yield f"line {node.lineno}: trust_remote_code"


@every_file
def test_functions_fit_a_screen(path: Path) -> None:
    assert long_functions(path.read_text(encoding="utf-8")) == []


@every_file
def test_files_have_one_subject(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@every_file
def test_nothing_runs_what_it_reads(path: Path) -> None:
    assert list(unsafe_constructs(path.read_text(encoding="utf-8"))) == []


def test_a_long_function_is_found() -> None:
    def function(num_lines: int) -> str:
        return "class A:\n    async def f(self):\n" + "        x = 1\n" * (num_lines - 1)

    assert long_functions(function(LONGEST_FUNCTION)) == []
    assert long_functions(function(LONGEST_FUNCTION + 1)) == ["f (line 2)"]


@pytest.mark.parametrize(
    "source",
    ["eval('1')", "import pickle", "from pickle import loads", "torch.load(f)", "load(f, trust_remote_code=True)"],
)
def test_an_unsafe_construct_is_found(source: str) -> None:
    assert len(list(unsafe_constructs(source))) == 1


def test_evaluation_mode_is_no_eval() -> None:
    assert list(unsafe_constructs("model.eval()")) == []
