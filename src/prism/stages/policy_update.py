"""The policy's side of alignment and RLVR: one clipped policy-gradient update on packed rollout groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.config import ImportanceConfig, KlConfig
from prism.errors import RolloutError
from prism.models import PromptEncoder
from prism.objectives import Aggregation, RatioLevel, aggregate, importance_weights, kl_estimate, policy_loss
from prism.packing import Branch, PackedTrees, PromptTree, TargetLogprobs, branch_logprobs, pack_trees, to_rows
from prism.records import RolloutGroup
from prism.runtime.distributed import add_up_numbers, gather, num_processes
from prism.stages.mismatch import Mismatch
from prism.stages.shares import share_packs


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """How rollouts become a loss; see `prism.objectives.policy_loss`. GRPO, DAPO and GSPO differ here only.

    `temperature` and `banned_token_ids` are those of sampling. `importance` corrects for an engine whose
    probabilities are not quite the policy's.
    """

    level: RatioLevel
    clip_low: float
    clip_high: float
    dual_clip: float | None
    aggregation: Aggregation
    temperature: float
    banned_token_ids: tuple[int, ...]
    kl: KlConfig | None = None
    importance: ImportanceConfig | None = None

    def logprobs(self, policy: Any, packed: PackedTrees, *, with_entropy: bool = False) -> TargetLogprobs:
        """Of the targets of `packed`, under `policy` as it samples."""
        banned = torch.tensor(self.banned_token_ids, dtype=torch.long)
        return branch_logprobs(
            policy, packed, temperature=self.temperature, banned_ids=banned, with_entropy=with_entropy
        )


@dataclass(frozen=True, slots=True)
class UpdateMetrics:
    """Means over all tokens of the update. `mismatch` is there where an engine told its log-probabilities."""

    loss: float
    clip_fraction: float
    clip_fraction_dual: float
    entropy: float
    kl: float | None
    num_tokens: int
    importance: float | None = None
    mismatch: Mismatch | None = None

    def named(self) -> dict[str, float | None]:
        weight: dict[str, float | None] = {} if self.importance is None else {"policy/importance": self.importance}
        return weight | {
            "loss/policy": self.loss,
            "policy/clip_fraction": self.clip_fraction,
            "policy/clip_fraction_dual": self.clip_fraction_dual,
            "policy/kl": self.kl,
            "rollout/entropy": self.entropy,
        }


def pack_groups(encoder: PromptEncoder, groups: Sequence[RolloutGroup], token_budget: int) -> list[PackedTrees]:
    """One tree per group, one branch per rollout with exactly the tokens that were sampled."""
    trees = [
        PromptTree(encoder.encode(group.prompt), tuple(Branch.of(rollout.token_ids) for rollout in group.rollouts))
        for group in groups
    ]
    return pack_trees(trees, token_budget=token_budget, num_shares=num_processes())


@torch.no_grad()
def rollout_logprobs(policy: Any, packs: Sequence[PackedTrees], objective: PolicyObjective) -> list[Tensor]:
    """Per pack of this process's share the log-probabilities of its targets under the policy as it is now."""
    return [objective.logprobs(policy, part.item).logprobs for part in share_packs(packs)]


def accumulate_policy_gradient(
    policy: Any,
    packs: Sequence[PackedTrees],
    advantages: Float[Tensor, "rollout"],
    objective: PolicyObjective,
    *,
    old_logprobs: Sequence[Tensor] | None = None,
    sampler_logprobs: Sequence[Tensor] | None = None,
    reference: Any | None = None,
) -> UpdateMetrics:
    """Adds the gradient of the objective over all `packs`, divided by counts over all of them.

    `old_logprobs` (as from `rollout_logprobs`) are those of the policy that sampled; None says that it is this very
    policy, whose log-probabilities then serve as the old ones and save a pass. `sampler_logprobs` (per
    pack) are the same as another implementation of that policy, which did the sampling, had them.
    `reference` is the policy that the KL term, if any, refers to.
    """
    num_tokens = sum(packed.target_ids.numel() for packed in packs)
    num_rollouts = sum(packed.rows.numel() for packed in packs)
    denominator = num_tokens if objective.aggregation == "token-mean" else num_rollouts
    sums: dict[str, float] = {}
    differences: list[float] = []
    for place, part in enumerate(share_packs(packs)):
        packed = part.item
        result = objective.logprobs(policy, packed, with_entropy=True)
        old = result.logprobs.detach() if old_logprobs is None else old_logprobs[place]
        sampler = None if sampler_logprobs is None else sampler_logprobs[part.index].to(old)
        if sampler is not None and part.counts:
            differences += (old - sampler).abs().tolist()
        loss, found = _pack_loss(result, old, sampler, packed, advantages, objective, denominator, reference)
        (part.weight * loss).backward()
        sums = {name: sums.get(name, 0.0) + part.weight * float(value) for name, value in found.items()}
    sums = add_up_numbers(sums)
    differences = [] if sampler_logprobs is None else gather(differences)
    means = {name: value / num_tokens for name, value in sums.items()}
    return UpdateMetrics(
        loss=sums["loss"],
        clip_fraction=means["clip"],
        clip_fraction_dual=means["dual"],
        entropy=means["entropy"],
        kl=means.get("kl"),
        num_tokens=sum(len(packed) for packed in packs),
        importance=means.get("importance"),
        mismatch=Mismatch(torch.tensor(differences)) if differences else None,
    )


def _pack_loss(
    result: TargetLogprobs,
    old: Float[Tensor, "targets"],
    sampler: Float[Tensor, "targets"] | None,
    packed: PackedTrees,
    advantages: Float[Tensor, "rollout"],
    objective: PolicyObjective,
    denominator: int,
    reference: Any | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What `packed` adds to the loss, and to the sums that are measured."""
    logprobs, mask = to_rows(result.logprobs, packed, num_columns=int(packed.target_columns.max()) + 1)
    old_rows, _ = to_rows(old, packed, num_columns=mask.shape[1])
    weights = _importance(old_rows, sampler, packed, objective)
    update = policy_loss(
        logprobs,
        old_rows,
        advantages[packed.rows],
        mask,
        level=objective.level,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
        dual_clip=objective.dual_clip,
        aggregation=objective.aggregation,
        denominator=denominator,
        weights=weights,
    )
    assert result.entropies is not None
    loss, found = update.loss, {"entropy": result.entropies.sum()}
    found["clip"] = update.clip_fraction * update.num_tokens
    found["dual"] = update.clip_fraction_dual * update.num_tokens
    if weights is not None:
        found["importance"] = weights[mask].sum()
    if objective.kl is not None:
        distance = _distance(logprobs, mask, packed, objective, reference)
        loss = loss + objective.kl.coefficient * aggregate(distance, mask, objective.aggregation, denominator)
        found["kl"] = (distance * mask).sum().detach()
    return loss, found | {"loss": loss.detach()}


def _importance(
    old_logprobs: Float[Tensor, "rollout token"],
    sampler: Tensor | None,
    packed: PackedTrees,
    objective: PolicyObjective,
) -> Float[Tensor, "rollout token"] | None:
    if objective.importance is None:
        return None
    if sampler is None:
        raise RolloutError("rollout.importance: the engine did not report log-probabilities; leave it out")
    sampler_rows, mask = to_rows(sampler, packed, num_columns=old_logprobs.shape[1])
    return importance_weights(
        old_logprobs, sampler_rows, mask, level=objective.importance.level, cap=objective.importance.cap
    )


def _distance(
    logprobs: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    packed: PackedTrees,
    objective: PolicyObjective,
    reference: Any,
) -> Float[Tensor, "rollout token"]:
    assert objective.kl is not None
    with torch.no_grad():
        values = objective.logprobs(reference, packed).logprobs
    reference_logprobs, _ = to_rows(values, packed, num_columns=mask.shape[1])
    return kl_estimate(logprobs, reference_logprobs, kind=objective.kl.kind)
