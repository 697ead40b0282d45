"""Evaluation: benchmarks, verdicts, intervals."""

from prism.evals.benchmarks.benchmark import ItemScore
from prism.evals.scoring import aggregate, score_item

__all__ = ["ItemScore", "aggregate", "score_item"]
