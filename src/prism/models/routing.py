"""Experts of their own for each view: a router that lets a token choose among its view's experts only."""

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextTopKRouter

from prism.errors import ModelError

PROMPT_VIEW = -1
"""Tokens of the prompt, which all views share, may go to any expert."""


class TokenViews:
    """The view of every token of the sequence that is being read; the routers of all layers look here.

    It stays until the next sequence, because activation checkpointing routes again in the backward pass.
    """

    def __init__(self) -> None:
        self.current: Int[Tensor, "length"] | None = None


class DedicatedRouter(Qwen3VLMoeTextTopKRouter):
    """The model's own router, with the experts of other views masked out before the softmax.

    Experts are divided evenly, in order: with four experts and two views, 0 and 1 belong to the first.
    """

    def __init__(self, router: Qwen3VLMoeTextTopKRouter, token_views: TokenViews, num_views: int) -> None:
        nn.Module.__init__(self)
        self.top_k, self.num_experts, self.hidden_dim = router.top_k, router.num_experts, router.hidden_dim
        self.weight = router.weight
        self._token_views = token_views
        self._owner: Tensor
        owner = torch.arange(self.num_experts, device=router.weight.device) * num_views // self.num_experts
        self.register_buffer("_owner", owner, persistent=False)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden_states = hidden_states.reshape(-1, self.hidden_dim)
        views = self._token_views.current
        if views is None or views.numel() != hidden_states.shape[0]:
            raise ValueError("dedicated experts need the view of every token: score with `views`")
        logits = functional.linear(hidden_states, self.weight)
        is_foreign = (views[:, None] != PROMPT_VIEW) & (views[:, None] != self._owner[None])
        logits = logits.masked_fill(is_foreign, -torch.inf)
        weights, experts = logits.softmax(-1, dtype=torch.float).topk(self.top_k, dim=-1)
        weights = (weights / weights.sum(-1, keepdim=True)).to(logits.dtype)
        return logits, weights, experts


def dedicate_experts(body: nn.Module, num_views: int) -> TokenViews:
    """Puts a `DedicatedRouter` in every layer of `body`; the result tells them the tokens' views.

    The weights keep their names, so that checkpoints do not change. Raises ModelError where the experts
    cannot be divided, or a view would have fewer than a token is sent to.
    """
    token_views = TokenViews()
    routers = [(name, module) for name, module in body.named_modules() if isinstance(module, Qwen3VLMoeTextTopKRouter)]
    if not routers:
        raise ModelError("dedicated experts need a mixture of experts: the discriminator's body is dense")
    for name, router in routers:
        if router.num_experts % num_views or router.num_experts // num_views < router.top_k:
            raise ModelError(
                f"{router.num_experts} experts cannot be divided among {num_views} views of which each needs at "
                f"least {router.top_k}"
            )
        parent, _, leaf = name.rpartition(".")
        setattr(body.get_submodule(parent), leaf, DedicatedRouter(router, token_views, num_views))
    return token_views
