"""Rollout engines."""

from prism.rollout.engine import RolloutEngine, Sampling
from prism.rollout.transformers_engine import TransformersEngine

__all__ = ["RolloutEngine", "Sampling", "TransformersEngine"]
