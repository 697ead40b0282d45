"""The router of dedicated experts, by hand, and where it may be put."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3VLMoeTextConfig
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextTopKRouter

from prism.errors import ModelError
from prism.models import Discriminator, upcycle
from prism.models.routing import DedicatedRouter, TokenViews, dedicate_experts

Build = Callable[..., Any]


def make_router(num_experts: int, top_k: int, weight: Tensor) -> Qwen3VLMoeTextTopKRouter:
    config = Qwen3VLMoeTextConfig(num_experts=num_experts, num_experts_per_tok=top_k, hidden_size=weight.shape[1])
    router = Qwen3VLMoeTextTopKRouter(config)
    with torch.no_grad():
        router.weight.copy_(weight)
    return router


def test_a_token_chooses_among_its_views_experts_by_hand() -> None:
    """One token as every view: logits (1, 4, 2, 3), of which the first view owns 1 and 4, the second 2 and 3."""
    token_views = TokenViews()
    router = DedicatedRouter(make_router(4, 2, torch.tensor([[1.0], [4.0], [2.0], [3.0]])), token_views, 2)
    token_views.current = torch.tensor([0, 1, -1])
    logits, weights, experts = router(torch.ones(3, 1))
    infinity = math.inf
    assert logits.tolist() == [[1, 4, -infinity, -infinity], [-infinity, -infinity, 2, 3], [1, 4, 2, 3]]
    assert experts.tolist() == [[1, 0], [3, 2], [1, 3]]

    def shares(larger: float, smaller: float) -> list[float]:
        first, second = math.exp(larger), math.exp(smaller)
        return [first / (first + second), second / (first + second)]

    torch.testing.assert_close(weights, torch.tensor([shares(4, 1), shares(3, 2), shares(4, 3)]))


def test_experts_of_other_views_get_no_gradient_from_a_token() -> None:
    """Six experts in three views; each token chooses one of its view's two."""
    token_views = TokenViews()
    router = DedicatedRouter(make_router(6, 2, torch.randn(6, 5)), token_views, 3)
    inputs = torch.randn(3, 5)
    for view in range(3):
        token_views.current = torch.full((3,), view)
        _, weights, experts = router(inputs)
        assert set(experts.flatten().tolist()) == {2 * view, 2 * view + 1}
        weights[:, 0].sum().backward()
        assert router.weight.grad is not None
        has_gradient = router.weight.grad.abs().sum(1) > 0
        assert has_gradient.tolist() == [expert // 2 == view for expert in range(6)]
        router.weight.grad = None


def test_all_experts_are_open_to_the_prompt() -> None:
    """Where nothing is masked the router is the model's own."""
    plain = make_router(6, 2, torch.randn(6, 5))
    token_views = TokenViews()
    token_views.current = torch.full((20,), -1)
    inputs = torch.randn(20, 5)
    for found, expected in zip(DedicatedRouter(plain, token_views, 2)(inputs), plain(inputs), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("views", [None, torch.zeros(4, dtype=torch.long)])
def test_tokens_without_a_view_are_refused(views: Tensor | None) -> None:
    token_views = TokenViews()
    token_views.current = views
    router = DedicatedRouter(make_router(4, 2, torch.randn(4, 5)), token_views, 2)
    with pytest.raises(ValueError, match="need the view of every token"):
        router(torch.randn(3, 5))


def test_every_layer_is_dedicated_and_keeps_its_weights(build_dense: Build) -> None:
    body = upcycle(build_dense(), num_experts=6, top_k=2).model
    before = {name: weight.clone() for name, weight in body.state_dict().items()}
    dedicate_experts(body, 2)
    routers = [module for module in body.modules() if isinstance(module, Qwen3VLMoeTextTopKRouter)]
    assert len(routers) == 2 and all(type(router) is DedicatedRouter for router in routers)
    after = body.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_copy_looks_at_views_of_its_own(build_dense: Build) -> None:
    discriminator = Discriminator(upcycle(build_dense()).model, mode="dedicated")
    copied = copy.deepcopy(discriminator)
    copied.read_as(torch.zeros(3, dtype=torch.long))
    ids = torch.tensor([[20, 21, 22]])
    copied.model(input_ids=ids)
    with pytest.raises(ValueError, match="need the view of every token"):
        discriminator.model(input_ids=ids)


def test_bodies_that_cannot_be_divided_are_refused(build_dense: Build) -> None:
    with pytest.raises(ModelError, match="the discriminator's body is dense"):
        dedicate_experts(build_dense().model, 2)
    for num_experts, top_k, num_views in ((3, 1, 2), (4, 3, 2), (2, 2, 2), (4, 2, 3)):
        message = f"{num_experts} experts cannot be divided among {num_views} views .* at least {top_k}"
        with pytest.raises(ModelError, match=message):
            dedicate_experts(upcycle(build_dense(), num_experts=num_experts, top_k=top_k).model, num_views)
