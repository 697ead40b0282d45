"""What a failed attempt at a request means: whether to ask again, when, and what to tell the user."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import openai
from pydantic import ValidationError

_LONGEST_QUOTE = 300


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


@dataclass(frozen=True, slots=True)
class Failure:
    """`wait_s` is the pause the server asked for; `is_final` says that asking again is of no use."""

    reason: str
    advice: str
    is_final: bool = False
    is_rate_limit: bool = False
    wait_s: float | None = None


def diagnose(error: Exception, timeout_s: float) -> Failure:
    """`error` is one of `PASSING`."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Failure(f"no reply within {timeout_s:g} s", "raise timeout_s or ask for fewer tokens")
    if isinstance(error, openai.APIConnectionError):
        cause = str(error.__cause__ or "") or type(error.__cause__ or error).__name__
        return Failure(f"no connection ({_quoted(cause)})", "check that the server runs at this address")
    return Failure(f"not a chat completion: {_quoted(_complaint(error))}", "check base_url and the server's log")


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
        return Failure(f"the key was refused (status {status})", "check the variable that api_key_env names", True)
    words = words_of(error.body)
    reason = f"status {status}" + (f": {words}" if words else "")
    if status == 429 and error.code != "insufficient_quota":
        return Failure(reason, "lower concurrency or wait", is_rate_limit=True, wait_s=_wait_s(error.response.headers))
    if status in (408, 409, 425) or status >= 500:
        return Failure(reason, "look into the server's log", wait_s=_wait_s(error.response.headers))
    advice = "check the model's name and base_url" if status == 404 else "mend what it complains of"
    return Failure(reason, advice, is_final=True)


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


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
