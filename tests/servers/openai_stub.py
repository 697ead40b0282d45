"""A real HTTP server on loopback that speaks as much of the chat API as a test asks it to, faults included."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMPLETIONS = "/v1/chat/completions"
MODELS = "/v1/models"


@dataclass(frozen=True)
class Received:
    """A request as it arrived. `attempt` counts, from 1, how often this very body has been sent."""

    path: str
    headers: dict[str, str]
    body: Any
    time: float
    attempt: int

    @property
    def question(self) -> str:
        """The text of the last message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@dataclass(frozen=True)
class Reply:
    """`body` is sent as JSON unless it is bytes. `cut` closes the connection in the middle of the body."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False


def completion(text: str | None, finish_reason: str | None = "stop", *, tokens: int | None = 3, **choice: Any) -> Reply:
    """A chat completion; keyword arguments `message` (a mapping) and others are added to message and choice."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 11, "completion_tokens": tokens}}
    return Reply({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason, **choice}], **usage})


def refusal(status: int, message: str, **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "error", "code": None}}
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


Answer = Callable[[Received], Reply]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with the default of 5, one of many simultaneous connections waits a second


class Stub:
    """`received` holds the chat requests in order of arrival, `busiest` the most that were open at once."""

    def __init__(self, answer: Answer, models: list[dict[str, Any]] | None) -> None:
        self.answer = answer
        self.models = models
        self.received: list[Received] = []
        self.num_listings = 0
        self.busiest = 0
        self.closing = threading.Event()
        self._open = 0
        self._lock = threading.Lock()
        self._attempts: dict[str, int] = {}
        self.server = _Server(("127.0.0.1", 0), self._handler())

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def questions(self) -> list[str]:
        return [received.question for received in self.received]

    def reply_to(self, path: str, headers: dict[str, str], data: bytes) -> Reply:
        if path == MODELS:
            self.num_listings += 1
            return refusal(404, "not here") if self.models is None else Reply({"object": "list", "data": self.models})
        if path != COMPLETIONS:
            return refusal(404, f"no such path: {path}")
        with self._lock:
            key = data.decode()
            self._attempts[key] = self._attempts.get(key, 0) + 1
            received = Received(path, headers, json.loads(data), time.monotonic(), self._attempts[key])
            self.received.append(received)
            self._open += 1
            self.busiest = max(self.busiest, self._open)
        try:
            reply = self.answer(received)
            self.closing.wait(reply.delay_s)
            return reply
        finally:
            with self._lock:
                self._open -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # otherwise a body waits for the acknowledgement of its headers

            def do_GET(self) -> None:
                self._send(stub.reply_to(self.path, dict(self.headers), b""))

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                self._send(stub.reply_to(self.path, {k.lower(): v for k, v in self.headers.items()}, data))

            def _send(self, reply: Reply) -> None:
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                headers = {"content-type": "application/json", "content-length": str(len(data))} | reply.headers
                try:
                    self.send_response(reply.status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if reply.cut else data)
                    self.wfile.flush()
                except OSError:
                    return  # the client has given up, as tests of time-outs want it to
                self.close_connection = self.close_connection or reply.cut

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@contextmanager
def serving(answer: Answer, models: list[dict[str, Any]] | None = None) -> Iterator[Stub]:
    """A running server; without `models` it has no list of models."""
    stub = Stub(answer, models)
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        stub.closing.set()
        stub.server.shutdown()
        stub.server.server_close()
        thread.join()
