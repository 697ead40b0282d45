"""Scores, saving and loading of discriminators in every mode."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen3VLMoeForConditionalGeneration

from prism.errors import ModelError
from prism.models import Discriminator, Mode, PromptEncoder, response_branch, upcycle, visible_prompt, widen
from prism.packing import PromptTree, branch_scores, pack_trees
from prism.records import ImageSource, Prompt, Response

Build = Callable[..., Any]
MODES: tuple[Mode, ...] = get_args(Mode)
SPARSE = tuple(mode for mode in MODES if mode != "dense")
RESPONSE = Response("", True, caption="A red circle.", think="1. Count.", answer="5")


def make(build_dense: Build, mode: Mode, **options: Any) -> Discriminator:
    dense = build_dense()
    made = Discriminator((widen(dense) if mode == "dense" else upcycle(dense)).model, mode=mode, **options)
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(3))
    return made.eval()


@pytest.fixture(params=MODES)
def discriminator(request: pytest.FixtureRequest, build_dense: Build) -> Discriminator:
    return make(build_dense, request.param)


@pytest.fixture
def prompt(picture: Callable[..., ImageSource]) -> Prompt:
    return Prompt("p", "How many?", (picture(16, 24),))


def scores(discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt) -> Tensor:
    """One per view."""
    branches = tuple(response_branch(encoder, RESPONSE, view) for view in discriminator.views)
    tree = PromptTree(encoder.encode(visible_prompt(prompt, discriminator.mode)), branches)
    [packed] = pack_trees([tree], token_budget=200)
    with torch.no_grad():
        return branch_scores(discriminator, packed, views=torch.arange(len(branches)))[0]


def plain_scores(discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt) -> Tensor:
    """One plain forward per view, with the model's own positions and mask."""
    found = []
    encoded = encoder.encode(visible_prompt(prompt, discriminator.mode))
    for place, view in enumerate(discriminator.views):
        branch = response_branch(encoder, RESPONSE, view).token_ids
        ids = torch.cat([encoded.token_ids, branch])[None]
        if discriminator.mode == "dedicated":
            views = torch.full_like(ids[0], place)
            views[: len(encoded)] = -1
            discriminator.read_as(views)
        with torch.no_grad():
            output = discriminator.model(
                input_ids=ids,
                mm_token_type_ids=(ids == encoder.image_token_id).int(),
                pixel_values=encoded.pixel_values,
                image_grid_thw=encoded.image_grid_thw,
            )
        head = discriminator.head.weight[place if discriminator.mode == "dedicated" else 0]
        found.append(output.last_hidden_state[0, -1] @ head)
    return torch.stack(found)


def test_score_is_read_on_the_end_token(discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt) -> None:
    expected = plain_scores(discriminator, encoder, prompt).clamp(-10, 10)
    torch.testing.assert_close(scores(discriminator, encoder, prompt), expected, atol=1e-5, rtol=0)


def test_only_dedicated_experts_have_a_head_for_each_view(discriminator: Discriminator) -> None:
    num_views = 1 if discriminator.mode == "whole-response" else 2
    assert len(discriminator.views) == num_views
    assert discriminator.head.weight.shape == (2 if discriminator.mode == "dedicated" else 1, 32)


def test_each_view_is_read_by_its_own_head(build_dense: Build) -> None:
    made = make(build_dense, "dedicated", score_limit=None)
    hidden = torch.randn(5, 32)
    views = torch.tensor([1, 0, 0, 1, 0])
    expected = torch.stack([row @ made.head.weight[view] for row, view in zip(hidden, views.tolist(), strict=True)])
    torch.testing.assert_close(made.score(hidden, views), expected)
    with pytest.raises(ValueError, match="needs the views of the branches"):
        made.score(hidden)


def test_scores_are_clipped_on_request(build_dense: Build) -> None:
    hidden = torch.eye(32)[:4] * torch.tensor([[0.5], [30.0], [-30.0], [-3.0]])
    for limit, expected in ((10.0, [0.5, 10, -10, -3]), (2.0, [0.5, 2, -2, -2]), (None, [0.5, 30, -30, -3])):
        for made in (make(build_dense, "dense", score_limit=limit), make(build_dense, "dedicated", score_limit=limit)):
            torch.nn.init.ones_(made.head.weight)
            assert made.score(hidden, torch.tensor([0, 1, 1, 0])).tolist() == expected


@pytest.mark.parametrize("mode", ["moe", "dedicated", "dense", "text-only"])
def test_fresh_discriminator_prefers_nothing_and_can_learn(
    build_dense: Build, encoder: PromptEncoder, prompt: Prompt, mode: Mode
) -> None:
    made = Discriminator((widen if mode == "dense" else upcycle)(build_dense()).model, mode=mode)
    perception, reasoning = scores(made, encoder, prompt)
    loss = -F.logsigmoid(perception - reasoning)
    assert loss.item() == pytest.approx(0.6931471805599453, abs=1e-7)
    made.score(torch.randn(4, 32), torch.tensor([0, 0, 1, 1])).sum().backward()
    assert made.head.weight.grad is not None and made.head.weight.grad.abs().min() > 0


def test_saved_discriminator_scores_the_same(
    discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt, tmp_path: Path
) -> None:
    discriminator.save_pretrained(tmp_path)
    for loaded in (
        Discriminator.from_pretrained(tmp_path),
        Discriminator.from_pretrained(tmp_path, mode=discriminator.mode),
    ):
        assert loaded.mode == discriminator.mode
        assert type(loaded.model) is type(discriminator.model)
        assert loaded.state_dict().keys() == discriminator.state_dict().keys()
        assert all(torch.equal(loaded.state_dict()[k], v) for k, v in discriminator.state_dict().items())
        assert torch.equal(scores(loaded, encoder, prompt), scores(discriminator, encoder, prompt))
        assert not loaded.training


def test_another_mode_than_the_recorded_one_is_refused(discriminator: Discriminator, tmp_path: Path) -> None:
    """Even where the weights would fit: a discriminator that never saw an image is no judge of what it shows."""
    discriminator.save_pretrained(tmp_path)
    for mode in set(MODES) - {discriminator.mode}:
        message = f"{tmp_path}: a discriminator of mode {discriminator.mode!r}, where {mode!r} is asked for"
        with pytest.raises(ModelError) as caught:
            Discriminator.from_pretrained(tmp_path, mode=mode)
        assert str(caught.value) == message


def test_a_directory_that_names_no_mode_takes_the_one_asked_for(build_dense: Build, tmp_path: Path) -> None:
    """As written before modes were, and as released; the body alone tells moe from dense."""
    cases: tuple[tuple[Mode, Mode], ...] = (("text-only", "moe"), ("dense", "dense"))
    for mode, natural in cases:
        make(build_dense, mode).save_pretrained(tmp_path / mode)
        (tmp_path / mode / "discriminator.json").unlink()
        assert Discriminator.from_pretrained(tmp_path / mode).mode == natural
        assert Discriminator.from_pretrained(tmp_path / mode, mode=mode).mode == mode
    with pytest.raises(ModelError, match=r"head of shape \(1, 32\) does not fit the body in mode 'dedicated'"):
        Discriminator.from_pretrained(tmp_path / "text-only", mode="dedicated")
    with pytest.raises(ModelError, match=r"dense: mode 'moe' needs a Qwen3VLMoeModel as its body, not a Qwen3VLModel"):
        Discriminator.from_pretrained(tmp_path / "dense", mode="moe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mode": "sparse"}', "'sparse' is no mode of a discriminator"),
        ("{}", "names no mode"),
        ("[]", "names no mode"),
        ("?", "names no mode"),
    ],
)
def test_a_damaged_record_of_the_mode_is_named(build_dense: Build, tmp_path: Path, text: str, message: str) -> None:
    make(build_dense, "moe").save_pretrained(tmp_path)
    file = tmp_path / "discriminator.json"
    assert json.loads(file.read_text()) == {"mode": "moe"}
    file.write_text(text)
    with pytest.raises(ModelError, match=f"{file}: {message}"):
        Discriminator.from_pretrained(tmp_path)


def test_gathered_state_dict_takes_the_place_of_the_modules(discriminator: Discriminator, tmp_path: Path) -> None:
    state = {name: weight + 1 for name, weight in discriminator.state_dict().items()}
    discriminator.save_pretrained(tmp_path, state_dict=state)
    loaded = Discriminator.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in state.items())


def test_hugging_face_loads_the_body(discriminator: Discriminator, tmp_path: Path) -> None:
    discriminator.save_pretrained(tmp_path)
    result: Any = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    loaded, report = result
    assert not any(report.values())
    body = loaded.model.state_dict()
    assert all(torch.equal(body[name], weight) for name, weight in discriminator.model.state_dict().items())
    if discriminator.model.config.model_type == "qwen3_vl_moe":
        assert isinstance(loaded, Qwen3VLMoeForConditionalGeneration)


def test_damaged_directories_are_refused(discriminator: Discriminator, tmp_path: Path) -> None:
    discriminator.save_pretrained(tmp_path)
    save_file({"head.weight": torch.zeros(1, 31)}, tmp_path / "head.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        Discriminator.from_pretrained(tmp_path)
    save_file({"other": torch.zeros(1, 32)}, tmp_path / "head.safetensors")
    with pytest.raises(ModelError, match=r"no readable head\.weight"):
        Discriminator.from_pretrained(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(ModelError, match="expected one score head"):
        Discriminator.from_pretrained(tmp_path)


def test_missing_body_weight_is_named(discriminator: Discriminator, tmp_path: Path) -> None:
    discriminator.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["language_model.norm.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 missing weights: language_model\.norm"):
        Discriminator.from_pretrained(tmp_path)


def test_only_bodies_are_taken(build_dense: Build) -> None:
    with pytest.raises(ModelError, match="Qwen3VLForConditionalGeneration"):
        Discriminator(build_dense())


@pytest.mark.parametrize("mode", MODES)
def test_a_body_that_does_not_suit_the_mode_is_refused(build_dense: Build, mode: Mode) -> None:
    body = upcycle(build_dense()).model if mode == "dense" else build_dense().model
    with pytest.raises(ModelError, match=f"mode '{mode}' needs a Qwen3VL(Moe)?Model as its body"):
        Discriminator(body, mode=mode)


def test_experts_that_cannot_be_divided_are_refused(build_dense: Build) -> None:
    with pytest.raises(ModelError, match="3 experts cannot be divided among 2 views"):
        Discriminator(upcycle(build_dense(), num_experts=3, top_k=1).model, mode="dedicated")
