"""Small random models, pictures of the built-in world, and one sequence at a time as the model itself sees it."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from transformers import DynamicCache, Qwen3VLMoeModel

from prism.config import Recipe
from prism.data.world.render import render_scene
from prism.data.world.scene import draw_scene
from prism.models import Discriminator, Mode, PromptEncoder, View, upcycle, widen
from prism.models.policy import save_policy
from prism.models.tiny import build_tiny, tiny_config
from prism.packing import Branch, EncodedPrompt
from prism.records import ImageSource, Prompt, Response, Rollout, RolloutGroup
from prism.stages.workspace import SHIPPED_BASE, Workspace


@dataclass(frozen=True)
class Reading:
    """The score of one view of a response, and for every layer the experts that its tokens went to."""

    score: Tensor
    experts: list[Tensor]


@pytest.fixture(scope="session")
def encoder() -> PromptEncoder:
    return PromptEncoder.from_pretrained(SHIPPED_BASE)


@pytest.fixture
def make_policy(encoder: PromptEncoder) -> Callable[..., Any]:
    def make(seed: int = 0) -> Any:
        return build_tiny(tiny_config(encoder.tokenizer, hidden_size=32, num_layers=2), seed=seed)

    return make


@pytest.fixture
def make_discriminator(make_policy: Callable[..., Any]) -> Callable[..., Discriminator]:
    """Its experts and routers differ, so that it matters where a token goes. Its head is not zero, or nothing
    else would have a gradient; no score reaches its limit."""

    def make(mode: Mode, *, num_experts: int = 6) -> Discriminator:
        dense, random_source = make_policy(1), torch.Generator().manual_seed(3)
        if mode == "dense":
            body = widen(dense, noise_std=0.1).model
        else:
            body = upcycle(dense, num_experts=num_experts, noise_std=0.1).model
            for layer in body.language_model.layers:
                torch.nn.init.normal_(layer.mlp.gate.weight, std=0.3, generator=random_source)
        made = Discriminator(body, mode=mode)
        torch.nn.init.normal_(made.head.weight, std=0.2, generator=random_source)
        return made

    return make


@pytest.fixture(params=get_args(Mode))
def discriminator(request: pytest.FixtureRequest, make_discriminator: Callable[..., Discriminator]) -> Discriminator:
    return make_discriminator(request.param)


@pytest.fixture(scope="session")
def read_alone(encoder: PromptEncoder) -> Callable[..., Reading]:
    """A response read by itself: tokens put together by hand, the model's own classes, mask and positions."""

    def run(discriminator: Discriminator, prompt: Prompt, response: Response, view: View) -> Reading:
        text = {
            "perception": f"{response.caption}",
            "reasoning": f"{response.think}\n<answer>{response.answer}</answer>",
            "response": f"<caption>{response.caption}</caption><think>{response.think}</think>"
            f"<answer>{response.answer}</answer>",
        }[view]
        if discriminator.mode == "text-only":
            prompt = replace(prompt, images=(), question=prompt.question.replace("<image>", ""))
        tokens = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        branch = torch.tensor([*tokens, encoder.end_token_id])
        encoded = encoder.encode(prompt)
        body: Any = discriminator.model
        has_experts = discriminator.mode != "dense"
        if discriminator.mode == "dedicated":
            place = ("perception", "reasoning").index(view)
            hidden, router_logits = read_dedicated(body, encoded, branch, place, encoder.image_token_id)
            first = place * body.config.text_config.num_experts // 2
            return Reading(hidden[-1] @ discriminator.head.weight[place], _chosen(router_logits, first))
        ids = torch.cat([encoded.token_ids, branch])[None]
        output = body(
            input_ids=ids,
            mm_token_type_ids=(ids == encoder.image_token_id).int(),
            pixel_values=encoded.pixel_values,
            image_grid_thw=encoded.image_grid_thw,
            use_cache=False,
            **({"output_router_logits": True} if has_experts else {}),
        )
        router_logits = [logits[len(encoded) :] for logits in output.router_logits] if has_experts else []
        return Reading(output.last_hidden_state[0, -1] @ discriminator.head.weight[0], _chosen(router_logits, 0))

    return run


def read_dedicated(body: Any, prompt: EncodedPrompt, branch: Tensor, place: int, image_token_id: int) -> Any:
    """Hidden states and router logits of a branch, without a router of ours: the prompt goes through the whole
    model, and the branch continues it through a smaller one that has the view's experts alone.

    Weights are taken from `body`, and their gradients go there.
    """
    num_experts = body.config.text_config.num_experts // 2
    config = copy.deepcopy(body.config)
    config.text_config.num_experts = num_experts
    whole: Any = Qwen3VLMoeModel(body.config)
    half: Any = Qwen3VLMoeModel(config)
    weights = dict(body.named_parameters())
    own = slice(place * num_experts, (place + 1) * num_experts)
    is_expert = (".mlp.gate.", ".mlp.experts.")
    own_weights = {name: w[own] if any(part in name for part in is_expert) else w for name, w in weights.items()}
    ids = torch.cat([prompt.token_ids, branch])[None]
    is_image = (ids == image_token_id).int()
    positions, _ = whole.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=prompt.image_grid_thw)
    first = len(prompt)
    cache = DynamicCache()
    functional_call(
        whole,
        weights,
        kwargs={
            "input_ids": ids[:, :first],
            "position_ids": positions[:, :, :first],
            "mm_token_type_ids": is_image[:, :first],
            "pixel_values": prompt.pixel_values,
            "image_grid_thw": prompt.image_grid_thw,
            "past_key_values": cache,
            "use_cache": True,
        },
    )
    output = functional_call(
        half,
        own_weights,
        kwargs={
            "input_ids": ids[:, first:],
            "position_ids": positions[:, :, first:],
            "past_key_values": cache,
            "use_cache": True,
            "output_router_logits": True,
        },
    )
    return output.last_hidden_state[0], output.router_logits


def _chosen(router_logits: Sequence[Tensor], first: int) -> list[Tensor]:
    """The two experts each token goes to, per layer, of those numbered from `first`."""
    return [first + logits.detach().argsort(-1, descending=True)[:, :2] for logits in router_logits]


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

    def run(
        policy: Any, prompt: EncodedPrompt, branch: Branch, temperature: float = 1.0, banned: Sequence[int] = ()
    ) -> Tensor:
        logits = policy.lm_head(hidden_states(policy.model, prompt, branch)) / temperature
        logits[:, list(banned)] = -torch.inf
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
