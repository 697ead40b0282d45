"""Where an OpenAI-compatible server is, what it understands, and how patient to be with it."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from prism.errors import ConfigError

_OURS = frozenset(
    {"model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "n", "stream"}
)
"""Fields of a request that `extra_body` cannot change: they follow from the sampling settings, or must be 1."""


@dataclass(frozen=True, slots=True)
class ChatServer:
    """`base_url` ends where `/chat/completions` is to be added, usually in `/v1`.

    The API key is read from the environment variable `api_key_env`, never from a file. A server on this
    machine or in a private network may go without.

    `takes_seed`: Gemini's endpoint refuses requests with a seed; without one samples do not repeat.
    `token_limit_field`: OpenAI's newer models know only the longer name.
    `extra_body` is added to every request, e.g. `{"top_k": -1}` for vLLM and SGLang, which otherwise cut
    the distribution as the checkpoint's generation_config.json says.

    `timeout_s` bounds one attempt as a whole. A request fails after `max_attempts`, not counting rate
    limits while others get through; pauses start at `backoff_s` and double. A server that asks for more
    than `longest_wait_s` is taken to have refused.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    concurrency: int = 32
    takes_seed: bool = True
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 600.0
    max_attempts: int = 8
    backoff_s: float = 1.0
    longest_wait_s: float = 300.0

    def __post_init__(self) -> None:
        """Raises ConfigError, without the address where that may hold a secret."""
        try:
            url = urlsplit(self.base_url)
            is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ConfigError("base_url is not a web address: write it like http://127.0.0.1:8000/v1")
        if url.username is not None or url.query or url.fragment:
            raise ConfigError(
                f"base_url of {url.hostname} has a user name, a query or a fragment: "
                "put the key into an environment variable and name that in api_key_env"
            )
        if min(self.concurrency, self.max_attempts) < 1 or min(self.timeout_s, self.backoff_s) <= 0:
            raise ConfigError(
                f"{self.address}: concurrency, max_attempts, timeout_s and backoff_s must be greater than 0"
            )
        if taken := _OURS & self.extra_body.keys():
            raise ConfigError(f"{self.address}: extra_body must not set {', '.join(sorted(taken))}")

    @property
    def address(self) -> str:
        """How errors name the server."""
        return self.base_url.rstrip("/")

    @property
    def is_loopback(self) -> bool:
        host = self._host()
        address = _ip_address(host)
        return host == "localhost" if address is None else address.is_loopback

    @property
    def is_local(self) -> bool:
        """On this machine or in a private network, as far as the name tells: one without dots, or `.local`."""
        host = self._host()
        address = _ip_address(host)
        if address is None:
            return "." not in host or host.endswith(".local")
        return address.is_private or address.is_link_local

    def api_key(self) -> str:
        """Raises ConfigError where there is none and the server is not a local one."""
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not key and self.is_local:
            return "EMPTY"
        if not key:
            advice = (
                f"set the environment variable {self.api_key_env}" if self.api_key_env else "name it in api_key_env"
            )
            raise ConfigError(f"{self.address} needs an API key: {advice}")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigError(f"the environment variable {self.api_key_env} holds no API key: it has odd characters")
        return key

    def _host(self) -> str:
        return (urlsplit(self.base_url).hostname or "").rstrip(".")


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
