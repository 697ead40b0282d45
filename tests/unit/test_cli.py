import json
import os
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism import cli
from prism.cli import main
from prism.errors import AuditError, CheckpointError

ROOT = Path(__file__).parents[2]
DEMO = str(Path(__file__).parent / "config" / "example.toml")

Pipeline = Callable[..., Path]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Stands for the pipeline, records how it is called and leaves a run directory without stages."""
    calls: list[dict[str, Any]] = []

    def run_recipe(recipe: Any, **arguments: Any) -> Path:
        calls.append({"recipe": recipe, **arguments})
        (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
        return tmp_path

    _install_pipeline(monkeypatch, run_recipe)
    return calls


def _install_pipeline(monkeypatch: pytest.MonkeyPatch, run_recipe: Pipeline) -> None:
    module: Any = types.ModuleType("prism.stages.pipeline")
    module.run_recipe = run_recipe
    monkeypatch.setitem(sys.modules, "prism.stages", types.ModuleType("prism.stages"))
    monkeypatch.setitem(sys.modules, "prism.stages.pipeline", module)


def _failing_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_recipe(*_: Any, **__: Any) -> Path:
        raise error

    _install_pipeline(monkeypatch, run_recipe)


def _run_python(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def test_help_comes_at_once() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert "usage: prism" in _run_python("-m", "prism", "--help")
        return time.perf_counter() - start

    # The best of several, since other work on the machine can only slow a start down.
    assert min(seconds() for _ in range(5)) < 0.5


def test_neither_help_nor_a_recipe_imports_torch() -> None:
    script = f"""
import sys
import prism.cli
assert "pydantic" not in sys.modules
assert prism.cli.main(["run", {DEMO!r}, "--dry-run"]) == 0
print("torch" in sys.modules, "transformers" in sys.modules, "numpy" in sys.modules)
"""
    assert _run_python("-c", script).splitlines()[-1] == "False False False"


def test_dry_run_prints_configuration_and_plan_and_runs_nothing(
    capsys: pytest.CaptureFixture[str], pipeline: list[dict[str, Any]]
) -> None:
    assert main(["run", DEMO, "seeds=[3]", "--dry-run", "sft.num_steps=7"]) == 0
    configuration, plan = capsys.readouterr().out.split("\n\n")
    resolved = json.loads(configuration)
    assert resolved["sft"]["num_steps"] == 7
    assert resolved["seeds"] == [3]
    assert resolved["warmup"]["balance_coefficient"] == 0.01
    assert [line.split()[0] for line in plan.splitlines()[1:]] == [
        "base",
        "sft",
        "warmup",
        "align",
        "sft-grpo",
        "prism-grpo",
        "prism-dapo",
        "prism-gspo",
    ]
    assert pipeline == []


def test_dry_run_of_an_ablation_prints_the_chosen_cells_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", DEMO, "--cell", "dense", "--cell", "text-only", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line.split(",")[0] for line in lines if line.startswith("plan for")]
    assert [Path(title.split()[-1]).name for title in titles] == ["dense", "text-only"]
    assert [line.split()[0] for line in lines if line.endswith("run once, with dense")] == ["base", "sft"]


def test_run_hands_the_recipe_on(
    pipeline: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", DEMO, "--stop-after", "align", "threads=2"]) == 0
    (call,) = pipeline
    assert call["recipe"].threads == 2
    assert call["stop_after"] == "align"
    assert capsys.readouterr().out.endswith(f"report: {tmp_path / 'report.html'}\n")


@pytest.mark.parametrize("stage", ["base", "sft", "warmup", "align", "rlvr", "eval"])
def test_a_stage_command_runs_only_that_stage(pipeline: list[dict[str, Any]], stage: str) -> None:
    assert main([stage, DEMO]) == 0
    assert [call["only"] for call in pipeline] == [stage]


@pytest.mark.parametrize(("flags", "status"), [([[], []], 0), ([[], ["filler"]], cli.FLAGGED)])
def test_an_audit_prints_every_seed_and_its_status_tells_of_flags(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    flags: list[list[str]],
    status: int,
) -> None:
    """Nothing but 0, and never what an error that the user can mend gives, where there is nothing to report."""
    documents = {tmp_path / f"seed-{seed}": {"flags": found, "seed": seed} for seed, found in enumerate(flags)}
    stages: dict[str, dict[str, Any]] = {
        "prism.stages.pipeline": {"audit_recipe": lambda recipe: list(documents)},
        "prism.stages.audit": {"read_audit": documents.__getitem__},
        "prism.evals.audit_text": {"format_audit": lambda document: f"table of seed {document['seed']}"},
    }
    monkeypatch.setitem(sys.modules, "prism.stages", types.ModuleType("prism.stages"))
    for name, functions in stages.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    assert main(["audit", DEMO]) == status
    printed = capsys.readouterr().out
    assert all(f"table of seed {seed}\n\naudit: {path}\n" in printed for seed, path in enumerate(documents))
    assert cli.FLAGGED not in (0, 1, 2, 130, 143)


def test_a_run_that_an_audit_stops_has_the_audits_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing_with(monkeypatch, AuditError("audit: filler; look"))
    assert main(["run", DEMO]) == cli.FLAGGED
    assert capsys.readouterr().err == "prism: audit: filler; look\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "missing.toml"], "missing.toml: cannot read the recipe"),
        (["run", DEMO, "sft.lerning_rate=1"], "unknown key sft.lerning_rate; did you mean learning_rate?"),
        (["run", DEMO, "--stop-after", "aling"], "has no stage 'aling'"),
        (["align", DEMO, "align=none", "rlvr.baselines=none"], "has no stage 'align'"),
        (["eval", DEMO, "evaluation=none"], "has no [evaluation] table"),
        (["data", "synth", "out", "public=-1"], "public = -1: must be greater than or equal to 0"),
        (["upcycle", "dense", "out", "--top-k", "5"], "top_k = 5: must not exceed num_experts (4)"),
        (["upcycle", "dense", str(ROOT / "src")], "src exists; name a directory that does not"),
        (["report", str(ROOT / "src")], "recipe.json"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    capsys: pytest.CaptureFixture[str], pipeline: list[dict[str, Any]], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("prism: ")
    assert words in printed.err
    assert pipeline == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["run", DEMO, "--frob"],
        ["report", "a", "b=c"],
        ["sample", "m", "--question", "q", "--num-samples", "0"],
        ["sample", "m", "--question", "q", "--temperature", "nan"],
    ],
)
def test_wrong_arguments_exit_with_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: prism" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["sample", "nothing-here", "--question", "q"], ["serve", "nothing-here"]])
def test_a_model_that_is_not_there_is_not_looked_for_elsewhere(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == "prism: nothing-here: there is no such model directory\n"


def test_an_error_of_the_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing_with(monkeypatch, CheckpointError("model.safetensors: the hash differs"))
    assert main(["run", DEMO]) == 2
    assert capsys.readouterr().err == "prism: model.safetensors: the hash differs\n"


def test_control_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    _failing_with(monkeypatch, KeyboardInterrupt())
    assert main(["run", DEMO]) == 130


def test_a_saved_stop_exits_with_143(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from prism.runtime.interrupt import Interrupted

    _failing_with(monkeypatch, Interrupted(15, "align: saved at step 7"))
    assert main(["run", DEMO]) == 143
    assert capsys.readouterr().err == "prism: align: saved at step 7\n"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    _failing_with(monkeypatch, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        main(["run", DEMO])


def test_the_installed_command_is_main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"prism": f"{cli.__name__}:{main.__name__}"}
