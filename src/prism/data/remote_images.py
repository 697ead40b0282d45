"""Images that rows name by http addresses, fetched when the user asks for it, within limits.

The addresses come from the data, so they are not trusted: nothing is fetched from this machine or its private
network, whatever a name resolves to or a redirect says, unless that is allowed too.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from prism.data.formats.fields import IMAGE_FIELDS, Row
from prism.data.rejects import RowError

_CHUNK_BYTES = 2**16
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MESSAGE_FIELDS = ("messages", "conversations", "prompt")
_REFERENCE_KEYS = ("image", "image_url", "url", "path")


@dataclass(frozen=True, slots=True)
class ImageFetcher:
    """`timeout_s` bounds one image as a whole, names and redirects included, however slowly it drips in."""

    max_bytes: int = 2**25
    timeout_s: float = 20.0
    allow_private: bool = False

    def localise(self, row: Row) -> Row:
        """The row with the bytes in place of every http address among its images. Raises RowError."""
        changed = {field: self._fetched(row[field], field) for field in IMAGE_FIELDS if row.get(field) is not None}
        for field in _MESSAGE_FIELDS:
            if isinstance(row.get(field), list):
                changed[field] = [self._in_message(message, field) for message in row[field]]
        return {**row, **changed}

    def fetch(self, address: str, field: str = "images") -> bytes:
        """Raises RowError with a reason that can be counted."""
        deadline = time.monotonic() + self.timeout_s
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                redirect, data = self._get(urlsplit(address), deadline)
                if redirect is None:
                    return data
                address = urljoin(address, redirect)
        except TimeoutError:
            raise RowError(field, "has an image that took too long to fetch", address) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RowError(field, "has an image that cannot be fetched", f"{address}: {error}") from None
        except _Refused as error:
            raise RowError(field, f"has an image {error}", address) from None
        raise RowError(field, "has an image that cannot be fetched", f"{address}: too many redirects")

    def _get(self, url: SplitResult, deadline: float) -> tuple[str | None, bytes]:
        """Where it redirects to, or the body."""
        stream = self._connect(url, deadline)
        connection = http.client.HTTPConnection(url.hostname or "", _port(url))
        connection.sock = stream
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", target, headers={"User-Agent": "prism", "Accept": "image/*"})
            with http.client.HTTPResponse(stream, method="GET") as response:
                response.fp.close()
                response.fp = io.BufferedReader(_Until(deadline, stream))
                response.begin()
                location = response.getheader("location")
                if response.status in _REDIRECTS and location:
                    return location, b""
                if response.status != 200:
                    raise OSError(f"status {response.status}")
                return None, self._read(response)
        finally:
            stream.close()

    def _connect(self, url: SplitResult, deadline: float) -> socket.socket:
        """To an address that was looked at, so that a name cannot resolve to another one the second time."""
        if url.scheme not in ("http", "https") or not url.hostname:
            raise _Refused("at an address that is not http")
        family, kind, protocol, address = _resolved(url.hostname, _port(url), deadline)
        if not (self.allow_private or ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global):
            raise _Refused("in a private network")
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_remaining(deadline))
            plain.connect(address)
            plain.settimeout(_remaining(deadline))
            if url.scheme == "http":
                return plain
            secure = ssl.create_default_context().wrap_socket(plain, server_hostname=url.hostname)
            secure.settimeout(_remaining(deadline))
            return secure
        except BaseException:
            plain.close()
            raise

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        data = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > self.max_bytes:
                raise _Refused(f"of more than {self.max_bytes:,} bytes")
        return bytes(data)

    def _fetched(self, value: Any, field: str) -> Any:
        if isinstance(value, list):
            return [self._fetched(item, field) for item in value]
        if isinstance(value, Mapping):
            return value if value.get("bytes") else self._in_part(value, field)
        return self.fetch(value, field) if _is_remote(value) else value

    def _in_message(self, message: Any, field: str) -> Any:
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
            return message
        parts = [self._in_part(part, field) if isinstance(part, Mapping) else part for part in message["content"]]
        return {**message, "content": parts}

    def _in_part(self, part: Mapping[str, Any], field: str) -> Any:
        return {
            key: self._fetched(value, field) if key in _REFERENCE_KEYS and not isinstance(value, list) else value
            for key, value in part.items()
        }


class _Refused(Exception):
    pass


class _Until(io.RawIOBase):
    """What a socket gives until a moment. Its own timeout starts anew with each piece, be it a byte of a header."""

    def __init__(self, deadline: float, stream: socket.socket) -> None:
        self._deadline, self._stream = deadline, stream
        self._raw = stream.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._stream.settimeout(_remaining(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _resolved(name: str, port: int, deadline: float) -> tuple[int, int, int, Any]:
    """Family, kind, protocol and address of the first answer.

    The resolver takes no timeout, so it is asked by a thread, which is left to itself when time is up.
    """
    answer: Future[tuple[int, int, int, Any]] = Future()

    def ask() -> None:
        try:
            [family, kind, protocol, _, address], *_ = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            answer.set_result((family, kind, protocol, address))
        except Exception as error:  # raised where the answer is awaited
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    return answer.result(_remaining(deadline))


def _is_remote(value: object) -> bool:
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
