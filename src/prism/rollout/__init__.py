"""Rollout engines."""

from prism.rollout.engine import PolicyEngine, RolloutEngine, Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.rollout.vllm_engine import VllmEngine

__all__ = ["PolicyEngine", "RolloutEngine", "Sampling", "TransformersEngine", "VllmEngine"]
