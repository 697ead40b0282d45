"""Pretraining of the tiny base, cut off and gone on with."""

import copy
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prism.config import plan_stages
from prism.data.world.lessons import Lesson, draw_lesson
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
    """Both optimizers, both schedules and the place in the curriculum have to be in the checkpoint."""
    whole = make_workspace(base=PRETRAIN, output=tmp_path / "whole")
    [planned] = plan_stages(whole.recipe)
    base.run(whole, planned)

    calls = 0

    def imitate_until_cut(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Cut
        return imitate(*arguments)

    cut = make_workspace(base=PRETRAIN, output=tmp_path / "cut")
    monkeypatch.setattr(base, "imitate", imitate_until_cut)
    with pytest.raises(Cut):
        base.run(cut, planned)
    monkeypatch.undo()
    base.run(cut, planned)
    assert files(cut) == files(whole)
    parts = [json.loads(line)["curriculum/part"] for line in files(whole)["metrics.jsonl"].splitlines()]
    assert parts == [0, 0, 3, 3]


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


def test_an_early_exit_is_the_model_without_its_later_layers(
    make_policy: Callable[..., Any],
    encoder: PromptEncoder,
    take_gradients: Callable[..., Any],
    assert_same_gradients: Callable[..., None],
) -> None:
    policy, random_source = make_policy(), random.Random(1)
    packs = base.pack_lessons(encoder, [draw_lesson(random_source, 0) for _ in range(3)], 200)
    assert len(packs) > 1
    shallow = copy.deepcopy(policy)
    layers = shallow.model.language_model.layers
    assert len(layers) == 2
    del layers[1]
    loss = imitate(policy, packs)
    imitate(shallow, packs)
    expected = take_gradients(policy)
    for name, gradient in take_gradients(shallow).items():
        expected[name] += gradient
    assert base.imitate_early(policy, packs) == pytest.approx(loss, abs=1e-5)
    assert_same_gradients(take_gradients(policy), expected)


def test_a_part_ends_when_it_is_mastered_and_the_last_one_has_two_fifths_of_the_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first part is mastered at 0.03, the second at 0.05, the third at 0.06."""

    def steps_until(part: int, losses: Iterator[float], progress: dict[str, Any]) -> int:
        for step, loss in enumerate(losses, start=1):
            base.advance(progress, loss, 1000)
            if progress["part"] == part:
                return step
        raise AssertionError("the losses are at an end")

    progress: dict[str, Any] = {"part": 0, "num_steps": 0, "total": 0, "loss": None}
    assert steps_until(1, itertools.repeat(0.01), progress) == 100
    assert progress == {"part": 1, "num_steps": 0, "total": 100, "loss": None}
    # 0.9 falls by a factor of 49/50 a step: (49/50)^144 · 0.9 is the first below 0.05.
    assert steps_until(2, itertools.chain([0.9], itertools.repeat(0.0)), progress) == 145
    with_two_left = copy.deepcopy(progress)
    # 0.4 is below 0.06 sooner, but 100 steps are the least.
    assert steps_until(3, itertools.chain([0.4], itertools.repeat(0.0)), progress) == 100
    assert not capsys.readouterr().err
    assert steps_until(3, itertools.repeat(0.07), with_two_left) == 600 - 245
    assert "part 3 of the lessons is left unmastered, at a loss of 0.070" in capsys.readouterr().err
    for _ in range(500):
        base.advance(progress, 0.0, 1000)
    assert progress["part"] == 3
