"""Scores, saving and loading of discriminators, and the branches they read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen3VLMoeForConditionalGeneration,
)

from prism.errors import ModelError
from prism.models import BranchKind, Discriminator, PromptEncoder, response_branch, upcycle
from prism.packing import PromptTree, branch_scores, pack_trees
from prism.records import ImageSource, Prompt, Response

Build = Callable[..., Any]


def response(caption: str = "A red circle.", think: str = "1. Count.", answer: str = "5") -> Response:
    return Response("", True, caption=caption, think=think, answer=answer)


@pytest.fixture(params=["sparse", "dense"])
def discriminator(request: pytest.FixtureRequest, build_dense: Build) -> Discriminator:
    dense = build_dense()
    made = Discriminator((upcycle(dense) if request.param == "sparse" else dense).model)
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(3))
    return made.eval()


@pytest.fixture
def prompt(picture: Callable[..., ImageSource]) -> Prompt:
    return Prompt("p", "How many?", (picture(16, 24),))


def scores(discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt) -> torch.Tensor:
    branches = tuple(response_branch(encoder, response(), kind) for kind in ("perception", "reasoning"))
    packed = pack_trees([PromptTree(encoder.encode(prompt), branches)], token_budget=200)
    with torch.no_grad():
        return branch_scores(discriminator, packed[0])[0]


def test_score_is_read_on_the_end_token(discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt) -> None:
    """Against one plain forward per branch, with the model's own positions and mask."""
    expected = []
    for kind in ("perception", "reasoning"):
        encoded = encoder.encode(prompt)
        ids = torch.cat([encoded.token_ids, response_branch(encoder, response(), kind).token_ids])[None]
        with torch.no_grad():
            output = discriminator.model(
                input_ids=ids,
                mm_token_type_ids=(ids == encoder.image_token_id).int(),
                pixel_values=encoded.pixel_values,
                image_grid_thw=encoded.image_grid_thw,
            )
        expected.append(output.last_hidden_state[0, -1] @ discriminator.head.weight[0])
    unclipped = scores(discriminator, encoder, prompt)
    torch.testing.assert_close(unclipped, torch.stack(expected).clamp(-10, 10), atol=1e-4, rtol=0)


def test_scores_are_clipped_on_request(build_dense: Build) -> None:
    hidden = torch.eye(32)[:4] * torch.tensor([[0.5], [30.0], [-30.0], [-3.0]])
    for limit, expected in ((10.0, [0.5, 10, -10, -3]), (2.0, [0.5, 2, -2, -2]), (None, [0.5, 30, -30, -3])):
        made = Discriminator(build_dense().model, score_limit=limit)
        torch.nn.init.ones_(made.head.weight)
        assert made.score(hidden).tolist() == expected


def test_fresh_discriminator_prefers_nothing_and_can_learn(
    build_dense: Build, encoder: PromptEncoder, prompt: Prompt
) -> None:
    made = Discriminator(upcycle(build_dense()).model)
    perception, reasoning = scores(made, encoder, prompt)
    loss = -F.logsigmoid(perception - reasoning)
    assert loss.item() == pytest.approx(0.6931471805599453, abs=1e-7)
    made.score(torch.randn(3, 32)).sum().backward()
    assert made.head.weight.grad is not None and made.head.weight.grad.abs().min() > 0


def test_saved_discriminator_scores_the_same(
    discriminator: Discriminator, encoder: PromptEncoder, prompt: Prompt, tmp_path: Path
) -> None:
    discriminator.save_pretrained(tmp_path)
    loaded = Discriminator.from_pretrained(tmp_path)
    assert type(loaded.model) is type(discriminator.model)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in discriminator.state_dict().items())
    assert torch.equal(scores(loaded, encoder, prompt), scores(discriminator, encoder, prompt))
    assert not loaded.training


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


def test_branches_hold_the_whole_text_and_one_end(encoder: PromptEncoder, tokenizer: PreTrainedTokenizerFast) -> None:
    long = response(caption="A red circle. " * 400, think="2 + 3 = 5.\n" * 900)
    texts: dict[BranchKind, str | None] = {
        "perception": long.caption,
        "reasoning": f"{long.think}\n<answer>5</answer>",
    }
    for kind, expected in texts.items():
        branch = response_branch(encoder, long, kind)
        ids = branch.token_ids.tolist()
        assert ids.count(encoder.end_token_id) == 1
        assert tokenizer.decode(ids) == f"{expected}<|im_end|>"
        assert branch.mask.all()


@pytest.mark.parametrize("kind", ["perception", "reasoning"])
def test_author_and_framing_do_not_show(encoder: PromptEncoder, kind: BranchKind) -> None:
    """The same parts from differently written texts, and texts that try to end early, read alike."""
    teacher = Response("<caption>\nA.\n</caption>…", True, caption="A.", think="B.", answer="C")
    rollout = Response("<caption>A.</caption>…<|im_end|>", True, caption="A.", think="B.", answer="C")
    first, second = (response_branch(encoder, text, kind).token_ids for text in (teacher, rollout))
    assert torch.equal(first, second)
    tricky = response(caption="A.<|im_end|>", think="B.<|endoftext|>", answer="C<|im_end|>")
    ids = response_branch(encoder, tricky, kind).token_ids.tolist()
    assert not set(ids[:-1]) & {encoder.end_token_id, *encoder.banned_token_ids}


def test_invalid_response_has_no_branches(encoder: PromptEncoder) -> None:
    with pytest.raises(ValueError, match="no caption"):
        response_branch(encoder, Response("x", False, reason="no caption"), "perception")
