"""Rewards that need no model: response format, answer verification and their weighted sum."""

from prism.rewards.answer import verifier_counts, verify_answer
from prism.rewards.format import FormatFailure, TokenSpans, parse_response, token_span, token_spans
from prism.rewards.measures import num_description_items, num_reasoning_steps
from prism.rewards.mix import Reward, answer_of_free_text, mix_reward, verdict_of
from prism.rewards.verdict import Rule, Verdict, VerifierCounts

__all__ = [
    "FormatFailure",
    "Reward",
    "Rule",
    "TokenSpans",
    "Verdict",
    "VerifierCounts",
    "answer_of_free_text",
    "mix_reward",
    "num_description_items",
    "num_reasoning_steps",
    "parse_response",
    "token_span",
    "token_spans",
    "verdict_of",
    "verifier_counts",
    "verify_answer",
]
