"""Small random models, pictures of the built-in world, and one sequence at a time as the model itself sees it."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prism.config import Recipe
from prism.data.world.render import render_scene
from prism.data.world.scene import draw_scene
from prism.models import Discriminator, PromptEncoder, upcycle
from prism.models.policy import save_policy
from prism.models.tiny import build_tiny, load_tiny_encoder, tiny_config
from prism.packing import Branch, EncodedPrompt
from prism.records import ImageSource, Prompt, Rollout, RolloutGroup
from prism.stages.workspace import SHIPPED_TOKENIZER, Workspace


@pytest.fixture(scope="session")
def encoder() -> PromptEncoder:
    return load_tiny_encoder(SHIPPED_TOKENIZER)


@pytest.fixture
def make_policy(encoder: PromptEncoder) -> Callable[..., Any]:
    def make(seed: int = 0) -> Any:
        return build_tiny(tiny_config(encoder.tokenizer, hidden_size=32, num_layers=2), seed=seed)

    return make


@pytest.fixture(params=["sparse", "dense"])
def discriminator(request: pytest.FixtureRequest, make_policy: Callable[..., Any]) -> Discriminator:
    """Its head is not zero, or nothing else would have a gradient; no score reaches its limit."""
    body = make_policy(1)
    made = Discriminator((upcycle(body) if request.param == "sparse" else body).model)
    torch.nn.init.normal_(made.head.weight, std=0.2, generator=torch.Generator().manual_seed(3))
    return made


@pytest.fixture(scope="session")
def make_prompt() -> Callable[..., Prompt]:
    def make(index: int, *, with_image: bool = True, **fields: Any) -> Prompt:
        random_source = random.Random(index)
        scene = draw_scene(random_source, layout=(1, 2), split="train")
        images = (ImageSource(data=render_scene(scene, random_source)),) if with_image else ()
        return Prompt(f"p{index}", "How many" + " red" * index + "?", images, answer="2", **fields)

    return make


@pytest.fixture(scope="session")
def hidden_states(encoder: PromptEncoder) -> Callable[..., Tensor]:
    """Hidden states of a prompt and one branch, with the model's own mask and positions."""

    def run(body: Any, prompt: EncodedPrompt, branch: Branch) -> Tensor:
        ids = torch.cat([prompt.token_ids, branch.token_ids])[None]
        output = body(
            input_ids=ids,
            mm_token_type_ids=(ids == encoder.image_token_id).int(),
            pixel_values=prompt.pixel_values,
            image_grid_thw=prompt.image_grid_thw,
            use_cache=False,
        )
        return output.last_hidden_state[0]

    return run


@pytest.fixture(scope="session")
def single_logprobs(hidden_states: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Log-probabilities of all tokens of one branch, from a forward of its own."""

    def run(policy: Any, prompt: EncodedPrompt, branch: Branch, temperature: float = 1.0) -> Tensor:
        logits = policy.lm_head(hidden_states(policy.model, prompt, branch)) / temperature
        predicted = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return predicted.gather(-1, branch.token_ids[:, None])[:, 0]

    return run


@pytest.fixture(scope="session")
def make_rollout(encoder: PromptEncoder) -> Callable[..., Rollout]:
    def make(text: str, *, sample: int = 0, is_finished: bool = True) -> Rollout:
        ids = tuple(encoder.completion_ids(text))
        return Rollout(sample, ids if is_finished else ids[:-1], text, is_finished)

    return make


@pytest.fixture
def groups(make_prompt: Callable[..., Prompt], make_rollout: Callable[..., Rollout]) -> list[RolloutGroup]:
    """Eight rollouts of very different lengths for three prompts, one without an image."""
    texts = (("red", "two blue stars, I think", "2"), ("a b c d e f", "7 8"), ("none", "row 1: red circle 2", ""))
    return [
        RolloutGroup(
            make_prompt(index, with_image=index != 1),
            tuple(make_rollout(text, sample=sample) for sample, text in enumerate(own)),
        )
        for index, own in enumerate(texts)
    ]


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """The gradients of all parameters that have one, which are cleared."""
    found = {
        name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    module.zero_grad(set_to_none=True)
    return found


@pytest.fixture(scope="session")
def take_gradients() -> Callable[[torch.nn.Module], dict[str, Tensor]]:
    return gradients


@pytest.fixture(scope="session")
def assert_same_gradients() -> Callable[..., None]:
    def check(one: dict[str, Tensor], other: dict[str, Tensor], *, atol: float = 1e-5) -> None:
        assert one and max(float(gradient.abs().max()) for gradient in one.values()) > 1e-3
        for name in one.keys() | other.keys():
            # A parameter that one path never touches has a zero gradient in the other.
            zero = torch.zeros_like(one.get(name, other.get(name)))  # type: ignore[arg-type]
            torch.testing.assert_close(one.get(name, zero), other.get(name, zero), atol=atol, rtol=1e-4, msg=name)

    return check


@pytest.fixture
def make_workspace(
    tmp_path: Path, encoder: PromptEncoder, make_policy: Callable[..., Any]
) -> Iterator[Callable[..., Workspace]]:
    """A workspace whose base is a saved random model; keyword arguments replace tables of the recipe."""
    save_policy(make_policy(0), encoder, tmp_path / "base")

    def make(seed: int = 0, **tables: Any) -> Workspace:
        data = {"public": 6, "curated": 4, "alignment": 5, "rl": 5, "dev": 3, "test_per_benchmark": 2}
        recipe = {
            "name": "test",
            "output": tmp_path / "run",
            "data": data,
            "base": {"type": "checkpoint", "path": tmp_path / "base"},
        } | tables
        validated = Recipe.model_validate(recipe)
        return Workspace(validated, seed, validated.run_directory / f"seed-{seed}")

    yield make
