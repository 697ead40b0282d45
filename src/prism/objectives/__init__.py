"""The method's formulas on tensors and plain numbers. `docs/method.md` maps equations to functions."""

from prism.objectives.advantages import (
    added_advantages,
    branch_advantages,
    fill_invalid_scores,
    gated_advantages,
    group_normalize,
    grpo_advantages,
    has_signal,
    mixed_advantages,
    overlong_penalty,
    sign_aware_advantages,
)
from prism.objectives.adversarial import (
    DiscriminatorLoss,
    bradley_terry_loss,
    discriminator_accuracy,
    discriminator_loss,
    score_regularization,
)
from prism.objectives.aggregation import AGGREGATIONS, Aggregation, aggregate
from prism.objectives.balance import expert_load, load_balancing_loss
from prism.objectives.importance import ImportanceLevel, importance_weights
from prism.objectives.length import length_corrected
from prism.objectives.likelihood import KlKind, completion_nll, entropy_from_logits, kl_estimate
from prism.objectives.policy import PolicyLoss, RatioLevel, policy_loss

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "DiscriminatorLoss",
    "ImportanceLevel",
    "KlKind",
    "PolicyLoss",
    "RatioLevel",
    "added_advantages",
    "aggregate",
    "bradley_terry_loss",
    "branch_advantages",
    "completion_nll",
    "discriminator_accuracy",
    "discriminator_loss",
    "entropy_from_logits",
    "expert_load",
    "fill_invalid_scores",
    "gated_advantages",
    "group_normalize",
    "grpo_advantages",
    "has_signal",
    "importance_weights",
    "kl_estimate",
    "length_corrected",
    "load_balancing_loss",
    "mixed_advantages",
    "overlong_penalty",
    "policy_loss",
    "score_regularization",
    "sign_aware_advantages",
]
