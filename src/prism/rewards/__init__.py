"""Rewards that need no model: response format, answer verification and their weighted sum."""

from prism.rewards.answer import Verdict, VerifierCounts, verifier_counts, verify_answer
from prism.rewards.format import FormatFailure, parse_response
from prism.rewards.measures import num_description_items, num_reasoning_steps
from prism.rewards.mix import Reward, answer_of_free_text, mix_reward, verdict_of

__all__ = [
    "FormatFailure",
    "Reward",
    "Verdict",
    "VerifierCounts",
    "answer_of_free_text",
    "mix_reward",
    "num_description_items",
    "num_reasoning_steps",
    "parse_response",
    "verdict_of",
    "verifier_counts",
    "verify_answer",
]
