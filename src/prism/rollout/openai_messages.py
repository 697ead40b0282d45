"""One chat completion as the API writes it: the body of a request, and a reply out of what came back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from prism.rollout.openai_failures import BadReply, storable, words_of
from prism.rollout.openai_server import ChatServer

_BROKEN_OFF = (None, "abort", "error")
"""What servers say of an answer that they did not bring to its end."""
_ENDINGS = {"end_turn": "stop", "eos": "stop", "max_tokens": "length"}
"""Names of other makers, in lower case."""
_FILTERED = re.compile("filter|safety|recitation|blocklist|prohibited|spii|refusal")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`label` is how errors name the request; `messages` are as the API takes them.

    `owner` and `draw` are for the books only: on whose behalf it is asked, and which of several requests that are
    otherwise equal it is.
    """

    label: str
    messages: list[dict[str, Any]]
    temperature: float
    max_tokens: int
    seed: int | None = None
    owner: str = ""
    draw: int = 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """`reasoning` is what a server with a reasoning parser took out of the text, None from any other.

    `ending` is the API's finish_reason: "stop", "length", "content_filter", or another word for an end that is none of
    these, such as "tool_calls"; Gemini's own names are translated. `token_ids` is empty unless
    the server was asked for them (vLLM: `extra_body = {"return_token_ids": true}`). A count that the
    server does not give is None.
    """

    content: str
    reasoning: str | None
    ending: str
    token_ids: tuple[int, ...] = ()
    num_prompt_tokens: int | None = None
    num_completion_tokens: int | None = None


def request_body(server: ChatServer, request: ChatRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": server.model,
        "messages": request.messages,
        "temperature": request.temperature,
        # Stated because vLLM would otherwise take the checkpoint's own, which cuts the distribution.
        "top_p": 1.0,
        server.token_limit_field: request.max_tokens,
    }
    if request.seed is not None and server.takes_seed:
        body["seed"] = request.seed
    return body | dict(server.extra_body)


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    token_ids: tuple[int, ...] | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_completion(payload: object) -> ChatReply:
    """Raises BadReply or ValidationError for what is no chat completion."""
    if isinstance(payload, Mapping) and payload.get("choices") is None and words_of(payload):
        raise BadReply(words_of(payload))  # some proxies send an error as a success
    completion = _Completion.model_validate(payload)
    choice = completion.choices[0]
    if choice.finish_reason in _BROKEN_OFF:
        raise BadReply(f"finish_reason {choice.finish_reason!r}, which is no end of an answer")
    usage = completion.usage or _Usage()
    return ChatReply(
        content=storable(choice.message.content or ""),
        # vLLM renamed the field; SGLang and others keep the older name.
        reasoning=storable(choice.message.reasoning or choice.message.reasoning_content or "") or None,
        ending=_ending(choice.finish_reason),
        token_ids=choice.token_ids or (),
        num_prompt_tokens=usage.prompt_tokens,
        num_completion_tokens=usage.completion_tokens,
    )


def _ending(finish_reason: str | None) -> str:
    word = (finish_reason or "").lower()
    return "content_filter" if _FILTERED.search(word) else _ENDINGS.get(word, word)
