"""Pretraining of the tiny base, cut off and gone on with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism.config import plan_stages
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
