"""Rollout engines, and the client of OpenAI-compatible servers, which needs no torch: import its modules one by one."""
