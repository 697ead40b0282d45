"""A scripted teacher in a process of its own: fast, and with faults at stated rates.

    python teacher_stub.py ADDRESS_FILE LOG_FILE [--script F] [--latency 0.05] [--capacity 64] [--rates '{"429": 0.1}']

`--script` is JSON: the teacher's reply to each prompt, by the SHA-256 of its first image's data URI. A request's fault
follows from its body and from how often it has been sent, so that runs repeat. Every request is a line of the log
before it is answered: its own id, what the server does, how many are open, and the tokens it charges for.
Beyond `--capacity` requests at once it answers 429.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

FAULTS = (
    *("429", "500", "timeout", "cut", "gateway", "malformed", "wrong", "refusal", "filtered", "safety", "truncated"),
    *("slow", "400"),
)
CHARGED = {*FAULTS, "ok"} - {"429", "500", "400"}
"""What costs money: whatever the model has written, even if it did not arrive."""
USAGE_BEHIND_A_PROXY = {"prompt_tokens": 100, "completion_tokens": 100}
TIMEOUT_S = 8.0
NO_REPLY = "<caption>A picture.</caption><think>1. It says so.</think><answer>7</answer>"


class Teacher:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.script = json.loads(arguments.script.read_text()) if arguments.script else {}
        self.latency, self.capacity = arguments.latency, arguments.capacity
        self.rates = json.loads(arguments.rates)
        self.attempts: dict[str, int] = {}
        self.num_open = 0
        self.log = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def plan(self, body: bytes) -> str:
        digest = hashlib.sha256(body).hexdigest()
        self.attempts[digest] = attempt = self.attempts.get(digest, 0) + 1
        source = random.Random(f"{digest}/{attempt}")
        draw, fault = source.random(), "ok"
        for kind in FAULTS:
            draw -= self.rates.get(kind, 0.0)
            if draw < 0:
                fault = kind
                break
        return "429" if self.num_open > self.capacity else fault

    def write_down(self, name: str, fault: str, content: bytes) -> None:
        tokens = (
            USAGE_BEHIND_A_PROXY if fault == "gateway" else json.loads(content)["usage"] if fault in CHARGED else {}
        )
        entry: dict[str, Any] = {"id": name, "does": fault, "open": self.num_open, **tokens}
        os.write(self.log, (json.dumps(entry) + "\n").encode())

    def reply(self, fault: str, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        if fault == "429":
            return 429, error("slow down"), {"retry-after": "0.2"}
        if fault == "500":
            return 500, error("overloaded"), {}
        if fault == "400":
            return 400, error("this image is not allowed"), {}
        if fault == "gateway":
            return 504, b"<html>the model is still writing</html>", {"content-type": "text/html"}
        text = self.text(body)
        ending = {"filtered": "content_filter", "safety": "SAFETY", "truncated": "length"}.get(fault, "stop")
        if fault == "malformed":
            text = text.replace("</think>", "")
        elif fault == "wrong":
            start, _, _ = text.rpartition("<answer>")
            text = f"{start}<answer>99999</answer>"
        elif fault == "refusal":
            text = "I'm sorry, but I can't help with that."
        elif fault in ("filtered", "safety", "truncated"):
            text = text[: len(text) // 2]
        return 200, completion(text, ending), {}

    def text(self, body: dict[str, Any]) -> str:
        for message in body["messages"]:
            if isinstance(message["content"], list):
                for part in message["content"]:
                    if part["type"] == "image_url":
                        key = hashlib.sha256(part["image_url"]["url"].encode()).hexdigest()
                        return self.script.get(key, NO_REPLY)
        return NO_REPLY


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()


def completion(text: str, ending: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ending}
    usage = {"prompt_tokens": 100, "completion_tokens": 10 + len(text) // 4}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


class Connection(asyncio.Protocol):
    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, rest = self.buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.teacher.num_open += 1
        fault = self.teacher.plan(rest[:length])
        status, content, extra = self.teacher.reply(fault, json.loads(rest[:length]))
        self.teacher.write_down(headers.get("x-client-request-id", ""), fault, content)
        delay = {"timeout": TIMEOUT_S, "slow": 10 * self.teacher.latency, "429": 0.0}.get(fault, self.teacher.latency)
        asyncio.get_running_loop().call_later(delay, self.send, fault, status, content, extra)

    def send(self, fault: str, status: int, content: bytes, extra: dict[str, str]) -> None:
        self.teacher.num_open -= 1
        if self.transport.is_closing():
            return
        headers = {"content-type": "application/json", "content-length": str(len(content)), **extra}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        if fault == "cut":
            self.transport.write(head.encode() + content[: len(content) // 2])
            self.transport.close()
        else:
            self.transport.write(head.encode() + content)


async def serve(arguments: argparse.Namespace) -> None:
    teacher = Teacher(arguments)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(teacher), "127.0.0.1", 0, backlog=512)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    partial = arguments.address.with_suffix(".partial")
    partial.write_text(address)
    partial.replace(arguments.address)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--capacity", type=int, default=10_000)
    parser.add_argument("--rates", default="{}")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
