"""What requests may cost together, in money and tokens, and what they have cost."""

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prism.errors import BudgetError, ConfigError
from prism.rollout.openai_failures import Failure
from prism.rollout.openai_messages import ChatReply, ChatRequest

_TOKENS_PER_IMAGE = 2048
_TOKENS_PER_MESSAGE = 32
"""What a chat template puts around it."""
_BYTES_PER_TOKEN = 2
"""Fewer than in any usual text, so that a prompt is rather taken for longer than it is."""


@dataclass(frozen=True, slots=True)
class Price:
    """In US dollars, or any one currency, per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, num_prompt_tokens: int, num_completion_tokens: int) -> float:
        return (num_prompt_tokens * self.prompt + num_completion_tokens * self.completion) / 1e6


class Spent(NamedTuple):
    """Money and tokens."""

    cost: float
    tokens: float


class Fund(Protocol):
    """What the processes at work on one step may spend together. Spending is by the number of the shard."""

    def claim(self, spent: Mapping[int, Spent]) -> tuple[float | None, float | None]:
        """What a process may spend on its shards, what they have `spent` before included; None is no limit."""
        ...

    def settle(self, spent: Mapping[int, Spent]) -> None:
        """Gives back what a process has claimed and not spent."""
        ...


class Account:
    """Money and tokens of one step in one process. None is no limit.

    Before a request is sent, the most that it can cost is set aside: its prompt, estimated generously, and
    `max_tokens` of completion. So the sum of what is spent and set aside never passes the limits, unless a server
    counts more prompt tokens than the estimate; the largest prompt seen raises the estimate of those that follow.
    """

    def __init__(self, price: Price, *, max_cost: float | None = None, max_tokens: int | None = None) -> None:
        if max_cost is not None and not price.prompt + price.completion:
            raise ConfigError("max_cost needs the price of a million tokens: set price.prompt and price.completion")
        self._price = price
        self.restrict(max_cost, max_tokens)
        self.cost, self.tokens = 0.0, 0
        self._set_aside = (0.0, 0)
        self._largest_prompt = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def restrict(self, max_cost: float | None, max_tokens: float | None) -> None:
        """Sets the limits."""
        self._limits = (math.inf if max_cost is None else max_cost, math.inf if max_tokens is None else max_tokens)

    def charge(self, cost: float, tokens: float) -> None:
        """Books what was spent before."""
        self.cost += cost
        self.tokens += tokens

    async def reserve(self, request: ChatRequest) -> tuple[float, int]:
        """Sets aside what the request can cost; waits where that depends on what others turn out to cost.

        Raises BudgetError where it is too much whatever they cost.
        """
        while True:
            num_prompt = max(_estimate_prompt(request), self._largest_prompt)
            most = self._price.cost(num_prompt, request.max_tokens), num_prompt + request.max_tokens
            if not self._fits(most, (0.0, 0)):
                raise BudgetError(self._describe())
            if self._fits(most, self._set_aside):
                self._set_aside = self._set_aside[0] + most[0], self._set_aside[1] + most[1]
                return most
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def settle(self, reserved: tuple[float, int], result: ChatReply | Failure) -> tuple[float, int, bool]:
        """Cost and tokens of a request that was set aside for, and whether they are only the most they can be."""
        cost, tokens, is_estimate = self._spent(reserved, result)
        self.charge(cost, tokens)
        self.release(reserved)
        return cost, tokens, is_estimate

    def release(self, reserved: tuple[float, int]) -> None:
        """What was set aside for a request is free again."""
        self._set_aside = max(0.0, self._set_aside[0] - reserved[0]), self._set_aside[1] - reserved[1]
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def _spent(self, reserved: tuple[float, int], result: ChatReply | Failure) -> tuple[float, int, bool]:
        if isinstance(result, Failure):
            return (*reserved, True) if result.may_have_cost else (0.0, 0, False)
        num_prompt, num_completion = result.num_prompt_tokens, result.num_completion_tokens
        if num_prompt is None or num_completion is None:
            return (*reserved, True)
        self._largest_prompt = max(self._largest_prompt, num_prompt)
        return self._price.cost(num_prompt, num_completion), num_prompt + num_completion, False

    def _fits(self, most: tuple[float, int], beside: tuple[float, int]) -> bool:
        spent = (self.cost, self.tokens)
        return all(sum(parts) <= limit for *parts, limit in zip(spent, beside, most, self._limits, strict=True))

    def _describe(self) -> str:
        max_cost, max_tokens = self._limits
        of_cost = f" of {max_cost:.2f}" if math.isfinite(max_cost) else ""
        of_tokens = f" of {max_tokens:,.0f}" if math.isfinite(max_tokens) else ""
        return (
            f"the budget is spent: {self.cost:.2f}{of_cost} in money, {self.tokens:,}{of_tokens} tokens, and one more "
            "request may pass it; raise max_cost or max_tokens and give the same command again"
        )


def _estimate_prompt(request: ChatRequest) -> int:
    num_bytes = num_images = 0
    num_tokens = _TOKENS_PER_MESSAGE * len(request.messages)
    for message in request.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        num_images += sum(part["type"] != "text" for part in parts)
        num_bytes += sum(len(part["text"].encode(errors="replace")) for part in parts if part["type"] == "text")
    return num_tokens + num_bytes // _BYTES_PER_TOKEN + num_images * _TOKENS_PER_IMAGE
