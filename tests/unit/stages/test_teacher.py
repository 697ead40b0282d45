"""Which of the teacher's texts a run's policies are compared with, and what an evaluation makes of them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism.config import plan_stages
from prism.data.images import read_bytes
from prism.data.readers import read_prompts
from prism.data.world import datasets as world_data
from prism.data.writers import write_verl_parquet
from prism.records import Demonstration, Example
from prism.rewards import verdict_of
from prism.runtime.seeding import derive_seed
from prism.stages import base, datasets, evaluation
from prism.stages.workspace import Workspace

MakeWorkspace = Callable[..., Workspace]


@pytest.fixture
def world(make_workspace: MakeWorkspace) -> Workspace:
    workspace = make_workspace()
    datasets.prepare(workspace)
    return workspace


def with_files(make_workspace: MakeWorkspace, **files: Path) -> Workspace:
    workspace = make_workspace(1, data={"type": "files", **files})
    datasets.prepare(workspace)
    return workspace


def test_the_worlds_teacher_answers_the_test_prompts_themselves(world: Workspace) -> None:
    reference = datasets.read_teacher(world)
    assert reference is not None and reference.source == "test"
    prompts = {prompt.id: prompt for prompt in datasets.read_test(world)}
    assert reference.responses.keys() == prompts.keys() and len(prompts) == 18
    for name, [response] in reference.responses.items():
        assert verdict_of(response, prompts[name]) == "correct"
        assert world_data.described_fraction(prompts[name], response.caption or "") == 1


def test_the_responses_change_nothing_about_the_prompts(world: Workspace, tmp_path: Path) -> None:
    bare = [example.prompt for example in world_data.test_examples(2, derive_seed(world.seed, "world"))]
    write_verl_parquet(tmp_path / "bare.parquet", bare)
    prompts = datasets.read_test(world), list(read_prompts(tmp_path / "bare.parquet"))
    texts, others = ([dataclasses.replace(prompt, images=()) for prompt in own] for own in prompts)
    images, other_images = ([list(map(read_bytes, prompt.images)) for prompt in own] for own in prompts)
    assert texts == others and images == other_images


def test_a_users_test_file_may_hold_the_teachers_responses(make_workspace: MakeWorkspace, world: Workspace) -> None:
    data = world.directory / "data"
    workspace = with_files(make_workspace, test=data / "test.parquet", alignment=data / "alignment.parquet")
    assert datasets.read_teacher(workspace) == datasets.read_teacher(world)


@pytest.mark.parametrize("num_answered", [0, 17])
def test_else_it_is_the_alignment_data(
    make_workspace: MakeWorkspace, world: Workspace, tmp_path: Path, num_answered: int
) -> None:
    data = world.directory / "data"
    prompts = [
        dataclasses.replace(prompt, id=f"alignment-{n:06d}") for n, prompt in enumerate(datasets.read_test(world))
    ]
    answer = "<caption>a</caption><think>b</think><answer>c</answer>"
    rows: list[Any] = prompts
    if num_answered:
        rows = [Example(prompt, answer if n < num_answered else "c") for n, prompt in enumerate(prompts)]
    write_verl_parquet(tmp_path / "test.parquet", rows)
    workspace = with_files(make_workspace, test=tmp_path / "test.parquet", alignment=data / "alignment.parquet")
    reference = datasets.read_teacher(workspace)
    assert reference is not None and reference.source == "alignment"
    demonstrations: list[Demonstration] = datasets.read_alignment(workspace, 240)
    # Their names are no test prompt's, though the files number their rows alike.
    assert reference.responses == {
        f"alignment/{demonstration.prompt.id}": [demonstration.response] for demonstration in demonstrations
    }
    assert not reference.responses.keys() & {prompt.id for prompt in prompts}


def test_without_any_teacher_there_is_no_reference(make_workspace: MakeWorkspace, world: Workspace) -> None:
    workspace = with_files(make_workspace, rl=world.directory / "data" / "rl.parquet")
    assert datasets.read_teacher(workspace) is None
    assert workspace.input_hash("data", "teacher") is None


def test_an_evaluation_measures_drift_on_the_prompts_it_asked(make_workspace: MakeWorkspace) -> None:
    settings = {"num_samples": 2, "max_response_tokens": 4, "batch_size": 16, "limit": 1}
    workspace = make_workspace(evaluation=settings)
    datasets.prepare(workspace)
    stage = next(stage for stage in plan_stages(workspace.recipe) if stage.kind == "base")
    base.run(workspace, stage)
    evaluation.run(workspace, stage)
    directory = workspace.stage_directory("base") / "evaluation"
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["inputs"]["data/teacher"] == workspace.input_hash("data", "teacher")
    found = json.loads((directory / "summary.json").read_text())
    assert found["drift"]["reference"] == "test"
    assert found["shape"]["teacher"]["whole"]["length"]["count"] == 9
    whole = found["drift"]["sampled"]["whole/length"]
    assert [whole[name] for name in ("count", "num_responses", "num_teacher_responses")] == [9, 18, 9]
    # Four tokens of a random model fall short of every response of the teacher's: the distance is that of the means.
    mean = {name: parts["whole"]["length"]["mean"] for name, parts in found["shape"].items()}
    shortfall = mean["teacher"] - mean["sampled"]
    assert whole["plug_in"] == pytest.approx(shortfall) and shortfall > 50
    assert found["drift"]["greedy"]["reasoning/steps"]["mean"] is None
