"""Servers in processes of their own that end in the middle of a run: what was not answered is asked for again."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curated_rows import Scripted, fill, made
from prism.config import DifficultyRecipe, PairsRecipe, TeachRecipe, VerifyRecipe, build_config
from prism.curation import Outcome, Part, Row, Store, count_step, run_step
from prism.curation.difficulty import run_difficulty
from prism.curation.pairs import run_pairs
from prism.curation.rows import kept
from prism.curation.teach import run_teach
from prism.curation.verify import run_verify
from prism.errors import RolloutError
from prism.records import Prompt
from servers.openai_stub import Answer, Received, Reply, completion, refusal, serving

GOOD = "<caption>A red dot, a blue line.</caption><think>1. B.</think><answer>{}</answer>"
UNREADABLE = r"\begin{tikzpicture}\draw (0,0) -- (1,1);\end{tikzpicture} + \frac{"

SERVER = """
import os, sys
sys.path[:0] = [{tests!r}]
from servers.openai_stub import Reply, Stub, _Server, completion
port, num_answers, poison = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def answer(received):
    if len(stub.received) > num_answers or (poison and poison in received.question):
        os._exit(1)
    return Reply(completion({text!r}).body, delay_s=0.01 * (len(stub.received) % 5))

stub = Stub(answer, None)
stub.server.server_close()
_Server.allow_reuse_address = True
stub.server = _Server(("127.0.0.1", port), stub._handler())
print("ready", flush=True)
stub.server.serve_forever()
"""


class Mortal:
    """A server that ends with its first request after `num_answers`, or with the first that has `poison` in it."""

    def __init__(self, num_answers: int, poison: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.num_lives = 0
        self._arguments = [str(num_answers), poison]
        self._process = self._start()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._come_back_each_time)

    def come_back(self) -> None:
        """For good."""
        self._process.wait(20)
        self._arguments[0] = str(10**9)
        self._process = self._start()

    def supervise(self) -> None:
        """From now on it comes back each time, as it was."""
        self._supervisor.start()

    def _come_back_each_time(self) -> None:
        while not self._closing.wait(0.01):
            if self._process.poll() is not None:
                self._process = self._start()

    def close(self) -> None:
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        self.num_lives += 1
        script = SERVER.format(tests=str(Path(__file__).parents[2]), text=GOOD.format(1))
        command = [sys.executable, "-c", script, str(self.port), *self._arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.stdout.close()
        return process


@contextmanager
def mortal(num_answers: int, poison: str = "") -> Iterator[Mortal]:
    server = Mortal(num_answers, poison)
    try:
        yield server
    finally:
        server.close()


def model(base_url: str, **changes: Any) -> dict[str, Any]:
    table = {"base_url": base_url, "model": "m", "max_attempts": 3, "backoff_s": 0.02, "timeout_s": 5.0}
    return table | {"concurrency": 8} | changes


def teach(store: Store, base_url: str, num_samples: int = 1, ask_in_doubt: bool = True, **changes: Any) -> None:
    table = {"teacher": model(base_url, **changes), "num_samples": num_samples, "ask_in_doubt": ask_in_doubt}
    run_teach(store, build_config(TeachRecipe, table, (), source="test"), Part())


def rate(store: Store, base_url: str) -> None:
    table = {"models": [model(base_url)], "num_samples": 2, "wave": 2, "ask_in_doubt": True}
    run_difficulty(store, build_config(DifficultyRecipe, table, (), source="test"), Part())


def pair(store: Store, base_url: str) -> None:
    run_step(store, Scripted("split", lambda row: kept(row, split="alignment")))
    table = {"model": model(base_url), "num_samples": 1, "ask_in_doubt": True}
    run_pairs(store, build_config(PairsRecipe, table, (), source="test"), Part())


@pytest.mark.parametrize(("name", "ask"), [("teach", teach), ("difficulty", rate), ("pairs", pair)])
def test_a_server_that_ends_in_the_middle_of_a_run_costs_no_row(
    store: Store, name: str, ask: Callable[[Store, str], None]
) -> None:
    fill(store, made(60))
    with mortal(num_answers=25) as server:
        with pytest.raises(RolloutError, match="still failing after 3 attempts: no connection"):
            ask(store, server.base_url)
        funnel = count_step(store, name)
        assert 0 < funnel.num_kept <= 25 and funnel.num_kept + funnel.num_pending == 60
        server.come_back()
        ask(store, server.base_url)
    assert count_step(store, name).num_kept == 60


def test_a_server_that_comes_back_within_the_attempts_is_not_noticed(store: Store) -> None:
    fill(store, made(60))
    with mortal(num_answers=25) as server:
        helper = threading.Thread(target=server.come_back)
        helper.start()
        teach(store, server.base_url, max_attempts=12, backoff_s=0.05)
        helper.join()
    assert server.num_lives == 2 and count_step(store, "teach").num_kept == 60


def test_a_request_that_ends_the_server_each_time_ends_no_other_row_and_no_run_goes_on_for_ever(store: Store) -> None:
    fill(store, made(12))
    with mortal(num_answers=10**9, poison="What is 3 + 3?") as server:
        server.supervise()
        for _ in range(
            12
        ):  # a run ends by itself, and rows that were under way with row 3 may have to wait for the next
            try:
                teach(store, server.base_url, concurrency=2, max_attempts=6, backoff_s=0.1)
            except RolloutError as error:
                assert "still failing after 6 attempts" in str(error)
            if count_step(store, "teach").num_kept == 11:
                break
        assert server.num_lives > 3
    outcomes = {outcome.row_id: outcome for outcome in store.outcomes("teach")}
    assert sum(outcome.status == "kept" for outcome in outcomes.values()) == 11
    assert "made/3" not in outcomes or outcomes["made/3"].findings["unanswered"] == 1


CRASH = refusal(500, "crash")


def number(received: Received) -> str:
    return received.question.split("What is ")[1].split()[0]


def failing(*numbers: str, reply: Reply = CRASH) -> Answer:
    """Answers all rows but those of `numbers`, and these later than the others."""
    fault = replace(reply, delay_s=0.3)
    return lambda received: fault if number(received) in numbers else completion(GOOD.format(1))


def outcomes_of(store: Store, step: str) -> dict[str, Outcome]:
    return {outcome.row_id: outcome for outcome in store.outcomes(step)}


@pytest.mark.parametrize("reply", [CRASH, refusal(503, "busy"), Reply(b"{}"), Reply(b"{}", cut=True)])
def test_what_nobody_answered_while_others_were_is_told_and_asked_again_by_the_same_command(
    store: Store, capsys: pytest.CaptureFixture[str], reply: Reply
) -> None:
    fill(store, made(8))
    with serving(failing("3", reply=reply)) as stub:
        teach(store, stub.base_url)
    assert (
        "teach: 1 rows have requests that nobody answered; the same command sends these again"
        in capsys.readouterr().err
    )
    dropped = outcomes_of(store, "teach")["made/3"]
    assert dropped.status == "dropped" and dropped.findings["unanswered"] == 1
    assert count_step(store, "teach").num_pending == 0  # one such request keeps nobody from exporting
    with serving(failing(reply=reply)) as stub:
        teach(store, stub.base_url)
        assert len(stub.received) == 1
        teach(store, stub.base_url)
        assert len(stub.received) == 1
    assert count_step(store, "teach").num_kept == 8 and "nobody answered" not in capsys.readouterr().err


def test_where_it_fails_again_what_was_known_stays(store: Store) -> None:
    """Also alone, where nobody can tell whose matter it is."""
    fill(store, made(8))
    second = 0

    def answer(received: Received) -> Reply:
        nonlocal second
        second += number(received) == "3"
        is_fine = number(received) != "3" or second == 1
        return completion(GOOD.format(1)) if is_fine else replace(CRASH, delay_s=0.3)

    with serving(answer) as stub:
        teach(store, stub.base_url, num_samples=2)
        first = outcomes_of(store, "teach")["made/3"]
        assert first.findings["unanswered"] == 1 and len(first.findings["samples"]) == 1
        run_step(store, Scripted("behind"))
        with pytest.raises(RolloutError, match="still failing after 3 attempts: status 500"):
            teach(store, stub.base_url, num_samples=2)
        assert outcomes_of(store, "teach")["made/3"] == first and count_step(store, "behind").num_kept == 8
        # Beside others that are answered it has the same outcome again, and what followed from it stays.
        fill(store, made(3, "more"), "more")
        teach(store, stub.base_url, num_samples=2)
        assert outcomes_of(store, "teach")["made/3"] == first
        assert (count_step(store, "behind").num_kept, count_step(store, "behind").num_pending) == (8, 3)
    with serving(failing()) as stub:
        teach(store, stub.base_url, num_samples=2)
    assert len(outcomes_of(store, "teach")["made/3"].findings["samples"]) == 2
    assert (count_step(store, "behind").num_kept, count_step(store, "behind").num_pending) == (7, 4)


def test_refused_requests_drop_their_row_for_good(store: Store) -> None:
    fill(store, made(8))
    with serving(failing("3", reply=refusal(400, "no"))) as stub:
        for _ in range(2):
            teach(store, stub.base_url)
        assert len(stub.received) == 8
    assert outcomes_of(store, "teach")["made/3"].findings == {"failures": {"request failed: refused request": 1}}


def test_what_is_in_doubt_is_asked_again_only_if_that_is_allowed(store: Store) -> None:
    fill(store, made(8))
    with serving(failing("3", reply=Reply(completion("x").body, cut=True))) as stub:
        for _ in range(2):
            teach(store, stub.base_url, ask_in_doubt=False)
        assert len(stub.received) == 8
    assert outcomes_of(store, "teach")["made/3"].findings.keys() == {"failures", "in_doubt"}


def test_pass_rates_and_rollouts_that_nobody_answered_are_asked_for_again(store: Store) -> None:
    fill(store, made(8))
    with serving(failing("3")) as stub:
        rate(store, stub.base_url)
    outcome = outcomes_of(store, "difficulty")["made/3"]
    assert (outcome.reason, outcome.findings["unanswered"]) == ("too many samples cannot be verified", 2)
    with serving(failing("5")) as stub:
        rate(store, stub.base_url)
        assert len(stub.received) == 2 and outcomes_of(store, "difficulty")["made/3"].findings["set"] == "hard"
        pair(store, stub.base_url)
    outcome = outcomes_of(store, "pairs")["made/5"]
    assert (outcome.reason, outcome.findings) == (
        "no rollout is valid: request failed: server error",
        {"unanswered": 1},
    )
    with serving(failing()) as stub:
        pair(store, stub.base_url)
        assert len(stub.received) == 1 and count_step(store, "pairs").num_kept == 8


def test_a_judge_that_did_not_answer_is_asked_again(store: Store) -> None:
    rows = [Row(f"made/{n}", Prompt(str(n), f"Item {n}?", answer=UNREADABLE), GOOD.format("x^2 + 1")) for n in range(8)]
    fill(store, rows)

    def verify(base_url: str) -> dict[str, Outcome]:
        recipe = build_config(VerifyRecipe, {"judge": model(base_url), "ask_in_doubt": True}, (), source="test")
        run_verify(store, recipe, Part())
        return outcomes_of(store, "verify")

    def answer(received: Received) -> Reply:
        is_bad = "Item 3?" in received.question
        return replace(CRASH, delay_s=0.3) if is_bad else completion("correct")

    with serving(answer) as stub:
        found = verify(stub.base_url)
    assert (found["made/3"].reason, found["made/3"].findings["unanswered"]) == ("judge failed: server error", 1)
    with serving(lambda received: completion("correct")) as stub:
        assert {outcome.status for outcome in verify(stub.base_url).values()} == {"kept"} and len(stub.received) == 1
