"""Money and tokens set aside, spent and given back, worked out by hand."""

import asyncio
import math
from typing import Any

import pytest

from prism.curation.budget import Account, Price
from prism.errors import BudgetError, ConfigError
from prism.rollout.openai_failures import Failure
from prism.rollout.openai_messages import ChatReply, ChatRequest

PRICE = Price(prompt=1.0, completion=10.0)


def request(text: str = "", max_tokens: int = 100, images: int = 0) -> ChatRequest:
    parts = [{"type": "text", "text": text}] + [{"type": "image_url", "image_url": {"url": "data:"}}] * images
    return ChatRequest("r", [{"role": "user", "content": parts if images else text}], 1.0, max_tokens)


def reply(prompt: int | None, completion: int | None) -> ChatReply:
    return ChatReply("x", None, "stop", (), prompt, completion)


def test_what_is_set_aside_is_the_most_a_request_can_cost() -> None:
    account = Account(PRICE)
    # 10 bytes are at most 5 tokens; é has two bytes; an image counts 2048, a message's surroundings 32.
    assert asyncio.run(account.reserve(request("abcdefghij", 100))) == (pytest.approx((37 * 1 + 100 * 10) / 1e6), 137)
    assert asyncio.run(account.reserve(request("éééé", 10, images=2)))[1] == 32 + 4 + 4096 + 10
    account.settle((0.0, 0), reply(9000, 1))
    assert asyncio.run(account.reserve(request("abc", 1)))[1] == 9001  # the largest prompt yet


@pytest.mark.parametrize(
    ("result", "spent"),
    [
        (reply(7, 20), (207e-6, 27, False)),
        (reply(None, 20), (1037e-6, 137, True)),
        *(
            (
                Failure(kind, "", ""),
                (1037e-6, 137, True) if kind in ("time-out", "cut", "bad reply") else (0.0, 0, False),
            )
            for kind in (
                "rate limit",
                "server error",
                "no connection",
                "refused request",
                "time-out",
                "cut",
                "bad reply",
            )
        ),
    ],
)
def test_what_a_result_costs(result: ChatReply | Failure, spent: tuple[float, int, bool]) -> None:
    account = Account(PRICE)
    reserved = asyncio.run(account.reserve(request("abcdefghij", 100)))
    assert account.settle(reserved, result) == (pytest.approx(spent[0]), *spent[1:])
    assert (account.cost, account.tokens) == (pytest.approx(spent[0]), spent[1])


@pytest.mark.parametrize("limits", [{"max_cost": 2.5e-3}, {"max_tokens": 300}])
def test_requests_wait_for_what_others_turn_out_to_cost(limits: dict[str, Any]) -> None:
    async def run() -> list[str]:
        account = Account(PRICE, **limits)  # room for two at the most of 1.03e-3 and 132 tokens
        events: list[str] = []

        async def ask(name: str) -> None:
            reserved = await account.reserve(request("", 100))
            events.append(f"{name} sent")
            await asyncio.sleep(0.01)
            account.settle(reserved, reply(0, 1))

        await asyncio.gather(*(ask(str(n)) for n in range(4)))
        return events

    assert asyncio.run(run()) == ["0 sent", "1 sent", "2 sent", "3 sent"]


def test_the_limit_is_never_passed() -> None:
    account = Account(PRICE, max_cost=2.5e-3)
    for _ in range(2):
        account.settle(asyncio.run(account.reserve(request("", 100))), reply(0, 100))
    with pytest.raises(BudgetError, match=r"the budget is spent: 0.00 of 0.00 in money, 200 tokens.*raise max_cost"):
        asyncio.run(account.reserve(request("", 100)))
    assert asyncio.run(account.reserve(request("", 40)))[0] == pytest.approx(4.32e-4)  # a smaller one still fits


def test_a_limit_without_a_price() -> None:
    with pytest.raises(ConfigError, match="needs the price"):
        Account(Price(), max_cost=1.0)
    assert Account(Price())._limits == (math.inf, math.inf)
