"""The verdict on one answer to a question with a verifiable answer."""

from collections.abc import Callable
from typing import Any

from prism.records import Prompt, Response, Rollout
from prism.rewards import (
    answer_of_free_text,
    num_description_items,
    num_reasoning_steps,
    parse_response,
    verify_answer,
)

Describe = Callable[[Prompt, str], float | None]
"""Share of what a prompt's image shows that a caption states rightly; None where nobody knows."""


def grade(prompt: Prompt, rollout: Rollout, described_fraction: Describe) -> dict[str, Any]:
    """The row of one answer. A response without the format is judged by the answer found in its text,
    so that a model that never learned the format is not called wrong for that alone."""
    response = parse_response(rollout.text)
    is_valid = response.is_valid and rollout.is_finished
    answer = response.answer if response.answer is not None else answer_of_free_text(rollout.text)
    verdict = verify_answer(answer, prompt.answer, equivalents=prompt.equivalents, choices=prompt.choices or None)
    return {
        "benchmark": str(prompt.metadata.get("benchmark", prompt.kind or "test")),
        "group": str(prompt.metadata.get("group", "in-distribution")),
        "item_id": prompt.id,
        "sample": rollout.sample,
        "verdict": str(verdict),
        "is_valid": is_valid,
        "num_tokens": rollout.num_tokens,
        "response": rollout.text,
        **_content(prompt, response, described_fraction),
    }


def _content(prompt: Prompt, response: Response, described_fraction: Describe) -> dict[str, Any]:
    if response.caption is None or response.think is None:
        return dict.fromkeys(("caption_fraction", "is_caption_exact", "num_steps", "num_items"))
    fraction = described_fraction(prompt, response.caption)
    return {
        "caption_fraction": fraction,
        "is_caption_exact": None if fraction is None else fraction == 1,
        "num_steps": num_reasoning_steps(response.think),
        "num_items": num_description_items(response.caption),
    }
