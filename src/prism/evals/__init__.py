"""Evaluation: answers, verdicts, intervals."""
