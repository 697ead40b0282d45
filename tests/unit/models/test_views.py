"""What a discriminator reads of a response and sees of its prompt, in every mode."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from prism.models import Mode, PromptEncoder, View, response_branch, view_text, views_of, visible_prompt
from prism.records import ImageSource, Prompt, Response
from prism.rewards import parse_response

VIEWS: tuple[View, ...] = get_args(View)


def response(caption: str = "A red circle.", think: str = "1. Count.", answer: str = "5") -> Response:
    return Response("", True, caption=caption, think=think, answer=answer)


def test_only_a_whole_response_has_one_score() -> None:
    views = {mode: views_of(mode) for mode in get_args(Mode)}
    assert views.pop("whole-response") == ("response",)
    assert views == dict.fromkeys(("moe", "dedicated", "dense", "text-only"), ("perception", "reasoning"))


def test_views_hold_the_whole_text_and_one_end(encoder: PromptEncoder, tokenizer: PreTrainedTokenizerFast) -> None:
    long = response(caption="A red circle. " * 400, think="2 + 3 = 5.\n" * 900)
    texts = {
        "perception": long.caption,
        "reasoning": f"{long.think}\n<answer>5</answer>",
        "response": f"<caption>{long.caption}</caption><think>{long.think}</think><answer>5</answer>",
    }
    for view in VIEWS:
        branch = response_branch(encoder, long, view)
        ids = branch.token_ids.tolist()
        assert ids.count(encoder.end_token_id) == 1
        assert tokenizer.decode(ids) == f"{texts[view]}<|im_end|>"
        assert branch.mask.all()


def test_the_view_of_a_whole_response_is_a_response_with_the_same_parts() -> None:
    parts = response("row 1: red circle 2.", "1. 2 = 2\n2. so 2", "2")
    read = parse_response(view_text(parts, "response"))
    assert read.is_valid
    assert (read.caption, read.think, read.answer) == (parts.caption, parts.think, parts.answer)


@pytest.mark.parametrize("view", VIEWS)
def test_author_and_framing_do_not_show(encoder: PromptEncoder, view: View) -> None:
    """The same parts from differently written texts, and texts that try to end early, read alike."""
    teacher = Response("<caption>\nA.\n</caption>…", True, caption="A.", think="B.", answer="C")
    rollout = Response("<caption>A.</caption>…<|im_end|>", True, caption="A.", think="B.", answer="C")
    first, second = (response_branch(encoder, text, view).token_ids for text in (teacher, rollout))
    assert torch.equal(first, second)
    tricky = response(caption="A.<|im_end|>", think="B.<|endoftext|>", answer="C<|im_end|>")
    ids = response_branch(encoder, tricky, view).token_ids.tolist()
    assert not set(ids[:-1]) & {encoder.end_token_id, *encoder.banned_token_ids}


@pytest.mark.parametrize("view", VIEWS)
def test_invalid_response_has_no_branches(encoder: PromptEncoder, view: View) -> None:
    with pytest.raises(ValueError, match="no caption"):
        response_branch(encoder, Response("x", False, reason="no caption"), view)


@pytest.mark.parametrize(
    ("question", "num_images", "without"),
    [
        ("How many?", 1, "How many?"),
        ("<image>How many?", 1, "How many?"),
        ("<image>\nHow many?", 1, "How many?"),
        ("Is <image> like <image>?", 2, "Is  like ?"),
        ("How many?", 0, "How many?"),
    ],
)
def test_images_are_withheld_from_text_only_and_from_no_other_mode(
    picture: Callable[..., ImageSource], encoder: PromptEncoder, question: str, num_images: int, without: str
) -> None:
    images = tuple(picture(16, 24, seed=index) for index in range(num_images))
    prompt = Prompt("p", question, images, answer="2", system="Look.")
    for mode in get_args(Mode):
        if mode != "text-only":
            assert visible_prompt(prompt, mode) == prompt
    seen = visible_prompt(prompt, "text-only")
    assert (seen.images, seen.question, seen.system, seen.answer) == ((), without, "Look.", "2")
    encoded = encoder.encode(seen)
    assert encoded.pixel_values is None and encoder.image_token_id not in encoded.token_ids
