"""What a discriminator reads of a response, and what it may see of the prompt, in each of its modes."""

from dataclasses import replace
from typing import Literal

from prism.models.processor import PromptEncoder
from prism.packing.tree import Branch
from prism.records import IMAGE_MARK, Prompt, Response

Mode = Literal["moe", "dedicated", "dense", "text-only", "whole-response"]
"""`moe` is the paper's. `dedicated` keeps experts and a head for each view apart, `dense` has no experts,
`text-only` sees no images, `whole-response` gives one score to the whole response (GAD)."""

View = Literal["perception", "reasoning", "response"]


def views_of(mode: Mode) -> tuple[View, ...]:
    """The parts of a response that get a score of their own."""
    return ("response",) if mode == "whole-response" else ("perception", "reasoning")


def visible_prompt(prompt: Prompt, mode: Mode) -> Prompt:
    """The prompt as the discriminator sees it: without its images in mode `text-only`."""
    if mode != "text-only":
        return prompt
    return replace(prompt, images=(), question=prompt.question.replace(IMAGE_MARK, "").strip())


def response_branch(encoder: PromptEncoder, response: Response, view: View) -> Branch:
    """What the discriminator reads of a response, for teacher and rollout, in warm-up and alignment alike.

    Perception: the description. Reasoning: the reasoning, then the answer in its tags. Response: all three
    parts in their tags. All are tokenised anew from the stripped text and end with the one end token on
    which the score is read, so that neither tokens at the edges nor the way it was sampled tell who wrote
    it. Nothing is cut. Raises ValueError for an invalid response, which has no parts.
    """
    if not response.is_valid:
        raise ValueError(f"an invalid response ({response.reason}) has no branches: filter on is_valid")
    return Branch.of(encoder.completion_ids(view_text(response, view)))


def view_text(response: Response, view: View) -> str:
    caption, think, answer = response.caption, response.think, f"<answer>{response.answer}</answer>"
    if view == "perception":
        return str(caption)
    if view == "reasoning":
        return f"{think}\n{answer}"
    # Nothing between the parts: a response within its limit of tokens stays within it.
    return f"<caption>{caption}</caption><think>{think}</think>{answer}"
