"""What warm-up and alignment share: the loss over views, the experts' balance, what is measured of a game."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prism.models import Discriminator, View
from prism.objectives import (
    DiscriminatorLoss,
    discriminator_accuracy,
    discriminator_loss,
    expert_load,
    load_balancing_loss,
)
from prism.packing import PackedTrees, branch_scores, token_views
from prism.stages.imitation import num_tokens
from prism.stages.scoring import ContestBatch, ContestScores, backpropagate


def game_loss(pairs: ContestScores, *, regularization: float = 0.0) -> DiscriminatorLoss:
    """The discriminator's loss on the valid pairs, over the views that it scores."""
    views = {view: (scores.teacher, scores.student) for view, scores in pairs.views.items()}
    return discriminator_loss(views, pairs.is_valid, regularization=regularization)


def train_discriminator(
    discriminator: Discriminator,
    batch: ContestBatch,
    scores: Float[Tensor, "branches"],
    *,
    regularization: float,
    balance_coefficient: float,
) -> float | None:
    """Adds the gradient of `game_loss` and, for a mixture of experts, of its load balance, which is returned."""
    top_k = num_active_experts(discriminator)
    total_tokens = num_tokens(batch.packs)
    balance = 0.0

    def balance_loss(packed: PackedTrees, router_logits: tuple[Tensor, ...]) -> Tensor:
        nonlocal balance
        loss = load_balancing_loss(router_logits, top_k=top_k or 1) * len(packed) / total_tokens
        balance += float(loss.detach())
        return balance_coefficient * loss

    is_balanced = top_k is not None and balance_coefficient > 0
    backpropagate(
        discriminator,
        batch,
        scores,
        lambda pairs: game_loss(pairs, regularization=regularization).loss,
        balance_loss if is_balanced else None,
    )
    return balance if is_balanced else None


def num_active_experts(discriminator: Discriminator) -> int | None:
    """Experts each token is routed to; None for a dense discriminator."""
    return getattr(discriminator.model.config.get_text_config(), "num_experts_per_tok", None)


def game_metrics(pairs: ContestScores) -> dict[str, float | None]:
    """How far apart teacher and rollouts are for the discriminator, per view, over the valid pairs."""
    metrics: dict[str, float | None] = {"accuracy/count": int(pairs.is_valid.sum())}
    for view, scores in pairs.views.items():
        metrics[f"accuracy/{view}"] = discriminator_accuracy(scores.teacher, scores.student, pairs.is_valid)[0]
        gaps = (scores.teacher - scores.student)[pairs.is_valid]
        metrics[f"gap/{view}"] = float(gaps.mean()) if gaps.numel() else None
    return metrics


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Where the tokens of each view went: `load` holds each expert's share of their slots, summing to 1."""

    view_names: tuple[View, ...]
    load: Float[Tensor, "layer view expert"]

    @property
    def entropy(self) -> Float[Tensor, "layer view"]:
        """Entropy of the load over the experts' largest possible one: 1 is an even load, 0 a single expert."""
        return _entropy(self.load) / math.log2(max(2, self.load.shape[-1]))

    @property
    def divergence(self) -> Float[Tensor, "layer"]:
        """Jensen-Shannon divergence of the views' loads in bits: 0 routes them alike, log2(views) wholly apart."""
        return _entropy(self.load.mean(1)) - _entropy(self.load).mean(1)

    def metrics(self) -> dict[str, float | None]:
        """Means over layers."""
        entropy = self.entropy.mean(0).tolist()
        named: dict[str, float | None] = {
            f"router/entropy_{view}": value for view, value in zip(self.view_names, entropy, strict=True)
        }
        if len(self.view_names) > 1:
            named["router/divergence"] = float(self.divergence.mean())
        return named

    def row(self) -> dict[str, object]:
        """JSON-able, every layer by itself."""
        return {
            "load": {view: self.load[:, place].tolist() for place, view in enumerate(self.view_names)},
            "entropy": {view: self.entropy[:, place].tolist() for place, view in enumerate(self.view_names)},
            "divergence": self.divergence.tolist(),
        }


def _entropy(shares: Tensor) -> Tensor:
    """In bits, over the last dimension."""
    return -torch.xlogy(shares, shares).sum(-1) / torch.log(torch.tensor(2.0))


@torch.no_grad()
def measure_routing(discriminator: Discriminator, packs: Sequence[PackedTrees], batch: ContestBatch) -> Routing | None:
    """The routing of the tokens of `packs` (some of the batch's), prompts left out; None without experts."""
    top_k = num_active_experts(discriminator)
    if top_k is None:
        return None
    loads, counts = [], []
    for packed in packs:
        _, router_logits = branch_scores(discriminator, packed, views=batch.views, with_router=True)
        views = token_views(packed, batch.views[packed.rows])
        masks = [views == place for place in range(len(batch.view_names))]
        loads.append(
            torch.stack(
                [
                    torch.stack([expert_load([logits], top_k=top_k, mask=mask) for mask in masks])
                    for logits in router_logits or ()
                ]
            )
        )
        counts.append(torch.stack([mask.sum() for mask in masks]))
    weights = torch.stack(counts).float()
    weights = weights / weights.sum(0).clamp(min=1)
    load = (torch.stack(loads).float() * weights[:, None, :, None]).sum(0) / top_k
    return Routing(batch.view_names, load)
