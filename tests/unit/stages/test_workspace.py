"""Data, models and manifests of one seed's pipeline on disk."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from prism.config import PlannedStage, plan_stages
from prism.data.world.scene import decode_scene, split_of
from prism.errors import CheckpointError, ConfigError, DataError, ModelError
from prism.models import Discriminator, PromptEncoder, save_policy
from prism.records import ImageSource, Prompt
from prism.rewards import verdict_of
from prism.runtime.hashing import directory_sha256
from prism.stages import base, datasets
from prism.stages.ablation import stage_keys
from prism.stages.discriminators import load_discriminator_for_alignment, make_discriminator
from prism.stages.game import num_active_experts
from prism.stages.workspace import Workspace

MakeWorkspace = Callable[..., Workspace]
SFT = {"num_steps": 1, "batch_size": 2, "max_response_tokens": 256, "token_budget": 4096}


def first_stage(workspace: Workspace, kind: str) -> PlannedStage:
    return next(stage for stage in plan_stages(workspace.recipe) if stage.kind == kind)


def splits(prompts: list[Prompt]) -> set[str]:
    return {split_of(decode_scene(prompt.metadata["scene"])) for prompt in prompts}


def test_world_data_come_back_as_they_were_asked_for(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace()
    datasets.prepare(workspace)
    sft, alignment = datasets.read_sft(workspace, 240), datasets.read_alignment(workspace, 240)
    rl, development = datasets.read_rl(workspace), datasets.read_development(workspace, 240)
    test = datasets.read_test(workspace)
    assert [len(rows) for rows in (sft, alignment, rl, development, test)] == [10, 5, 5, 3, 18]
    assert splits([example.prompt for example in sft]) == {"train", "curated"}
    assert splits([demonstration.prompt for demonstration in alignment]) == splits(rl) == {"rollout"}
    assert splits([example.prompt for example in development]) == {"dev"}
    assert splits(test) == {"test"}
    for demonstration in alignment:
        assert verdict_of(demonstration.response, demonstration.prompt) == "correct"
    assert len({prompt.metadata["benchmark"] for prompt in test}) == 9
    distribution = json.loads((workspace.directory / "data" / datasets.TEACHER_DISTRIBUTION).read_text())
    assert sum(distribution["num_steps"].values()) == sum(distribution["num_items"].values()) == 5


def test_each_seed_starts_from_its_own_of_the_kept_bases(
    make_workspace: MakeWorkspace, make_policy: Callable[..., Any], encoder: PromptEncoder, tmp_path: Path
) -> None:
    kept = {"type": "tiny", "source": "kept", "path": tmp_path / "kept-{seed}"}
    for seed in (3, 4):
        save_policy(make_policy(seed), encoder, tmp_path / f"kept-{seed}")
        workspace = make_workspace(seed, base=kept)
        base.run(workspace, first_stage(workspace, "base"))
        assert workspace.model_directory("base") == tmp_path / f"kept-{seed}"
        assert workspace.input_hash("base") == directory_sha256(tmp_path / f"kept-{seed}")
        torch.testing.assert_close(workspace.load_policy("base")[0].state_dict(), make_policy(seed).state_dict())


def test_a_base_that_was_not_kept_is_named(make_workspace: MakeWorkspace, tmp_path: Path) -> None:
    workspace = make_workspace(5, base={"type": "tiny", "source": "kept", "path": tmp_path / "kept-{seed}"})
    with pytest.raises(DataError, match=r"base: input model is missing: .*kept-5 does not exist"):
        base.run(workspace, first_stage(workspace, "base"))


def test_how_weights_are_spread_belongs_to_no_stages_identity(make_workspace: MakeWorkspace) -> None:
    plain, copies = make_workspace(), make_workspace(fsdp_size=2)
    assert stage_keys(copies.recipe, 0) == stage_keys(plain.recipe, 0)
    for stage in plan_stages(plain.recipe):
        assert copies.training_settings(stage.kind) == plain.training_settings(stage.kind)


def test_data_are_made_once_and_belong_to_their_seed(make_workspace: MakeWorkspace) -> None:
    first, second = make_workspace(0), make_workspace(1)
    for workspace in (first, first, second):
        datasets.prepare(workspace)
    file = first.directory / "data" / "rl.parquet"
    made = file.stat().st_mtime_ns
    datasets.prepare(first)
    assert file.stat().st_mtime_ns == made
    for name in ("sft", "alignment", "rl", "dev", "test"):
        sha256 = first.input_hash("data", name)
        assert sha256 is not None and len(sha256) == 64
        assert first.input_hash("data", name) != second.input_hash("data", name)


def test_a_stage_that_is_not_complete_cannot_be_an_input(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace()
    with pytest.raises(CheckpointError, match="'data' is not complete"):
        workspace.input_hash("data", "rl")


def test_an_adopted_base_is_known_by_its_content(make_workspace: MakeWorkspace, tmp_path: Path) -> None:
    workspace = make_workspace()
    stage = first_stage(workspace, "base")
    base.run(workspace, stage)
    before = workspace.input_hash("base")
    assert before is not None and len(before) == 64
    assert workspace.model_directory("base") == tmp_path / "base"
    base.run(workspace, stage)
    assert workspace.input_hash("base") == before
    assert make_workspace(base={"type": "tiny"}).model_directory("base").name == "tiny-base"


def write_user_files(workspace: Workspace, directory: Path) -> dict[str, Any]:
    """A user's files: those of the world."""
    datasets.prepare(workspace)
    data = workspace.directory / "data"
    return {"type": "files", "sft": (data / "sft" / "curated.jsonl",), "rl": data / "rl.parquet"}


def test_files_without_development_data_can_be_trained_on(make_workspace: MakeWorkspace, tmp_path: Path) -> None:
    files = write_user_files(make_workspace(5), tmp_path)
    workspace = make_workspace(data=files, sft=SFT)
    datasets.prepare(workspace)
    assert datasets.read_development(workspace, 240) == []
    assert len(datasets.read_sft(workspace, 240)) == 4
    stages = {stage.name: stage for stage in plan_stages(workspace.recipe)}
    base.run(workspace, stages["base"])
    run = workspace.open_stage(stages["sft"], [workspace.recipe.sft], num_steps=1, data=("sft", "dev"))
    assert not run.is_complete
    with pytest.raises(ConfigError, match=r"data\.alignment"):
        datasets.read_alignment(workspace, 240)


def test_images_are_kept_once_and_named_from_the_run(make_workspace: MakeWorkspace, make_prompt: Any) -> None:
    workspace, prompt = make_workspace(), make_prompt(0)
    kept = workspace.keep_image(prompt)
    assert kept == workspace.keep_image(dataclasses.replace(prompt, id="other"))
    assert kept is not None and kept.startswith("seed-0/images/")
    assert (workspace.recipe.run_directory / kept).read_bytes() == prompt.images[0].data
    other = make_prompt(1)
    assert workspace.keep_image(other) != kept
    assert workspace.keep_image(Prompt("p", "q")) is None
    assert len(list((workspace.directory / "images").iterdir())) == 2
    assert isinstance(prompt.images[0], ImageSource)


WARMUP = {
    "num_steps": 1,
    "batch_size": 2,
    "num_heldout": 1,
    "max_response_tokens": 256,
    "token_budget": 4096,
}


def test_a_discriminator_is_upcycled_from_the_base_by_seed(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace(discriminator={"num_experts": 3, "top_k": 2, "score_clip": 4.0})
    first, again = make_discriminator(workspace), make_discriminator(workspace)
    other = make_discriminator(make_workspace(1, discriminator={"num_experts": 3, "top_k": 2}))
    assert num_active_experts(first) == 2 and first.score_limit == 4 and first.training
    experts = "model.language_model.layers.0.mlp.experts.down_proj"
    assert first.state_dict()[experts].shape[0] == 3
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.state_dict()[experts], other.state_dict()[experts])
    assert (first.head.weight == 0).all()
    dense, _ = workspace.load_policy("base")
    token = "model.language_model.embed_tokens.weight"
    assert torch.equal(first.state_dict()[token], dense.state_dict()[token])


def test_alignment_starts_from_the_warmed_up_discriminator(make_workspace: MakeWorkspace) -> None:
    workspace = make_workspace(warmup=WARMUP)
    warmed = make_discriminator(workspace)
    torch.nn.init.ones_(warmed.head.weight)
    warmed.save_pretrained(workspace.model_directory("warmup"))
    loaded = load_discriminator_for_alignment(workspace)
    assert (loaded.head.weight == 1).all() and loaded.score_limit == 10 and loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in warmed.state_dict().items())
    assert (load_discriminator_for_alignment(make_workspace()).head.weight == 0).all()


def test_a_trained_discriminator_can_be_given(make_workspace: MakeWorkspace, tmp_path: Path) -> None:
    given = make_discriminator(make_workspace())
    torch.nn.init.ones_(given.head.weight)
    given.save_pretrained(tmp_path / "given")
    settings = {"checkpoint": tmp_path / "given", "score_clip": 3.0}
    loaded = make_discriminator(make_workspace(discriminator=settings))
    assert isinstance(loaded, Discriminator)
    assert (loaded.head.weight == 1).all() and loaded.score_limit == 3 and loaded.training


def test_large_images_are_scaled_down_to_the_pixels_that_the_recipe_allows(make_workspace: MakeWorkspace) -> None:
    """In every stage's encoder, so that the stages, and servers told the same, read one prompt alike."""
    image = io.BytesIO()
    Image.new("RGB", (640, 640), "red").save(image, "PNG")
    prompt = Prompt("large", "What is this?", (ImageSource(data=image.getvalue()),))
    lengths = []
    for pixels in (None, 96 * 96, 64 * 64):
        workspace = make_workspace() if pixels is None else make_workspace(max_pixels=pixels)
        datasets.prepare(workspace)
        base.run(workspace, first_stage(workspace, "base"))
        encoder = workspace.load_encoder("base")
        lengths.append(encoder.prompt_length(prompt))
        [(width, height)] = encoder.image_sizes(prompt)
        assert pixels is None or width * height <= pixels
        assert workspace.model_settings == ({} if pixels is None else {"max_pixels": pixels})
    assert lengths[0] > lengths[1] > lengths[2]
    with pytest.raises(ModelError, match=r"images of \d+ pixels at least and 1 at most: raise max_pixels"):
        make_workspace(max_pixels=1).load_encoder("base")
