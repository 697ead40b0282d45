"""Which discriminator a stage starts from, in every mode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from prism.config import plan_stages
from prism.errors import ConfigError, ModelError
from prism.models import Discriminator, Mode, load_policy
from prism.stages import base, datasets
from prism.stages.discriminators import (
    check_source,
    load_discriminator_for_alignment,
    make_discriminator,
    outside_directories,
    shown_metrics,
)
from prism.stages.workspace import Workspace

MakeWorkspace = Callable[..., Workspace]
MODES: tuple[Mode, ...] = get_args(Mode)
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def make_ready(make_workspace: MakeWorkspace) -> MakeWorkspace:
    """A workspace whose base has been run."""

    def make(**tables: Any) -> Workspace:
        workspace = make_workspace(**tables)
        datasets.prepare(workspace)
        base.run(workspace, plan_stages(workspace.recipe)[0])
        return workspace

    return make


@every_mode
def test_an_untrained_discriminator_is_made_from_the_base(make_ready: MakeWorkspace, mode: Mode) -> None:
    """Without noise its body is the base's function: hidden states are equal to 1e-5."""
    workspace = make_ready(discriminator={"type": mode, "noise_std": 0.0, "score_clip": 3.0})
    made = make_discriminator(workspace)
    assert (made.mode, made.score_limit, made.training) == (mode, 3.0, True)
    assert not made.head.weight.any()
    config = made.model.config.get_text_config()
    dense = load_policy(workspace.model_directory("base"))
    if mode == "dense":
        assert config.intermediate_size == 2 * dense.config.get_text_config().intermediate_size
    else:
        assert (config.num_experts, config.num_experts_per_tok) == (4, 2)
    ids = torch.arange(100, 130)[None]
    made.read_as(torch.tensor([-1] * 10 + [0] * 10 + [1] * 10))
    with torch.no_grad():
        found, expected = (body(input_ids=ids).last_hidden_state for body in (made.model, dense.model))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@every_mode
def test_the_seed_decides_an_untrained_discriminator(make_ready: MakeWorkspace, mode: Mode) -> None:
    first, again = (make_discriminator(make_ready(discriminator={"type": mode})).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_experts_and_width_are_those_of_the_recipe(make_ready: MakeWorkspace) -> None:
    experts = {"num_experts": 6, "top_k": 3}
    for mode in set(MODES) - {"dense"}:
        config = make_discriminator(make_ready(discriminator={"type": mode, **experts})).model.config
        text = config.get_text_config()
        assert (text.num_experts, text.num_experts_per_tok) == (6, 3)
    wide = make_discriminator(make_ready(discriminator={"type": "dense", "width": 3})).model.config
    assert wide.get_text_config().intermediate_size == 3 * 64


@every_mode
def test_a_trained_discriminator_is_taken_as_it_is(
    make_ready: MakeWorkspace, make_discriminator: Callable[..., Discriminator], tmp_path: Path, mode: Mode
) -> None:
    """As the start of warm-up, of alignment without one, and after one."""
    trained = make_discriminator(mode)
    trained.save_pretrained(tmp_path / "judge")
    workspace = make_ready(discriminator={"type": mode, "checkpoint": tmp_path / "judge", "score_clip": 4.0})
    assert outside_directories(workspace.recipe) == {"discriminator": tmp_path / "judge"}
    loaded = load_discriminator_for_alignment(workspace)
    assert (loaded.mode, loaded.score_limit, loaded.training) == (mode, 4.0, True)
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in trained.state_dict().items())

    warm = make_ready(discriminator={"type": mode}, warmup={"num_steps": 1, "batch_size": 1, "num_heldout": 1})
    trained.save_pretrained(warm.model_directory("warmup"))
    after = load_discriminator_for_alignment(warm).state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in trained.state_dict().items())


@every_mode
def test_a_trained_discriminator_of_another_mode_is_refused(
    make_ready: MakeWorkspace, make_discriminator: Callable[..., Discriminator], tmp_path: Path, mode: Mode
) -> None:
    make_discriminator(mode).save_pretrained(tmp_path / "judge")
    for other in set(MODES) - {mode}:
        workspace = make_ready(discriminator={"type": other, "checkpoint": tmp_path / "judge"})
        with pytest.raises(ModelError, match=f"of mode '{mode}', where '{other}' is asked for"):
            load_discriminator_for_alignment(workspace)


def test_what_no_discriminator_can_be_made_from_is_known_before_anything_runs(
    make_workspace: MakeWorkspace, make_discriminator: Callable[..., Discriminator], tmp_path: Path
) -> None:
    make_discriminator("moe").save_pretrained(tmp_path / "judge")

    def check(**settings: Any) -> None:
        check_source(make_workspace(discriminator=settings).recipe)

    check(type="moe", checkpoint=tmp_path / "judge", num_experts=6)
    with pytest.raises(ConfigError, match=r"num_experts: 4, but .*judge has 6; .*num_experts=6 discriminator\.top_k=2"):
        check(type="moe", checkpoint=tmp_path / "judge")
    with pytest.raises(ConfigError, match=r"discriminator.type: 'dedicated', but .*judge is of mode 'moe'"):
        check(type="dedicated", checkpoint=tmp_path / "judge")
    (tmp_path / "judge" / "discriminator.json").unlink()
    with pytest.raises(ConfigError, match=r"discriminator.type: 'dense', but .*judge has experts"):
        check(type="dense", checkpoint=tmp_path / "judge")
    with pytest.raises(ConfigError, match=r"judge has experts already, .* name one as discriminator.dense"):
        check(type="dense", dense=tmp_path / "judge")
    with pytest.raises(ModelError, match=r"nowhere: no readable config.json"):
        check(type="moe", dense=tmp_path / "nowhere")


def test_metrics_are_shown_for_the_views_there_are(make_workspace: MakeWorkspace) -> None:
    for mode in MODES:
        recipe = make_workspace(discriminator={"type": mode}).recipe
        shown = shown_metrics(recipe, "gap/{}", "heldout/{}_accuracy")
        if mode == "whole-response":
            assert shown == ("gap/response", "heldout/response_accuracy")
        else:
            assert shown == (
                "gap/perception",
                "gap/reasoning",
                "heldout/perception_accuracy",
                "heldout/reasoning_accuracy",
            )
