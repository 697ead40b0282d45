"""Rollout engines."""

from prism.rollout.engine import LocalEngine, PolicyEngine, RolloutEngine, Sampling
from prism.rollout.served_engine import ServedEngine
from prism.rollout.transformers_engine import TransformersEngine
from prism.rollout.vllm_engine import VllmEngine

__all__ = [
    "LocalEngine",
    "PolicyEngine",
    "RolloutEngine",
    "Sampling",
    "ServedEngine",
    "TransformersEngine",
    "VllmEngine",
]
