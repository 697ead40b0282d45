"""The engine against a real server that refuses, stalls, breaks off and talks nonsense."""

import asyncio
import base64
import threading
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from prism.errors import ConfigError, DataError, PrismError, RolloutError
from prism.records import ImageSource, Prompt, Rollout
from prism.rollout.openai_client import served_model
from prism.rollout.openai_engine import OpenAIEngine
from prism.rollout.openai_server import ChatServer
from prism.rollout.sampling import Sampling
from prism.runtime.seeding import derive_seed
from servers.openai_stub import Received, Reply, Stub, completion, refusal, serving

PNG = b"\x89PNG\r\n\x1a\n and more"
JPEG = b"\xff\xd8\xff\xe0 and more"
WEBP = b"RIFF\x00\x00\x00\x00WEBP and more"
KEY = "sk-very-secret-0123456789"
SAMPLING = Sampling(0.7, 50)


def server(stub: Stub, **changes: Any) -> ChatServer:
    settings = {"backoff_s": 0.01, "timeout_s": 5.0, "max_attempts": 4}
    return ChatServer(stub.base_url, "tiny", **(settings | changes))


def ask(stub: Stub, *prompts: Prompt, num_samples: int = 1, seed: int = 5, **changes: Any) -> list[list[Rollout]]:
    engine = OpenAIEngine(server(stub, **changes))
    groups = engine.generate(prompts, num_samples=num_samples, sampling=SAMPLING, seed=seed)
    assert [group.prompt for group in groups] == list(prompts)
    return [list(group.rollouts) for group in groups]


def questions(count: int) -> list[Prompt]:
    return [Prompt(f"p{index}", f"question {index}") for index in range(count)]


def data_uri(kind: str, data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}}


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def test_the_request_as_the_server_sees_it(tmp_path: Path) -> None:
    photo = tmp_path / "photo.bin"
    photo.write_bytes(JPEG)
    prompt = Prompt(
        "a/b", "Is <image> like\n<image>?", (ImageSource(data=PNG), ImageSource(path=photo)), system="Be brief."
    )
    with serving(lambda received: completion("yes")) as stub:
        ask(stub, prompt, extra_body={"top_k": -1})
    assert stub.received[0].body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [text("Is "), data_uri("png", PNG), text(" like\n"), data_uri("jpeg", JPEG), text("?")],
            },
        ],
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 50,
        "seed": derive_seed(5, "a/b", 0, 0) % 2**31,
        "top_k": -1,
    }


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("Describe.", [data_uri("png", PNG), data_uri("webp", WEBP), text("Describe.")]),
        ("<image><image>Describe.", [data_uri("png", PNG), data_uri("webp", WEBP), text("Describe.")]),
        ("a<image>\n<image>", [text("a"), data_uri("png", PNG), text("\n"), data_uri("webp", WEBP)]),
    ],
)
def test_where_images_go(question: str, content: list[Any]) -> None:
    prompt = Prompt("p", question, (ImageSource(data=PNG), ImageSource(data=WEBP)))
    with serving(lambda received: completion("x")) as stub:
        ask(stub, prompt)
    assert stub.received[0].body["messages"] == [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Prompt("bad", "<image><image>", (ImageSource(data=PNG),)), "2 <image> marks for 1 images"),
        (Prompt("bad", "<image>"), "1 <image> marks for 0 images"),
        (Prompt("bad", "x", (ImageSource(data=b"%PDF-1.7"),)), "not a kind of image"),
        (Prompt("bad", "x", (ImageSource(path=Path("/nowhere/x.png")),)), "/nowhere/x.png"),
        (Prompt("bad", "lone \ud800 half"), "surrogates"),
    ],
)
def test_an_unusable_prompt_is_named_and_not_sent(prompt: Prompt, words: str) -> None:
    with serving(lambda received: completion("x")) as stub, pytest.raises(DataError, match="prompt 'bad'") as caught:
        ask(stub, prompt)
    assert words in str(caught.value)
    assert stub.received == []


def test_samples_come_back_in_their_places_whatever_the_order_of_arrival() -> None:
    def answer(received: Received) -> Reply:
        number = int(received.question.split()[1])
        reply = completion(f"{received.question} {received.body['seed']}")
        return Reply(reply.body, delay_s=0.2 if number == 0 else 0.0)

    with serving(answer) as stub:
        groups = ask(stub, *questions(4), num_samples=3, seed=9)
    for number, group in enumerate(groups):
        seeds = [derive_seed(9, f"p{number}", 0, sample) % 2**31 for sample in range(3)]
        assert [rollout.text for rollout in group] == [f"question {number} {seed}" for seed in seeds]
        assert [rollout.sample for rollout in group] == [0, 1, 2]


def test_a_sample_is_decided_by_seed_prompt_and_index_alone() -> None:
    def seeds(*prompts: Prompt, num_samples: int, seed: int = 1) -> list[list[str]]:
        with serving(lambda received: completion(str(received.body["seed"]))) as stub:
            return [[r.text for r in group] for group in ask(stub, *prompts, num_samples=num_samples, seed=seed)]

    first, second = questions(2)
    together = seeds(first, second, num_samples=3)
    assert len({seed for group in together for seed in group}) == 6
    assert seeds(second, first, num_samples=2) == [together[1][:2], together[0][:2]]
    assert set(seeds(first, num_samples=3, seed=2)[0]).isdisjoint(together[0])
    again = seeds(first, first, num_samples=3)
    assert again[0] == together[0] and set(again[1]).isdisjoint(again[0])
    assert all(0 <= int(seed) < 2**31 for group in together for seed in group)


@pytest.mark.parametrize(
    ("reply", "rollout"),
    [
        (completion("ok", tokens=7), Rollout(0, (), "ok", True, 7)),
        (completion("cut", "length", tokens=50), Rollout(0, (), "cut", False, 50)),
        (completion("", "content_filter", tokens=0), Rollout(0, (), "", False, 0)),
        (completion("ok", tokens=None), Rollout(0, (), "ok", True, None)),
        (completion("ok", token_ids=[4, 5, 6]), Rollout(0, (4, 5, 6), "ok", True, 3)),
        (completion(None), Rollout(0, (), "", True, 3)),
        (completion("4", message={"reasoning_content": "2+2"}), Rollout(0, (), "<think>2+2</think>4", True, 3)),
        (completion("4", message={"reasoning": "2+2"}), Rollout(0, (), "<think>2+2</think>4", True, 3)),
        (completion(None, "length", message={"reasoning": "2+"}), Rollout(0, (), "<think>2+", False, 3)),
        (completion("4", message={"reasoning": None, "reasoning_content": ""}), Rollout(0, (), "4", True, 3)),
    ],
)
def test_what_becomes_of_a_reply(reply: Reply, rollout: Rollout) -> None:
    with serving(lambda received: reply) as stub:
        assert ask(stub, Prompt("p", "x")) == [[rollout]]


@pytest.mark.parametrize(
    ("rollout", "count"),
    [
        (Rollout(0, (4, 5, 6), "x", True), 3),
        (Rollout(0, (4, 5, 6), "x", True, 9), 3),
        (Rollout(0, (), "x", True, 9), 9),
        (Rollout(0, (), "x", True), None),
    ],
)
def test_the_number_of_tokens_is_counted_or_reported_or_unknown(rollout: Rollout, count: int | None) -> None:
    assert rollout.num_tokens == count


PASSING_FAULTS: dict[str, Reply] = {
    "overloaded": refusal(503, "busy"),
    "server error": refusal(500, "oops"),
    "rate limit without a time": refusal(429, "slow down"),
    "cut connection": Reply(completion("lost").body, cut=True),
    "malformed JSON": Reply(b'{"choices": [{"mess'),
    "bytes that are no text": Reply(b'{"choices": "\xff\xfe"}'),
    "a page of a proxy": Reply(b"<html>502</html>", headers={"content-type": "text/html"}),
    "no choices": Reply({"choices": []}),
    "an error as a success": Reply({"error": {"message": "upstream"}}),
    "no end": completion("half", "abort"),
    "no reply in time": Reply(completion("late").body, delay_s=3),
}


@pytest.mark.parametrize("fault", PASSING_FAULTS.values(), ids=PASSING_FAULTS)
def test_a_fault_that_passes_costs_nothing(fault: Reply) -> None:
    with serving(lambda received: fault if received.attempt < 3 else completion("good")) as stub:
        assert ask(stub, Prompt("p", "x"), timeout_s=0.3)[0][0].text == "good"
    assert len(stub.received) == 3


@pytest.mark.parametrize("fault", PASSING_FAULTS.values(), ids=PASSING_FAULTS)
def test_a_fault_that_stays_ends_in_one_line(fault: Reply) -> None:
    with serving(lambda received: fault) as stub, pytest.raises(RolloutError) as caught:
        ask(stub, Prompt("p 1", "x"), timeout_s=0.2, max_attempts=2)
    message = str(caught.value)
    assert message.startswith(f"{stub.base_url}, model 'tiny', prompt 'p 1': still failing after 2 attempts: ")
    assert "\n" not in message and "<html>" not in message
    assert len(stub.received) == 2


def test_a_server_that_drips_is_timed_out_as_a_whole() -> None:
    """Each byte comes in time, the reply never does."""

    def drip(received: Received) -> Reply:
        return Reply(b"", headers={"content-length": "1000000"})

    with serving(drip) as stub:
        handler = stub.server.RequestHandlerClass
        send = handler._send  # type: ignore[attr-defined]

        def send_and_drip(self: Any, reply: Reply) -> None:
            send(self, reply)
            try:
                while not stub.closing.wait(0.05):
                    self.wfile.write(b" ")
            except OSError:
                pass

        handler._send = send_and_drip  # type: ignore[attr-defined]
        start = time.monotonic()
        with pytest.raises(RolloutError, match=r"no reply within 0\.3 s"):
            ask(stub, Prompt("p", "x"), timeout_s=0.3, max_attempts=1)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "wait", [{"Retry_After": "1"}, {"retry_after_ms": "700"}, {"Retry_After": "date"}], ids=["seconds", "ms", "date"]
)
def test_the_time_the_server_names_is_waited_by_all_requests(wait: dict[str, str]) -> None:
    first = threading.Event()

    def answer(received: Received) -> Reply:
        if first.is_set():
            return completion("ok")
        first.set()
        # A date has whole seconds: two ahead is more than one away.
        headers = {name: formatdate(time.time() + 2, usegmt=True) if v == "date" else v for name, v in wait.items()}
        return refusal(429, "slow down", **headers)

    with serving(answer) as stub:
        ask(stub, *questions(4), concurrency=1)
    times = [received.time for received in stub.received]
    assert len(times) == 5
    assert 0.65 < times[1] - times[0] < 2.5
    assert times[4] - times[1] < 0.5


def test_one_refusal_holds_back_the_requests_that_follow() -> None:
    def answer(received: Received) -> Reply:
        if received.question == "question 0" and received.attempt == 1:
            return refusal(429, "slow down", Retry_After="0.6")
        return Reply(completion("ok").body, delay_s=0.1)

    with serving(answer) as stub:
        ask(stub, *questions(4), concurrency=2)
    start = stub.received[0].time
    early = [received for received in stub.received if received.time - start < 0.55]
    assert len(early) == 2  # those under way before the refusal; nothing new is sent until the time is over
    assert len(stub.received) == 5


def test_rate_limits_do_not_count_while_requests_get_through() -> None:
    """Two pass per window of 50 ms: far more refusals per request than its two attempts."""
    lock, window, passed = threading.Lock(), [0], [0]

    def answer(received: Received) -> Reply:
        with lock:
            now = int(received.time / 0.05)
            if now != window[0]:
                window[0], passed[0] = now, 0
            passed[0] += 1
            return completion("ok") if passed[0] <= 2 else refusal(429, "slow down")

    with serving(answer) as stub:
        groups = ask(stub, *questions(16), concurrency=16, max_attempts=2, backoff_s=0.2)
    assert [group[0].text for group in groups] == ["ok"] * 16
    assert max(received.attempt for received in stub.received) > 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            refusal(404, "The model `tiny` does not exist."),
            "status 404: The model `tiny` does not exist.; check the mo",
        ),
        (refusal(400, "prompt of 9 tokens\nis too long"), "status 400: prompt of 9 tokens is too long"),
        (Reply([{"error": {"code": 400, "message": "Unknown name"}}], 400), "status 400: Unknown name"),
        (Reply({"object": "error", "message": "old vLLM"}, 400), "status 400: old vLLM"),
        (Reply({"detail": "no route"}, 405), "status 405: no route"),
        (refusal(422, "x" * 5000), "x" * 300 + "…"),
        (refusal(429, "wait for long", Retry_After="3600"), "wait for long; it asks to wait 3600 s"),
        (Reply({"error": {"message": "pay", "code": "insufficient_quota"}}, 429), "status 429: pay"),
    ],
)
def test_what_will_not_pass_is_asked_once(reply: Reply, words: str) -> None:
    with serving(lambda received: reply) as stub, pytest.raises(RolloutError) as caught:
        ask(stub, Prompt("p", "x"))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert len(stub.received) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_the_key_is_sent_and_never_shown(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with serving(lambda received: refusal(status, f"bad key {KEY}")) as stub, pytest.raises(RolloutError) as caught:
        ask(stub, Prompt("p", "x"), api_key_env="MY_KEY", max_attempts=1)
    assert stub.received[0].headers["authorization"] == f"Bearer {KEY}"
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in shown
    if status in (401, 403):
        assert "the key was refused" in shown and "bad key" not in shown


def test_nothing_meant_for_another_server_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "meant-for-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer meant-for-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with serving(lambda received: completion("ok")) as stub:
        ask(stub, Prompt("p", "x"))
    headers = stub.received[0].headers
    assert headers["authorization"] == "Bearer EMPTY"
    assert "meant-for-openai" not in str(headers)


def test_a_proxy_does_not_stand_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(lambda received: completion("ok")) as stub:
        assert ask(stub, Prompt("p", "x"), max_attempts=1)[0][0].text == "ok"


def test_no_server_at_all() -> None:
    with serving(lambda received: completion("ok")) as stub:
        address = stub.base_url
    engine = OpenAIEngine(ChatServer(address, "tiny", max_attempts=2, backoff_s=0.01))
    with pytest.raises(RolloutError, match=r"no connection.*check that the server runs"):
        engine.generate([Prompt("p", "x")], num_samples=1, sampling=SAMPLING, seed=1)


def test_concurrency_is_bounded_and_used() -> None:
    with serving(lambda received: Reply(completion("ok").body, delay_s=0.05)) as stub:
        ask(stub, *questions(5), num_samples=4, concurrency=6)
    assert stub.busiest == 6 and len(stub.received) == 20


def test_a_failure_gives_up_the_requests_that_wait() -> None:
    def answer(received: Received) -> Reply:
        return refusal(400, "no") if received.question == "question 1" else Reply(completion("ok").body, delay_s=3)

    start = time.monotonic()
    with serving(answer) as stub, pytest.raises(RolloutError, match="prompt 'p1'"):
        ask(stub, *questions(50), concurrency=2)
    assert time.monotonic() - start < 2
    assert len(stub.received) <= 3


def test_inside_a_running_event_loop_and_from_a_thread() -> None:
    with serving(lambda received: completion("ok")) as stub:

        async def inside() -> list[list[Rollout]]:
            return ask(stub, Prompt("p", "x"))

        found: list[Any] = [asyncio.run(inside())]
        threads = [threading.Thread(target=lambda: found.append(ask(stub, Prompt("p", "x")))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[[Rollout(0, (), "ok", True, 3)]]] * 3


def test_nothing_to_ask_asks_nothing() -> None:
    with serving(lambda received: completion("ok")) as stub:
        assert ask(stub) == []
        assert ask(stub, Prompt("p", "x"), num_samples=0) == [[]]
    assert stub.received == []


def test_fields_a_server_does_not_know() -> None:
    with serving(lambda received: completion("ok")) as stub:
        ask(stub, Prompt("p", "x"), takes_seed=False, token_limit_field="max_completion_tokens")
    body = stub.received[0].body
    assert "seed" not in body and "max_tokens" not in body
    assert body["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ([{"id": "other"}, {"id": "tiny", "root": "/weights", "created": 1}], {"id": "tiny", "root": "/weights"}),
        ([{"id": "tiny", "root": None}], {"id": "tiny"}),
        ([{"id": "other"}], None),
        (None, None),
    ],
)
def test_what_the_server_says_it_serves(models: Any, found: Any) -> None:
    with serving(lambda received: completion("ok"), models) as stub:
        assert served_model(server(stub)) == found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ChatServer("127.0.0.1:8000/v1", "m"), "base_url"),
        (lambda: ChatServer("ftp://host/v1", "m"), "base_url"),
        (lambda: ChatServer("http://[::1/v1", "m"), "base_url"),
        (lambda: ChatServer(f"http://user:{KEY}@host/v1", "m"), "api_key_env"),
        (lambda: ChatServer(f"https://host.example/v1?key={KEY}", "m"), "api_key_env"),
        (lambda: ChatServer("http://host/v1", "m", concurrency=0), "concurrency"),
        (lambda: ChatServer("http://host/v1", "m", extra_body={"seed": 1, "model": "x"}), "model, seed"),
        (lambda: ChatServer("https://api.example.com/v1", "m").api_key(), "name it in api_key_env"),
        (lambda: ChatServer("https://api.example.com/v1", "m", "UNSET_KEY").api_key(), "UNSET_KEY"),
        (lambda: ChatServer("http://127.0.0.1/v1", "m", "ODD_KEY").api_key(), "ODD_KEY"),
    ],
)
def test_settings_that_cannot_work(make: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET_KEY", raising=False)
    monkeypatch.setenv("ODD_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert isinstance(caught.value, PrismError)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("[::1]", True),
        ("localhost", True),
        ("10.1.2.3", True),
        ("192.168.0.9", True),
        ("gpu7", True),
        ("gpu7.local", True),
        ("8.8.8.8", False),
        ("api.openai.com", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_only_a_local_server_goes_without_a_key(host: str, is_local: bool) -> None:
    server = ChatServer(f"http://{host}:8000/v1", "m")
    if is_local:
        assert server.api_key() == "EMPTY"
    else:
        with pytest.raises(ConfigError, match="API key"):
            server.api_key()
