"""Images from a real server that is slow, endless, redirecting and private."""

import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from prism.data.rejects import RowError
from prism.data.remote_images import ImageFetcher


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, argument = self.path.lstrip("/").partition("/")
        if path == "to":
            return self._send(302, b"", location=f"/{argument}")
        if path == "round":
            return self._send(302, b"", location="/round")
        if path == "file":
            return self._send(302, b"", location="file:///etc/passwd")
        if path == "missing":
            return self._send(404, b"none")
        self.send_response(200)
        try:
            if path == "headers":
                self.flush_headers()
                for number in range(80):
                    self.wfile.write(f"x-{number}: y\r\n".encode())
                    time.sleep(0.05)
            self.end_headers()
            for _ in range(100 if path in ("drip", "endless") else 1):
                self.wfile.write(b"x" * 1000 if path == "endless" else b"image")
                time.sleep(0.02 if path == "drip" else 0)
        except OSError:
            pass  # the client has given up

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


FETCHER = ImageFetcher(max_bytes=10_000, timeout_s=0.5, allow_private=True)


@pytest.mark.parametrize("path", ["image", "to/image", "to/to/image"])
def test_an_image_is_fetched(address: str, path: str) -> None:
    assert FETCHER.fetch(f"{address}/{path}") == b"image"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "has an image that cannot be fetched"),
        ("round", "has an image that cannot be fetched"),
        ("file", "has an image at an address that is not http"),
        ("endless", "has an image of more than 10,000 bytes"),
        ("drip", "has an image that took too long to fetch"),
        ("headers", "has an image that took too long to fetch"),
        ("to/headers", "has an image that took too long to fetch"),
    ],
)
def test_what_is_refused(address: str, path: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(RowError) as caught:
        FETCHER.fetch(f"{address}/{path}")
    assert caught.value.reason == reason
    assert time.monotonic() - start < 2


def test_a_name_that_nobody_resolves_takes_no_longer(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(2.0)
        return asked(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    start = time.monotonic()
    with pytest.raises(RowError, match="took too long"):
        FETCHER.fetch(f"{address}/image")
    assert time.monotonic() - start < 1.5


def test_private_networks_are_not_asked(address: str) -> None:
    with pytest.raises(RowError, match="in a private network"):
        ImageFetcher().fetch(f"{address}/image")
    for other in ("http://10.0.0.1/x", "http://169.254.169.254/latest", "http://[::1]/x"):
        with pytest.raises(RowError, match=r"in a private network|cannot be fetched"):
            ImageFetcher(timeout_s=0.5).fetch(other)
    with pytest.raises(RowError, match="cannot be fetched"):
        FETCHER.fetch("http://127.0.0.1:1/x")


def test_only_images_of_a_row_are_fetched(address: str) -> None:
    row = {
        "images": [
            f"{address}/a",
            "local.png",
            {"bytes": None, "path": f"{address}/b"},
            {"bytes": b"own", "path": "http://x"},
        ],
        "image": None,
        "source": f"{address}/missing",
        "prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"{address}/c"}}]}],
    }
    localised = FETCHER.localise(row)
    assert localised["images"] == [b"image", "local.png", {"bytes": None, "path": b"image"}, row["images"][3]]
    assert localised["prompt"][0]["content"][0]["image_url"] == {"url": b"image"}
    assert localised["source"] == row["source"]
