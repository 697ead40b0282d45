"""Problems of the world taught over real HTTP by a teacher that fails in every way, in processes that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curated_world import Teacher, teaching, world_store
from prism.curation import Store, count_step
from prism.curation.spending import read_ledger
from prism.rewards import parse_response

RATES = {
    "429": 0.02,
    "500": 0.03,
    "timeout": 0.002,
    "cut": 0.02,
    "gateway": 0.01,
    "malformed": 0.05,
    "wrong": 0.1,
    "refusal": 0.03,
    "filtered": 0.01,
    "safety": 0.01,
    "truncated": 0.02,
    "slow": 0.02,
    "400": 0.01,
}
MEANING = {
    "429": "rate limit",
    "500": "server error",
    "timeout": "time-out",
    "cut": "cut",
    "gateway": "time-out",
    "400": "refused request",
} | dict.fromkeys(("ok", "malformed", "wrong", "refusal", "filtered", "safety", "truncated", "slow"), "answered")
PRICE = {"prompt": 0.5, "completion": 3.0}
CONCURRENCY, MAX_TOKENS = 32, 1024
RECIPE = f"""
num_samples = 2
max_response_tokens = {MAX_TOKENS}
[teacher]
base_url = "set by the test"
model = "scripted"
concurrency = {CONCURRENCY}
timeout_s = 6.0
backoff_s = 0.05
[budget]
price = {{ prompt = {PRICE["prompt"]}, completion = {PRICE["completion"]} }}
"""


def start(store: Store, teacher: Teacher, *overrides: str) -> subprocess.Popen[str]:
    recipe = store.directory.parent / "teach.toml"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "prism", "data", "teach", str(store.directory), str(recipe)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, f"teacher.base_url={teacher.base_url}", *overrides],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], teacher: Teacher, num_requests: int) -> None:
    """When the server has had so many more requests."""
    target = teacher.count() + num_requests
    while teacher.count() < target:
        assert process.poll() is None, process.communicate()
        time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def cost_of(entries: list[dict[str, Any]]) -> float:
    tokens = [(entry.get("prompt_tokens", 0), entry.get("completion_tokens", 0)) for entry in entries]
    return sum(prompt * PRICE["prompt"] + completion * PRICE["completion"] for prompt, completion in tokens) / 1e6


@pytest.mark.parametrize(
    ("num_problems", "num_kills"), [(120, 2), pytest.param(2000, 10, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_the_ledger_is_the_servers_own_log_and_nothing_is_paid_twice(
    tmp_path: Path, num_problems: int, num_kills: int
) -> None:
    store, script = world_store(tmp_path, num_problems)
    moments = random.Random(num_problems)
    with teaching(tmp_path, script, RATES) as teacher:
        for _ in range(num_kills):
            each = 2 * num_problems // (num_kills + 1)
            kill_after(start(store, teacher), teacher, moments.randint(each // 4, each))
        process = start(store, teacher)
        said, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        log = {entry["id"]: entry for entry in teacher.log()}
        assert len(log) == teacher.count()  # every request under a name of its own
    ledger = {row["name"]: dict(row) for row in read_ledger(store)}

    # To the request: the ledger has what the server saw, and else only what was begun and not sent: by processes that
    # were killed first, or, on a machine that stands still for seconds, ran out of time.
    assert log.keys() <= ledger.keys()
    in_doubt = {name for name, row in ledger.items() if row["outcome"] == "in doubt"}
    assert len(in_doubt) <= num_kills * CONCURRENCY
    assert {ledger[name]["outcome"] for name in ledger.keys() - log.keys()} <= {"in doubt", "time-out"}
    for name in log.keys() - in_doubt:
        row, entry = ledger[name], log[name]
        assert row["outcome"] == MEANING[entry["does"]], (row, entry)
        if row["outcome"] == "answered":
            assert (row["prompt_tokens"], row["completion_tokens"]) == (100, entry["completion_tokens"])
            assert not row["is_estimate"]
    assert sum(row["cost"] for row in ledger.values()) >= cost_of(list(log.values()))

    # No request is paid for twice: neither what was answered nor what got lost on its way.
    paid = Counter(ledger[name]["request"] for name, entry in log.items() if "completion_tokens" in entry)
    assert len(paid) > num_problems and max(paid.values()) == 1

    funnel = count_step(store, "teach")
    assert funnel.num_in == num_problems and funnel.num_pending == 0
    check_samples(store, script)
    assert f"teach: {num_problems:,} in" in said and "requests:" in said


def check_samples(store: Store, script: Path) -> None:
    """Every sample kept is the teacher's, word for word, but for those it got wrong on purpose."""
    written = set(json.loads(script.read_text()).values())
    num_wrong = num_samples = 0
    for row in store.rows():
        for sample in row.findings["teach"]["samples"]:
            assert parse_response(sample["text"]).is_valid
            num_samples += 1
            num_wrong += "<answer>99999</answer>" in sample["text"]
            assert "99999" in sample["text"] or sample["text"] in written
    assert 0.04 < num_wrong / num_samples < 0.2


def test_the_budget_is_not_passed(tmp_path: Path) -> None:
    store, script = world_store(tmp_path, 80)
    with teaching(tmp_path, script, RATES) as teacher:
        for max_cost in (0.04, 0.06):
            process = start(store, teacher, f"budget.max_cost={max_cost}")
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 2 and "budget is spent" in errors
            spent = cost_of(teacher.log())
            # Short of it by no more than requests that may still cost their most, or were thought to have.
            assert max_cost / 3 < spent <= max_cost
        assert count_step(store, "teach").num_pending > 0
