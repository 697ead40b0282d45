"""All seven benchmarks from local parquet files: with the tiny model, with a server over HTTP, killed and resumed."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from golden_data import benchmark_aggregates, benchmark_items
from prism.cli import main
from prism.evals.benchmarks import BENCHMARKS
from prism.evals.sources import load_rows
from prism.runtime.jsonl import read_jsonl
from servers.openai_stub import Received, Reply, Stub, completion, serving

SHIPPED = Path(__file__).parents[2] / "src" / "prism" / "assets" / "tiny-base"
IMAGE_COLUMNS = {"mathvista": "decoded_image", "mathvision": "decoded_image", "wemath": "image_path", "mmmu": "image_1"}
COMPARED = ("responses.jsonl", "scores.jsonl", "summary.json")


def picture() -> dict[str, bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), "white").save(buffer, "PNG")
    return {"bytes": buffer.getvalue()}


def golden_rows() -> dict[str, list[dict[str, Any]]]:
    """Some rows of every benchmark, both forms of MMMU-Pro and whole families of We-Math among them."""
    rows = {name: [item["row"] for item in benchmark_items(name)][::3] for name in BENCHMARKS}
    families = benchmark_aggregates("wemath")["items"]
    chosen = sorted({BENCHMARKS["wemath"].cluster(item["row"]) for item in families})[:2]
    rows["wemath"] = [item["row"] for item in families if BENCHMARKS["wemath"].cluster(item["row"]) in chosen]
    return rows


def image_column(name: str, row: dict[str, Any]) -> str:
    return "image_1" if name == "mmmu_pro" and row.get("question") else IMAGE_COLUMNS.get(name, "image")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory per benchmark with golden rows as parquet, each with an image inside."""
    for name, rows in golden_rows().items():
        directory = tmp_path / "data" / name
        directory.mkdir(parents=True)
        pictured = [row | {image_column(name, row): picture()} for row in rows]
        columns = {column: None for row in pictured for column in row}
        table = pa.Table.from_pylist([columns | row for row in pictured])
        pq.write_table(table, directory / "test.parquet")
    return tmp_path / "data"


def write_recipe(data: Path, model: str, extra: str = "") -> Path:
    benchmarks = "\n".join(f'[[benchmarks]]\nname = "{name}"\npath = "{data / name}"' for name in BENCHMARKS)
    path = data.parent / "evaluation.toml"
    path.write_text(
        f'name = "evaluation"\nnum_samples = 2\nmax_response_tokens = 12\npass_at = [2]\n{extra}\n'
        f"[model]\n{model}\n{benchmarks}\n"
    )
    return path


def answer(received: Received) -> Reply:
    """A letter that follows from the request alone, in the format; slow enough to be killed in between."""
    letter = "ABCD"[int(hashlib.sha256(json.dumps(received.body).encode()).hexdigest(), 16) % 4]
    reply = completion(f"<caption>a</caption><think>b</think><answer>{letter}</answer>", tokens=9)
    return Reply(reply.body, delay_s=0.02)


@pytest.fixture
def server() -> Iterator[Stub]:
    with serving(answer, models=[{"id": "m", "root": "/weights"}]) as stub:
        yield stub


def served(stub: Stub) -> str:
    return f'type = "server"\nbase_url = "{stub.base_url}"\nmodel = "m"\nbatch_size = 4\nconcurrency = 4'


def contents(directory: Path) -> dict[str, bytes]:
    return {f"{name}/{file}": (directory / name / file).read_bytes() for name in BENCHMARKS for file in COMPARED}


def kill_at_random(recipe: Path, output: Path, times: int) -> None:
    """Starts the evaluation `times` times and kills it at some moment of its work each time."""
    moments = random.Random(0)
    for _ in range(times):
        started = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "prism", "eval", str(recipe), f"output={output}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None:
                if any(path.stat().st_mtime > started for path in output.glob("*/responses.jsonl")):
                    time.sleep(moments.uniform(0, 0.6))
                    break
                time.sleep(0.02)
            assert process.poll() is None, "the evaluation ended before it was killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_the_tiny_model_killed_and_resumed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(data, f'path = "{SHIPPED}"\nbatch_size = 4')
    assert main(["eval", str(recipe), f"output={data.parent / 'whole'}"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in (*BENCHMARKS, "greedy", "sampled", "strict", "prism", "average"))
    kill_at_random(recipe, data.parent / "killed", 2)
    assert main(["eval", str(recipe), f"output={data.parent / 'killed'}"]) == 0
    assert contents(data.parent / "killed") == contents(data.parent / "whole")
    for name, benchmark in BENCHMARKS.items():
        rows = load_rows(data / name, hub_id="", hub_configs=(), hub_split=benchmark.hub_split)
        responses = read_jsonl(data.parent / "whole" / name / "responses.jsonl")
        expected = {(benchmark.item_id(row.row), sample) for row in rows for sample in (0, 1)}
        assert {(r["item_id"], r["sample"]) for r in responses if r["mode"] == "sampled"} == expected
        assert all(r["num_tokens"] <= 12 for r in responses)


def test_a_server_killed_and_resumed(data: Path, server: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(data, served(server))
    assert main(["eval", str(recipe), f"output={data.parent / 'whole'}"]) == 0
    num_answers = len(server.received)
    assert num_answers == 3 * sum(len(pq.read_table(data / name)) for name in BENCHMARKS)
    server.received.clear()
    kill_at_random(recipe, data.parent / "killed", 3)
    assert main(["eval", str(recipe), f"output={data.parent / 'killed'}"]) == 0
    assert contents(data.parent / "killed") == contents(data.parent / "whole")
    assert num_answers <= len(server.received) <= num_answers + 3 * 4  # at most one batch lost at each kill
    capsys.readouterr()
    assert main(["compare", str(data.parent / "killed"), str(data.parent / "whole")]) == 0
    assert "rules alone" in capsys.readouterr().out


def test_a_judge_can_raise_and_lower_scores(data: Path, server: Stub) -> None:
    def judge(received: Received) -> Reply:
        return completion(("correct", "incorrect")[len(received.question) % 2])

    with serving(judge, models=None) as judges:
        recipe = write_recipe(data, served(server))
        recipe.write_text(recipe.read_text() + f'[judge]\nbase_url = "{judges.base_url}"\nmodel = "j"\n')
        output = data.parent / "judged"
        assert main(["eval", str(recipe), f"output={output}"]) == 0
        num_asked = len(judges.received)
        assert main(["eval", str(recipe), f"output={output}"]) == 0
        assert len(judges.received) == num_asked  # all from the log
    changes = set()
    for name in BENCHMARKS:
        for row in read_jsonl(output / name / "scores.jsonl"):
            pairs = zip(row["rules"], row["judged"], strict=True)
            changes |= {(rule["is_correct"], final["is_correct"]) for rule, final in pairs}
            assert all(final["judgement"] in ("correct", "incorrect") for final in row["judged"])
        greedy = json.loads((output / name / "summary.json").read_text())["modes"]["greedy"]
        strict = greedy["profiles"]["strict"]
        assert strict["counts"]["judge"] == greedy["num_responses"] == greedy["judge"]["num_asked"]
        assert sum(sum(row.values()) for row in strict["agreement"]["table"].values()) == greedy["num_responses"]
    assert {(True, False), (False, True)} <= changes
