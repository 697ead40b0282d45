"""The shipped tiny policy in vLLM, and prompts of the built-in world."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pictures import picture
from prism.config import VllmRollout
from prism.models import PromptEncoder, load_policy
from prism.records import Prompt
from prism.rollout.vllm_engine import VllmEngine
from prism.stages.workspace import SHIPPED_BASE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """vLLM warns about much that is its own to mend."""
    for item in items:
        if item.path.is_relative_to(__file__.removesuffix("conftest.py")):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def settings() -> VllmRollout:
    return VllmRollout(dtype="float32", kv_cache_bytes=2**28, eager=True, tolerance=1e-3)


@pytest.fixture(scope="session")
def encoder() -> PromptEncoder:
    return PromptEncoder.from_pretrained(SHIPPED_BASE)


@pytest.fixture
def policy() -> Any:
    """Less sure of every token than the shipped one, where a wrong weight would often show in none."""
    loaded: Any = load_policy(SHIPPED_BASE)
    with torch.no_grad():
        loaded.model.language_model.norm.weight *= 0.35
    return loaded


@pytest.fixture(scope="module")
def engine(encoder: PromptEncoder, settings: VllmRollout) -> Iterator[VllmEngine]:
    made = VllmEngine(SHIPPED_BASE, encoder, settings, max_length=300)
    yield made
    made.close()


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    """With no, one, two and three images of different sizes, and text around them."""
    return [
        Prompt("none", "How many red objects are there?"),
        Prompt("one", "<image>What is the colour of the object in row 1, column 2?", (picture(2, 3, 1),)),
        Prompt("two", "<image>Is this like<image>that?", (picture(3, 3, 2), picture(1, 2, 3)), system="Be brief."),
        Prompt("three", "<image><image>Or <image>?", (picture(1, 1, 4), picture(4, 1, 5), picture(2, 2, 6))),
        Prompt("tall", "Describe.", (picture(4, 1, 4),)),
    ]


@pytest.fixture(scope="session")
def make_prompts() -> Callable[[int, int], list[Prompt]]:
    """So many prompts with an image each, others for every seed."""

    def make(count: int, seed: int) -> list[Prompt]:
        return [
            Prompt(f"{seed}-{index}", "<image>Describe the picture.", (picture(2, 2, 1000 * seed + index),))
            for index in range(count)
        ]

    return make
