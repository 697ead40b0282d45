"""A small random Qwen3-VL, pictures of the built-in world, and logits bent at will."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictures import picture
from prism.models.processor import PromptEncoder
from prism.models.tiny import build_tiny, tiny_config
from prism.records import Prompt
from prism.stages.workspace import SHIPPED_BASE


class BentHead(nn.Module):
    """A head that adds a constant to the logits of some tokens."""

    def __init__(self, head: nn.Module, shifts: Mapping[int, float], num_tokens: int) -> None:
        super().__init__()
        self.head = head
        self.shift = nn.Buffer(torch.zeros(num_tokens))
        self.shift[list(shifts)] = torch.tensor(list(shifts.values()))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden) + self.shift


@pytest.fixture(scope="session")
def encoder() -> PromptEncoder:
    return PromptEncoder.from_pretrained(SHIPPED_BASE)


@pytest.fixture
def make_policy(encoder: PromptEncoder) -> Callable[..., Any]:
    """A policy; `shifts` are added to the logits of the given token ids, `scale` multiplies all logits."""

    def make(shifts: Mapping[int, float] | None = None, *, seed: int = 0) -> Any:
        config = tiny_config(encoder.tokenizer, hidden_size=32, num_layers=2)
        policy: Any = build_tiny(config, seed=seed).eval()
        if shifts:
            policy.lm_head = BentHead(policy.lm_head, shifts, config.get_text_config().vocab_size)
        return policy

    return make


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    """Of different lengths, with no, one and two images of different sizes."""
    return [
        Prompt("none", "How many red objects are there?"),
        Prompt("one", "<image>What is the colour of the object in row 1, column 2?", (picture(2, 3, 1),)),
        Prompt("two", "<image>Is this like<image>that?", (picture(3, 3, 2), picture(1, 2, 3)), system="Be brief."),
        Prompt("tall", "Describe.", (picture(4, 1, 4),)),
    ]
