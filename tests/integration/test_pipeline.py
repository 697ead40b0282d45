"""The whole method in miniature, on the shipped base: what each stage leaves behind, and that nothing is done twice."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from prism.config import load_recipe
from prism.data import readers
from prism.models import Discriminator, PromptEncoder
from prism.report import print_results_table, render_report
from prism.stages.pipeline import run_recipe

MICRO = Path(__file__).with_name("micro.toml")
EVALUATED = ("base", "sft", "align", "sft-grpo", "prism-grpo", "prism-dapo", "prism-gspo")


def metrics(run_directory: Path, stage: str) -> list[dict]:
    text = (run_directory / "seed-0" / stage / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_checkpoint_is_evaluated_on_every_benchmark(run_directory: Path) -> None:
    for stage in EVALUATED:
        summary = json.loads((run_directory / "seed-0" / stage / "evaluation" / "summary.json").read_text())
        assert len(summary["benchmarks"]) == 9
        assert summary["num_items"] == 18


def test_checkpoints_are_plain_hugging_face_directories(run_directory: Path) -> None:
    seed = run_directory / "seed-0"
    for stage in ("sft", "align", "prism-grpo"):
        model = AutoModelForImageTextToText.from_pretrained(seed / stage / "model")
        assert model.lm_head.weight is model.get_input_embeddings().weight
        assert (
            PromptEncoder.from_pretrained(seed / stage / "model").end_token_id == model.config.text_config.eos_token_id
        )
    for discriminator in (seed / "warmup" / "model", seed / "align" / "discriminator"):
        assert Discriminator.from_pretrained(discriminator).head.weight.abs().sum() > 0


def test_training_moves_the_weights_of_every_stage(run_directory: Path) -> None:
    def weights(stage: str) -> torch.Tensor:
        model = AutoModelForImageTextToText.from_pretrained(run_directory / "seed-0" / stage / "model")
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    sft, aligned = weights("sft"), weights("align")
    assert (sft - aligned).abs().max() > 1e-5
    for stage in ("prism-grpo", "prism-dapo", "prism-gspo"):
        assert (weights(stage) - aligned).abs().max() > 1e-6
    assert not torch.equal(weights("prism-grpo"), weights("prism-gspo"))


def test_the_first_step_after_sampling_is_on_policy_and_the_matched_budget_holds(run_directory: Path) -> None:
    drawn_by_warmup, drawn_by_alignment, drawn_by_step = 2 * (4 + 4 * 4), 4 * 8, 8
    assert len(metrics(run_directory, "sft-grpo")) == 4 + (drawn_by_warmup + drawn_by_alignment) / drawn_by_step
    assert len(metrics(run_directory, "prism-grpo")) == 4
    assert all(row["policy/clip_fraction"] == 0 for row in metrics(run_directory, "align"))


def test_counts_stand_beside_the_means_and_nothing_is_made_up(run_directory: Path) -> None:
    for row in metrics(run_directory, "align"):
        assert row["rollout/count"] == 8
        assert row["accuracy/count"] == row["rollout/valid_count"]
        if row["rollout/valid_count"] == 0:
            assert row["accuracy/perception"] is None and row["gap/perception"] is None
        else:
            assert 0 <= row["accuracy/perception"] <= 1


def test_the_same_command_again_does_nothing(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "open_rows", lambda path: pytest.fail(f"reads {path}"))

    def snapshot() -> dict[str, int]:
        files = (run_directory / "seed-0").rglob("*")
        return {str(path): path.stat().st_mtime_ns for path in files if path.is_file() and "rejects" not in path.parts}

    before = snapshot()
    run_recipe(load_recipe(MICRO, [f"output={run_directory}", "threads=1"]))
    assert snapshot() == before


def test_the_report_and_the_table_name_every_checkpoint(run_directory: Path) -> None:
    html = render_report(run_directory).read_text()
    table = print_results_table(run_directory)
    for title in ("Base", "SFT", "SFT → GRPO", "PRISM", "PRISM → GRPO", "PRISM → DAPO", "PRISM → GSPO"):
        assert f"\n{title} " in table
        assert title in html
