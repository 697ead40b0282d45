"""What warm-up and alignment share: the loss over views, the experts' balance, what is measured of a game."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from prism.models import Discriminator, View
from prism.objectives import (
    DiscriminatorLoss,
    discriminator_accuracy,
    discriminator_loss,
    expert_load,
    load_balancing_loss,
)
from prism.packing import PackedTrees, branch_scores, token_views
from prism.runtime.distributed import add_up
from prism.runtime.metrics import check_finite
from prism.runtime.optimizer import descend
from prism.runtime.stage import StageRun
from prism.stages.control import relative_change, scaled_rates, weight_sample
from prism.stages.imitation import num_tokens
from prism.stages.rollouts import is_sampled, mean
from prism.stages.scoring import ContestBatch, ContestScores, score, score_and_backpropagate
from prism.stages.shares import share_packs

ROUTER = "router.jsonl"
"""The experts' load per layer and view, as often as samples are kept."""


def game_loss(pairs: ContestScores, *, regularization: float = 0.0, label_smoothing: float = 0.0) -> DiscriminatorLoss:
    """The discriminator's loss on the valid pairs, over the views that it scores."""
    views = {view: (scores.teacher, scores.student) for view, scores in pairs.views.items()}
    return discriminator_loss(views, pairs.is_valid, regularization=regularization, label_smoothing=label_smoothing)


def update_discriminator(
    discriminator: Discriminator,
    optimizer: Optimizer,
    batch: ContestBatch,
    *,
    step: int,
    max_grad_norm: float,
    balance_coefficient: float,
    regularization: float = 0.0,
    label_smoothing: float = 0.0,
    num_updates: int = 1,
    rate: float = 1.0,
) -> tuple[Float[Tensor, "branches"], dict[str, float | None]]:
    """The scores of `batch`, and then `num_updates` optimizer steps on the whole of it, at `rate` times the learning
    rate. NumericsError where a score is NaN: here it still says where it comes from.

    Returned are the scores before the first update and what is to be recorded: the balance before the first update,
    the mean of the gradients' norms, and how far all updates together moved the weights; each is None where nothing
    was updated or there is no balance.
    """
    if not num_updates:
        scores = score(discriminator, batch)
        check_finite("discriminator scores", scores, step)
        return scores, dict.fromkeys(("loss/balance", "discriminator/grad_norm", "discriminator/weight_change"))
    before, norms, balances, found = weight_sample(discriminator), [], [], []
    for _ in range(num_updates):
        scores, balance = train_discriminator(
            discriminator,
            batch,
            regularization=regularization,
            balance_coefficient=balance_coefficient,
            label_smoothing=label_smoothing,
        )
        check_finite("discriminator scores", scores, step)
        found.append(scores)
        balances.append(balance)
        with scaled_rates(optimizer, rate):
            norms.append(descend(discriminator, optimizer, max_grad_norm, name="discriminator", step=step))
    return found[0], {
        "loss/balance": balances[0],
        "discriminator/grad_norm": mean(norms),
        "discriminator/weight_change": relative_change(before, discriminator),
    }


def train_discriminator(
    discriminator: Discriminator,
    batch: ContestBatch,
    *,
    regularization: float,
    balance_coefficient: float,
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, "branches"], float | None]:
    """Adds the gradient of `game_loss` and, for a mixture of experts, of its load balance.

    Returns the scores it was taken at and the balance, None where it does not count.
    """
    top_k = num_active_experts(discriminator)
    total_tokens = num_tokens(batch.packs)

    def balance_loss(packed: PackedTrees, router_logits: tuple[Tensor, ...]) -> Tensor:
        loss = load_balancing_loss(router_logits, top_k=top_k or 1) * len(packed) / total_tokens
        return balance_coefficient * loss

    is_balanced = top_k is not None and balance_coefficient > 0
    found = score_and_backpropagate(
        discriminator,
        batch,
        lambda pairs: game_loss(pairs, regularization=regularization, label_smoothing=label_smoothing).loss,
        balance_loss if is_balanced else None,
    )
    return found.scores, found.pack_loss / balance_coefficient if is_balanced else None


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
    text, num_views = discriminator.model.config.get_text_config(), len(batch.view_names)
    slots = torch.zeros(text.num_hidden_layers, num_views, text.num_experts, dtype=torch.float64)
    counts = torch.zeros(num_views, dtype=torch.float64)
    for part in share_packs(packs):
        _, router_logits = branch_scores(discriminator, part.item, views=batch.views, with_router=True)
        views = token_views(part.item, batch.views[part.item.rows])
        for place in range(num_views):
            mask = views == place
            for layer, logits in enumerate(router_logits or ()):
                slots[layer, place] += part.weight * expert_load([logits], top_k=top_k, mask=mask) * mask.sum()
            counts[place] += part.weight * mask.sum()
    load = add_up(slots) / (add_up(counts).clamp(min=1)[:, None] * top_k)
    return Routing(batch.view_names, load.float())


def record_routing(
    run: StageRun, step: int, discriminator: Discriminator, batch: ContestBatch
) -> dict[str, float | None]:
    """The metrics of the batch's routing, every layer going to the router log, in the steps whose samples are
    kept; none of a discriminator without experts."""
    routing = measure_routing(discriminator, batch.packs, batch) if is_sampled(run, step) else None
    if routing is None:
        return {}
    run.log(ROUTER).append({"step": step, **routing.row()})
    return routing.metrics()
