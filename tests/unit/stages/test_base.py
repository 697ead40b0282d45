"""Pretraining of the tiny base, cut off and gone on with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism.config import plan_stages
from prism.data.world.lessons import Lesson
from prism.models import PromptEncoder
from prism.records import Example, Prompt
from prism.stages import base
from prism.stages.imitation import imitate
from prism.stages.workspace import Workspace

PRETRAIN = {
    "type": "tiny",
    "source": "pretrain",
    "pretrain": {"num_steps": 4, "batch_size": 2, "token_budget": 512, "checkpoint_every": 1},
}


class Cut(Exception):
    pass


def files(workspace: Workspace) -> dict[str, bytes]:
    directory = workspace.stage_directory("base")
    return {name: (directory / name).read_bytes() for name in ("model/model.safetensors", "metrics.jsonl")}


def test_pretraining_that_was_cut_off_ends_in_the_same_bytes(
    make_workspace: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both optimizers and both schedules have to be in the checkpoint."""
    whole = make_workspace(base=PRETRAIN, output=tmp_path / "whole")
    [planned] = plan_stages(whole.recipe)
    base.run(whole, planned)

    calls = 0

    def imitate_until_cut(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Cut
        return imitate(*arguments)

    cut = make_workspace(base=PRETRAIN, output=tmp_path / "cut")
    monkeypatch.setattr(base, "imitate", imitate_until_cut)
    with pytest.raises(Cut):
        base.run(cut, planned)
    monkeypatch.undo()
    base.run(cut, planned)
    assert files(cut) == files(whole)
    assert files(whole)["metrics.jsonl"].count(b"\n") == 4


def test_the_verdict_of_a_lesson_stands_behind_the_end_token_and_alone_is_learned(encoder: PromptEncoder) -> None:
    """There, on the end token, a discriminator reads its score."""
    prompt = Prompt("", "What is there?")
    [judged] = base.pack_lessons(encoder, [Lesson(prompt, "a1 red star 5.", verdict=" 2 wrong")], 512)
    [plain] = base.pack_lessons(encoder, [Example(prompt, "a1 red star 5.")], 512)
    length = len(plain)
    assert judged.input_ids[:length].equal(plain.input_ids)
    assert judged.input_ids[length - 1] == encoder.end_token_id
    assert judged.target_ids.tolist() == judged.input_ids[length:].tolist()
    assert encoder.tokenizer.decode(judged.target_ids) == " 2 wrong"
    assert judged.target_positions[0] == length - 1
    assert plain.target_ids[-1] == encoder.end_token_id
