"""What benchmarks take from the package is there: nothing else runs most of them. The one for GPUs runs, on a CPU."""

import ast
import importlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def gpu_update() -> Iterator[Any]:
    """The benchmark, which imports its neighbours by their bare names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS[0].parent))
        # As large beside a branch of this test as the real one beside completions.
        patch.setattr("prism.packing.forward.LOGIT_CHUNK", 64)
        yield importlib.import_module("gpu_update")


@pytest.fixture(scope="module")
def settings(gpu_update: Any) -> Any:
    sizes = {"layers": 2, "runs": 3, "group-size": 4, "branch-tokens": 75, "image-tokens": 16}
    return gpu_update.parse_settings(
        ["--size=tiny", "--device=cpu", *(f"--{name}={value}" for name, value in sizes.items())]
    )


@pytest.fixture(scope="module")
def task(gpu_update: Any, settings: Any) -> Any:
    return gpu_update.make_task(settings)


def test_updates_and_scoring_are_measured_on_a_cpu_as_on_a_gpu(gpu_update: Any, task: Any, settings: Any) -> None:
    report = gpu_update.measure(task, settings)
    assert [timing.name.split(",")[0] for timing in report.timings] == [
        *("policy update", "policy gradient", "log-probabilities", "scores")
    ]
    for timing in report.timings:
        assert math.isfinite(timing.utilisation(report.rate)) and 0 < timing.utilisation(report.rate) < 1.5
    update, gradient, logprobs, _ = report.timings
    # Twice the forward pass for the backward pass, but for the gradient of 64 patches of 1536 numbers, 64 wide after.
    assert update.flops == gradient.flops == 3 * logprobs.flops - 2 * 64 * 1536 * 64
    assert [found.targets for found in report.logits] == [[150, 300]] * 2
    assert report.problems() == []
    assert all(name in report.table() for name in ("policy update", "TFLOP/s measured, data sheet unknown"))


def test_logits_of_all_targets_at_once_are_found(
    gpu_update: Any, task: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = gpu_update.PolicyBench(task, settings)
    monkeypatch.setattr("prism.packing.forward.LOGIT_CHUNK", 2**20)
    found = list(bench.weigh(bench.trainee()))
    assert [(one.name, one.is_chunked) for one in found] == [("log-probabilities", False), ("gradient", False)]
    assert all(one.growth > 0.9 for one in found)


def test_figures_that_cannot_be_right_are_reported(gpu_update: Any) -> None:
    absurd = [gpu_update.Timing(name, 1, flops, [1.0, 1.0], "") for name, flops in (("a", 2e12), ("b", math.nan))]
    # A hundred targets more, each with 10 float32 logits.
    grown, level = (
        gpu_update.LogitMemory(name, 10, [100, 200], [9, 9], [1000, end]) for name, end in (("c", 3100), ("d", 2900))
    )
    report = gpu_update.Report(1e12, None, 1, absurd, [grown, level])
    assert [problem.split(":")[0] for problem in report.problems()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA GH200 480GB", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_a_data_sheet_is_found_by_the_name_that_a_driver_tells(
    gpu_update: Any, name: str, tflops: float | None
) -> None:
    assert gpu_update.nominal_rate(name) == (None if tflops is None else tflops * 1e12)


def test_a_group_that_fills_no_chunk_is_refused(gpu_update: Any, task: Any, settings: Any) -> None:
    short = replace(task, group=replace(task.group, rollouts=task.group.rollouts[:2]))
    with pytest.raises(SystemExit, match="raise --group-size"):
        gpu_update.PolicyBench(short, settings)
