"""The audits in the report: verdicts first, everything escaped, and no stage of training among them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism.report import render_report
from prism.report.audit import audit_section
from prism.report.rundir import read_run

MakeRun = Callable[..., Path]
INTERVAL = {"mean": 0.874, "low": 0.83, "high": 0.914, "count": 96}


def check(name: str, verdict: str) -> dict[str, str]:
    return {
        "name": name,
        "view": "perception",
        "verdict": verdict,
        "measured": "100% (96–100) by phrase <b>",
        "limit": "lower limit above 85%",
        "advice": "" if verdict == "ok" else "remove the phrase",
    }


def document(*checks: dict[str, str]) -> dict[str, Any]:
    return {
        "subject": {
            "policy": "sft",
            "discriminator": "warmup",
            "num_prompts": 96,
            "num_seen": 0,
            "num_rollouts": 384,
            "num_valid": 372,
        },
        "flags": [found["name"] for found in checks if found["verdict"] == "flag"],
        "warnings": [],
        "inconclusive": ["length"],
        "checks": list(checks),
        "accuracy": {
            "perception": {
                "end token": {"mean": 0.5, "low": None, "high": None, "count": 96},
                "discriminator": INTERVAL,
            },
            "description": {"end token": None, "discriminator": None},
        },
    }


@pytest.fixture
def audited(make_run: MakeRun) -> Callable[..., Path]:
    def make(found: dict[str, Any], *, name: str = "audit", seed: int = 0) -> Path:
        path = make_run(seeds=(0, 1), stages=("base", "sft", "warmup", "align"))
        directory = path / f"seed-{seed}" / name
        directory.mkdir()
        (directory / "audit.json").write_text(json.dumps(found))
        (directory / "manifest.json").write_text(json.dumps({"kind": "audit", "status": "complete"}))
        return path

    return make


def test_what_was_raised_stands_apart_from_the_rest(audited: Callable[..., Path]) -> None:
    path = audited(document(check("end-token", "ok"), check("filler", "flag")))
    html = str(audit_section(read_run(path)))
    assert "Flags: filler." in html and html.count("<td>filler</td>") == 2 and html.count("<td>end-token</td>") == 1
    assert "by phrase &lt;b&gt;" in html and "<b>" not in html.replace("<b>Flags", "")
    assert "<td>discriminator</td><td>87% (83–91)</td><td>–</td>" in html
    assert "<td>end token</td><td>50%</td><td>–</td>" in html
    page = render_report(path).read_text(encoding="utf-8")
    assert page.index('id="audit"') < page.index('id="alignment"')


def test_a_healthy_audit_says_so(audited: Callable[..., Path]) -> None:
    html = str(audit_section(read_run(audited(document(check("end-token", "ok"))))))
    assert "No flag was raised." in html and html.count("<td>end-token</td>") == 1


@pytest.mark.parametrize("name", ["audit", "audit-align"])
def test_an_audit_is_no_stage_of_training(audited: Callable[..., Path], name: str) -> None:
    path = audited(document(check("end-token", "ok")), name=name, seed=1)
    run = read_run(path)
    assert list(run.audits) == [(1, name)]
    assert name not in run.stage_names and name not in run.planned
    assert "Not in the recipe" not in render_report(path).read_text(encoding="utf-8")


def test_audits_of_a_game_are_a_row_each(make_run: MakeRun) -> None:
    path = make_run(seeds=(0, 1), stages=("base", "sft", "warmup", "align"))
    documents = [{"step": 10} | document(check("filler", "flag")), {"step": 20} | document(check("filler", "ok"))]
    lines = "".join(json.dumps(found) + "\n" for found in documents)
    (path / "seed-1" / "align" / "audits.jsonl").write_text(lines)
    html = str(audit_section(read_run(path)))
    assert "Seed 1: while the game was played" in html and "Seed 0" not in html
    for cells in (["10", "filler"], ["20", "–"]):
        cells += ["–", "length", "96 (0)", "372 of 384", "87% (83–91)", "50%", "–", "–"]
        assert "".join(f"<td>{cell}</td>" for cell in cells) in html


def test_a_planned_audit_that_is_missing_leaves_the_stages_complete(make_run: MakeRun) -> None:
    path = make_run()
    recipe = json.loads((path / "recipe.json").read_text())
    (path / "recipe.json").write_text(json.dumps(recipe | {"audit": {}}))
    run = read_run(path)
    assert "audit" not in run.planned and audit_section(run) is None
    assert "Complete: all" in render_report(path).read_text(encoding="utf-8")
