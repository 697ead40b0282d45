"""What a user can get wrong, through the command line: one line, or a row in the rejects file, and nothing lost."""

import json
import os
from pathlib import Path

import pytest

from prism.cli import main
from prism.config import WorldData
from prism.data.readers import read_prompts
from prism.data.rejects import RejectLog
from prism.stages.datasets import write_world

WORLD = WorldData(public=4, curated=4, alignment=4, rl=4, dev=2, test_per_benchmark=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four good ShareGPT rows, with their images, and a recipe that trains on them for one step."""
    write_world(WORLD, tmp_path / "data", seed=0)
    (tmp_path / "recipe.toml").write_text(
        f"""
        name = "mine"
        output = "{tmp_path / "run"}"
        max_prompt_tokens = 160
        data = {{ type = "files", sft = ["{tmp_path / "data/sft/public.jsonl"}"] }}
        base = {{ type = "tiny" }}
        sft = {{ num_steps = 1, batch_size = 2, max_response_tokens = 240, token_budget = 640 }}
        """
    )
    return tmp_path / "data" / "sft" / "public.jsonl"


def run(data: Path, *arguments: str) -> int:
    return main(["run", str(data.parents[2] / "recipe.toml"), *arguments])


def rows_of(data: Path) -> list[dict]:
    return [json.loads(line) for line in data.read_text().splitlines()]


def write_rows(data: Path, rows: list[dict]) -> None:
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rejects(data: Path) -> list[dict]:
    return [json.loads(line) for line in (data.parents[2] / "run/seed-0/rejects/sft.jsonl").read_text().splitlines()]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prism: ")]
    return line


def test_a_missing_image_costs_its_row_and_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(data)
    rows[1]["images"] = ["images/gone.png"]
    write_rows(data, rows)
    assert run(data) == 0
    [reject] = rejects(data)
    assert reject["row"] == 2 and reject["field"].startswith("images")
    assert "1 rejected" in capsys.readouterr().err


def test_a_truncated_image_costs_its_row(data: Path) -> None:
    rows = rows_of(data)
    image = data.parent / rows[2]["images"][0]
    image.write_bytes(image.read_bytes()[:-40])
    users = [number for number, row in enumerate(rows, start=1) if row["images"] == rows[2]["images"]]
    assert run(data) == 0
    assert [reject["row"] for reject in rejects(data)] == users


def test_an_empty_completion_costs_its_row(data: Path) -> None:
    rows = rows_of(data)
    rows[0]["messages"][-1]["content"] = "  "
    write_rows(data, rows)
    assert run(data) == 0
    assert [reject["row"] for reject in rejects(data)] == [1]


def test_a_row_too_long_for_its_budget_costs_its_row(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(data)
    rows[1]["messages"][-1]["content"] += " and more" * 240
    rows[3]["messages"][0]["content"] += " please" * 160
    write_rows(data, rows)
    assert run(data) == 0
    found = [(reject["row"], reject["field"], reject["reason"]) for reject in rejects(data)]
    assert found == [
        (2, "completion", "is longer than max_response_tokens"),
        (4, "prompt", "is longer than max_prompt_tokens"),
    ]
    assert "2 rejected" in capsys.readouterr().err


def test_a_file_without_one_usable_row_is_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(data, [{"text": row["messages"][0]["content"]} for row in rows_of(data)])
    assert run(data) == 2
    assert "public.jsonl" in one_line(capsys)


def test_a_missing_file_is_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.unlink()
    assert run(data) == 2
    assert "public.jsonl" in one_line(capsys)


def test_an_unknown_key_is_one_line_and_nothing_runs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "sft.learning_rat=1e-3") == 2
    assert "unknown key sft.learning_rat; did you mean learning_rate?" in one_line(capsys)
    assert not (data.parents[2] / "run").exists()


def test_missing_vllm_is_noticed_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    micro = Path(__file__).with_name("micro.toml")
    assert main(["run", str(micro), f"output={tmp_path / 'run'}", "rollout.type=vllm"]) == 2
    assert 'pip install -e ".[vllm]"' in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_an_empty_answer_costs_an_rl_prompt_its_row(tmp_path: Path) -> None:
    file = tmp_path / "rl.jsonl"
    rows = [{"prompt": "1 + 1?", "completion": "2", "answer": answer} for answer in ("2", " ")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with RejectLog(tmp_path / "rejects.jsonl") as log:
        assert [prompt.answer for prompt in read_prompts(file, rejects=log)] == ["2"]
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["row"] == 2


def test_a_flipped_byte_in_a_checkpoint_is_one_line_and_the_checkpoint_stays(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prism.stages.workspace.Workspace.save_models", _fail)
    settings = ("sft.num_steps=3", "sft.checkpoint_every=1")
    with pytest.raises(InterruptedError):
        run(data, *settings)
    monkeypatch.undo()
    [weights] = (data.parents[2] / "run/seed-0/sft/checkpoints").glob("step-*/module-policy-00000.safetensors")
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    assert run(data, *settings) == 2
    assert "module-policy-00000.safetensors" in one_line(capsys)
    assert weights.read_bytes() == damaged


def _fail(*_: object) -> None:
    raise InterruptedError("the process ends before the stage is complete")


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third checkpoint finds no room; once there is some, the same command goes on."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if "step-000003" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    settings = ("sft.num_steps=3", "sft.checkpoint_every=1")
    assert run(data, *settings) == 2
    assert "disk" in one_line(capsys) or "space" in one_line(capsys)
    assert (data.parents[2] / "run/seed-0/sft/checkpoints/step-000002").is_dir()
    monkeypatch.undo()
    assert run(data, *settings) == 0
