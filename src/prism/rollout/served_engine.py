"""Rollouts by servers that `prism serve` started, on devices of their own, from weights that are sent to them."""

import http.client
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from prism.config import ServedRollout
from prism.errors import ConfigError, RolloutError
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.sampling import Sampling, streams
from prism.rollout.wire import END_OF_WEIGHTS, prompt_table, read_error, read_rollout, weight_message
from prism.runtime.distributed import from_first, gather, num_processes, wait_for_all
from prism.runtime.launch import process_index

_INFO_TIMEOUT_S = 30.0


class ServedEngine:
    """Server j samples for every n-th prompt from the j-th on. Of several processes each speaks for some servers, and
    all have all rollouts.

    Raises ConfigError for a server that does not answer, or not for sequences of `max_length` tokens.
    """

    def __init__(self, settings: ServedRollout, *, max_length: int, max_pixels: int | None = None) -> None:
        self._num_servers = len(settings.base_urls)
        self._own = {
            number: _Server(settings.base_urls[number], settings.timeout_s)
            for number in range(process_index(), self._num_servers, num_processes())
        }
        for server in self._own.values():
            server.open(max_length, max_pixels)
        self._weights: str | None = None

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        """Raises RolloutError for a server that fails or has other weights by now, and what its engine raises."""
        sources = streams(prompts, seed)
        places = {number: range(number, len(prompts), self._num_servers) for number in self._own}

        def ask(number: int) -> list[tuple[int, tuple[Rollout, ...]]]:
            if not places[number]:
                return []
            found = self._own[number].post(
                "/generate",
                {
                    "weights": self._weights,
                    "prompts": [prompt_table(prompts[place]) for place in places[number]],
                    "streams": [sources[place] for place in places[number]],
                    "num_samples": num_samples,
                    "temperature": sampling.temperature,
                    "max_tokens": sampling.max_tokens,
                },
            )
            groups = [tuple(map(read_rollout, group)) for group in found]
            return list(zip(places[number], groups, strict=True))

        with ThreadPoolExecutor(max(1, len(self._own))) as threads:
            drawn = [item for part in threads.map(ask, self._own) for item in part]
        # Without the prompts, which hold the images.
        found = dict(gather(drawn))
        return [RolloutGroup(prompt, found[place]) for place, prompt in enumerate(prompts)]

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Raises RolloutError where a server does not take them all."""
        self._weights = name = from_first(lambda: secrets.token_hex(8))
        with ExitStack() as stack:
            uploads = [stack.enter_context(server.taking_weights(name)) for server in self._own.values()]
            for weight, tensor in weights:
                messages: dict[torch.dtype, bytes] = {}
                for upload in uploads:
                    if upload.dtype not in messages:
                        messages[upload.dtype] = weight_message(weight, tensor.to(upload.dtype))
                    upload.send(messages[upload.dtype])
            for upload in uploads:
                upload.finish()
        wait_for_all()

    def sleep(self) -> None:
        for server in self._own.values():
            server.post("/sleep", {})

    def close(self) -> None:
        """Nothing to do: the servers are their starter's."""


class _Server:
    def __init__(self, base_url: str, timeout_s: float) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"rollout.base_urls: {base_url!r} is no web address; write it like http://node7:8765")
        self.address, self._timeout_s = base_url.rstrip("/"), timeout_s
        self._url = url
        self._dtype = torch.float32

    def open(self, max_length: int, max_pixels: int | None) -> None:
        try:
            info = self._exchange("GET", "/info", None, _INFO_TIMEOUT_S)
        except RolloutError as error:
            raise ConfigError(f"rollout.base_urls: {error}; start it with `prism serve CHECKPOINT`") from None
        if info["max_length"] < max_length:
            raise ConfigError(
                f"{self.address}: takes sequences of {info['max_length']} tokens, the recipe has up to {max_length}: "
                f"start it with max_length={max_length}"
            )
        if info["max_pixels"] != max_pixels:
            has, wanted = info["max_pixels"] or "none", max_pixels or "none"
            raise ConfigError(
                f"{self.address}: has max_pixels={has}, the recipe {wanted}: start it with max_pixels={wanted}"
            )
        self._dtype = getattr(torch, info["dtype"])

    def post(self, path: str, content: dict[str, Any]) -> Any:
        return self._exchange("POST", path, json.dumps(content).encode(), self._timeout_s)

    @contextmanager
    def taking_weights(self, name: str) -> Iterator["_Upload"]:
        with closing(self._connect(self._timeout_s)) as connection:
            with self.failures():
                connection.putrequest("POST", f"{self._url.path.rstrip('/')}/weights?name={name}")
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
            yield _Upload(self, connection, self._dtype)

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(str(self._url.hostname), self._url.port, timeout=timeout_s)

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        with closing(self._connect(timeout_s)) as connection:
            with self.failures():
                connection.request(method, self._url.path.rstrip("/") + path, body)
            return self.answer(connection)

    def answer(self, connection: http.client.HTTPConnection) -> Any:
        with self.failures():
            response = connection.getresponse()
            content = json.loads(response.read())
        if response.status != http.client.OK:
            raise read_error(content, self.address)
        return content

    @contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RolloutError(f"{self.address}: the rollout server does not answer: {error or type(error)}") from error


class _Upload:
    """Weights on their way to one server, in HTTP's chunks."""

    def __init__(self, server: _Server, connection: http.client.HTTPConnection, dtype: torch.dtype) -> None:
        self._server, self._connection, self.dtype = server, connection, dtype

    def send(self, message: bytes) -> None:
        with self._server.failures():
            self._connection.send(f"{len(message):x}\r\n".encode())
            self._connection.send(message)
            self._connection.send(b"\r\n")

    def finish(self) -> None:
        self.send(END_OF_WEIGHTS)
        with self._server.failures():
            self._connection.send(b"0\r\n\r\n")
        self._server.answer(self._connection)
