"""What a failed attempt at a request means: whether to ask again, when, and what to tell the user."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import aiohttp
import openai
from pydantic import ValidationError

_LONGEST_QUOTE = 300
_OVERLOADED = (502, 503, 504, 529)
_GAVE_UP_WAITING = (408, 504, 524)
"""What a proxy says of a model that may still be writing."""
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
"""Failures before the request went out."""


class BadReply(Exception):
    """A reply of status 200 that is not what was asked for. Never leaves the client."""


PASSING = (
    openai.APIStatusError,
    openai.APIConnectionError,
    TimeoutError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    ValidationError,
    BadReply,
)
"""What an attempt may end with."""


FailureKind = Literal["rate limit", "server error", "time-out", "no connection", "cut", "bad reply", "refused request"]

LOST_KINDS: tuple[FailureKind, ...] = ("time-out", "cut")
"""A reply that is no completion is not among them: it is a proxy's, or a wrong address's, more often than a model's."""


@dataclass(frozen=True, slots=True)
class Failure:
    """`kind` is a fixed phrase that can be counted; `wait_s` is the pause the server asked for; `is_final` says that
    asking again is of no use. `status` is None where there was no reply."""

    kind: FailureKind
    reason: str
    advice: str
    is_final: bool = False
    wait_s: float | None = None
    status: int | None = None

    @property
    def is_rate_limit(self) -> bool:
        return self.kind == "rate limit"

    @property
    def is_overload(self) -> bool:
        """Whether fewer requests at a time may help."""
        return self.kind == "rate limit" or self.status in _OVERLOADED

    @property
    def is_unreachable(self) -> bool:
        return self.kind == "no connection"

    @property
    def is_lost(self) -> bool:
        """Whether the model may have written an answer that did not arrive."""
        return self.kind in LOST_KINDS

    @property
    def may_have_cost(self) -> bool:
        return self.is_lost or self.kind == "bad reply"


def diagnose(error: Exception, timeout_s: float) -> Failure:
    """`error` is one of `PASSING`."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    # `openai` and the transport under it take a connection that was cut for one that timed out: look behind them.
    cause = next((each for each in _causes(error) if isinstance(each, aiohttp.ClientError)), error)
    if isinstance(cause, _NEVER_SENT):
        advice = "check that the server runs at this address"
        return Failure("no connection", f"no connection ({_quoted(str(cause))})", advice)
    if isinstance(cause, TimeoutError):
        return Failure("time-out", f"no reply within {timeout_s:g} s", "raise timeout_s or ask for fewer tokens")
    if isinstance(error, openai.APIConnectionError):
        words = str(cause) or type(cause).__name__
        return Failure("cut", f"the connection was cut ({_quoted(words)})", "look into the server's log")
    reason = f"not a chat completion: {_quoted(_complaint(error))}"
    return Failure("bad reply", reason, "check base_url and the server's log")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def words_of(body: object) -> str:
    """The message in an error body: OpenAI's and vLLM's object, Gemini's list of one, FastAPI's `detail`."""
    if isinstance(body, list):
        return words_of(body[0]) if body else ""
    if isinstance(body, Mapping):
        return next((words for key in ("error", "message", "detail") if (words := words_of(body.get(key)))), "")
    # The HTML page of a proxy says less than the status.
    return _quoted(body) if isinstance(body, str) and not body.lstrip().startswith("<") else ""


def _of_status(error: openai.APIStatusError) -> Failure:
    status = error.status_code
    if status in (401, 403):
        # What such a reply says may repeat part of the key.
        reason, advice = f"the key was refused (status {status})", "check the variable that api_key_env names"
        return Failure("refused request", reason, advice, is_final=True, status=status)
    words = words_of(error.body)
    reason = f"status {status}" + (f": {words}" if words else "")
    wait_s = _wait_s(error.response.headers)
    if status == 429 and error.code != "insufficient_quota":
        return Failure("rate limit", reason, "lower concurrency or wait", wait_s=wait_s, status=status)
    if status in _GAVE_UP_WAITING:
        return Failure("time-out", reason, "raise the proxy's time limit", wait_s=wait_s, status=status)
    if status in (409, 425) or status >= 500:
        return Failure("server error", reason, "look into the server's log", wait_s=wait_s, status=status)
    advice = "check the model's name and base_url" if status == 404 else "mend what it complains of"
    return Failure("refused request", reason, advice, is_final=True, status=status)


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from now by Retry-After, which holds seconds or a date, or by OpenAI's retry-after-ms."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _complaint(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))} {first['msg']}"
    return str(error)


def storable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can hold and neither UTF-8 nor a tokenizer."""
    return text.encode("utf-8", "replace").decode()


def _quoted(text: str) -> str:
    line = storable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
