"""Rollout servers in real processes: what they sample, which weights they have, and what happens when they go."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pictures import picture
from prism.config import ServedRollout
from prism.errors import ConfigError, RolloutError
from prism.models import PromptEncoder, checkpoint_weights, load_policy
from prism.records import Prompt, RolloutGroup
from prism.rollout.sampling import Sampling
from prism.rollout.served_engine import ServedEngine
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages.workspace import SHIPPED_BASE

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
SAMPLING = Sampling(1.0, 16)


class Served:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(*options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "prism", "serve", str(SHIPPED_BASE), "rollout.type=transformers", *options]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:3] == ["serving", "rollouts", "at"], words
        yield Served(process, words[3])
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Served]]:
    with serving("--port", "0", "max_length=400") as first, serving("--port", "0", "max_length=400") as second:
        yield [first, second]


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder.from_pretrained(SHIPPED_BASE)


@pytest.fixture
def policy() -> Any:
    """Less sure of every token than the shipped one, so that a wrong weight shows."""
    loaded: Any = load_policy(SHIPPED_BASE)
    with torch.no_grad():
        loaded.model.language_model.norm.weight *= 0.35
    return loaded


PROMPTS = [
    Prompt("none", "How many red objects are there?"),
    Prompt("one", "<image>What is in row 1, column 2?", (picture(2, 3, 1),), answer="not sent", kind="k"),
    Prompt("none", "How many red objects are there?"),
    Prompt("two", "<image>Like<image>that?", (picture(3, 3, 2), picture(1, 2, 3)), system="Be brief."),
    Prompt("tall", "Describe.", (picture(4, 1, 4),)),
]


def engine_of(*servers: Served, max_length: int = 300) -> ServedEngine:
    return ServedEngine(ServedRollout(base_urls=tuple(server.url for server in servers)), max_length=max_length)


def tokens_of(groups: Sequence[RolloutGroup]) -> list[list[tuple[int, ...]]]:
    return [[rollout.token_ids for rollout in group.rollouts] for group in groups]


def test_servers_sample_what_the_policy_itself_would(
    servers: list[Served], policy: Any, encoder: PromptEncoder
) -> None:
    own = TransformersEngine(policy, encoder)
    for engine in (engine_of(servers[0]), engine_of(*servers)):
        seen = []
        for step in range(2):
            engine.update_weights(checkpoint_weights(policy))
            groups = engine.generate(PROMPTS, num_samples=3, sampling=SAMPLING, seed=step)
            expected = own.generate(PROMPTS, num_samples=3, sampling=SAMPLING, seed=step)
            assert groups == expected
            seen.append(tokens_of(engine.generate(PROMPTS, num_samples=3, sampling=SAMPLING, seed=0)))
            with torch.no_grad():
                policy.model.visual.patch_embed.proj.weight *= 1.5
            engine.sleep()
        assert seen[0] != seen[1]
        assert seen[0][0] == seen[1][0]  # a prompt without an image does not see the change


def test_weights_that_are_not_the_models_are_refused_and_nothing_is_sampled_from_them(
    servers: list[Served], policy: Any
) -> None:
    engine = engine_of(*servers)
    weights = dict(checkpoint_weights(policy))
    name, tensor = next(iter(weights.items()))
    for wrong in (weights | {"model.no_such.weight": tensor}, {k: v for k, v in weights.items() if k != name}):
        with pytest.raises(RolloutError, match=servers[0].url):
            engine.update_weights(wrong.items())
        with pytest.raises(RolloutError, match="are not those that this run gave it"):
            engine.generate(PROMPTS[:1], num_samples=1, sampling=SAMPLING, seed=0)
    engine.update_weights(weights.items())
    assert engine.generate(PROMPTS[:1], num_samples=1, sampling=SAMPLING, seed=0)


def test_a_server_that_serves_two_runs_is_found_out(servers: list[Served], policy: Any) -> None:
    first, second = engine_of(servers[0]), engine_of(servers[0])
    first.update_weights(checkpoint_weights(policy))
    second.update_weights(checkpoint_weights(policy))
    assert second.generate(PROMPTS[:1], num_samples=1, sampling=SAMPLING, seed=0)
    with pytest.raises(RolloutError, match="serves another run as well"):
        first.generate(PROMPTS[:1], num_samples=1, sampling=SAMPLING, seed=0)


def test_what_is_wrong_is_said_with_the_address(servers: list[Served]) -> None:
    with pytest.raises(ConfigError, match=f"{servers[0].url}: takes sequences of 400 tokens.*max_length=500"):
        engine_of(servers[0], max_length=500)
    with pytest.raises(
        ConfigError, match=f"{servers[0].url}: has max_pixels=none, the recipe 5000: start it with max_p"
    ):
        ServedEngine(ServedRollout(base_urls=(servers[0].url,)), max_length=300, max_pixels=5000)
    with serving("--port", "0") as gone:
        gone.kill()
    with pytest.raises(ConfigError, match=f"{gone.url}: the rollout server does not answer.*prism serve"):
        engine_of(gone)
    with pytest.raises(ValueError, match="must name each server once"):
        engine_of(servers[0], servers[0])
    with pytest.raises(ConfigError, match="is no web address"):
        ServedEngine(ServedRollout(base_urls=("node7:8765",)), max_length=1)


def test_several_processes_share_servers(servers: list[Served]) -> None:
    alone = engine_of(*servers)
    alone.update_weights(checkpoint_weights(load_policy(SHIPPED_BASE)))
    prompts = [Prompt(str(number), f"How many are {number} and {number}?") for number in range(5)]
    expected = tokens_of(alone.generate(prompts, num_samples=2, sampling=Sampling(1.0, 12), seed=3))
    program = str(Path(__file__).with_name("served_trainer.py"))
    one, both = servers[0].url, ",".join(server.url for server in servers)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", program, one, both]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {(urls, index): tokens for urls, index, tokens in map(json.loads, done.stdout.splitlines())}
    tokens = [[list(ids) for ids in group] for group in expected]
    assert found == dict.fromkeys([(one, 0), (one, 1), (both, 0), (both, 1)], tokens)


def test_a_run_is_the_same_with_a_server_and_ends_when_that_dies(servers: list[Served], tmp_path: Path) -> None:
    def run(name: str, *overrides: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
        rollout = f'rollout={{type="served", base_urls=["{url}"]}}' if url else "rollout.batch_size=24"
        command = [sys.executable, "-m", "prism", "run", str(Path(__file__).with_name("micro.toml")), "name=" + name]
        command += [
            "sft.num_steps=2",
            "warmup=none",
            "align=none",
            'rlvr.algorithms=[{type="grpo"}]',
            "evaluation=none",
        ]
        command += ["rlvr.num_steps=2", "rlvr.max_response_tokens=60", "rollout=none", rollout, *overrides]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path, timeout=400)

    for name, url in (("alone", None), ("served", servers[0].url)):
        done = run(name, url=url)
        assert done.returncode == 0, done.stderr
    metrics = [
        (tmp_path / "runs" / name / "seed-0" / "sft-grpo" / "metrics.jsonl").read_text() for name in ("alone", "served")
    ]
    assert metrics[0] == metrics[1]
    with serving("--port", "0") as gone:
        gone.kill()
    done = run("served", "rlvr.num_steps=4", url=gone.url)
    assert done.returncode == 2 and gone.url in done.stderr
