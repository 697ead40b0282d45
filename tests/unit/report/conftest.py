"""A made-up run directory that looks like a real one: curves that close, seeds that differ, files in the layout."""

import json
import math
import random
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = {
    "color": "in-distribution",
    "count": "in-distribution",
    "position": "in-distribution",
    "chart": "out-of-distribution",
    "compare": "out-of-distribution",
    "large-grid": "out-of-distribution",
}
EVALUATED = ("base", "sft", "sft-grpo", "align", "prism-grpo", "prism-dapo", "prism-gspo")
STAGES = (*EVALUATED[:2], "warmup", *EVALUATED[2:])
SKILL: dict[str, float] = dict(zip(EVALUATED, (0.55, 0.42, 0.58, 0.47, 0.66, 0.64, 0.62), strict=True))
TEACHER = {"num_steps": {"3": 90, "4": 160, "5": 110, "6": 40}, "num_items": {"8": 60, "9": 340}}
ALIGN_STEPS, RLVR_STEPS = 40, 60

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> & https://evil.example/'

RECIPE = {
    "name": "tiny-world",
    "seeds": [0, 1, 2],
    "data": {"type": "world"},
    "base": {"type": "tiny", "source": "pretrain"},
    "sft": {"num_steps": 300},
    "warmup": {"num_steps": 16},
    "align": {"num_steps": ALIGN_STEPS},
    "rlvr": {
        "num_steps": RLVR_STEPS,
        "algorithms": [{"type": "grpo"}, {"type": "dapo", "overlong_buffer": 64}, {"type": "gspo"}],
    },
    "evaluation": {"num_samples": 2},
}

Row = dict[str, Any]


def png(size: int, shade: int) -> bytes:
    """A grey-level PNG of the given size with a bright square in it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def pixel(x: int, y: int) -> bytes:
        inside = size // 4 <= x < size // 2 and size // 4 <= y < 3 * size // 4
        return bytes((230, 120, 40)) if inside else bytes((shade, shade, 200))

    rows = b"".join(b"\0" + b"".join(pixel(x, y) for x in range(size)) for y in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def interval(values: Sequence[float]) -> Row:
    if not values:
        return {"mean": None, "low": None, "high": None, "count": 0}
    mean = sum(values) / len(values)
    margin = 1.96 * math.sqrt(mean * (1 - mean) / len(values))
    return {"mean": mean, "low": max(0.0, mean - margin), "high": min(1.0, mean + margin), "count": len(values)}


def macro(intervals: Sequence[Row]) -> Row:
    mean = sum(entry["mean"] for entry in intervals) / len(intervals)
    below = math.hypot(*(entry["mean"] - entry["low"] for entry in intervals)) / len(intervals)
    above = math.hypot(*(entry["high"] - entry["mean"] for entry in intervals)) / len(intervals)
    return {"mean": mean, "low": mean - below, "high": mean + above, "count": sum(e["count"] for e in intervals)}


def make_items(stage: str, seed: int, *, per_benchmark: int) -> list[Row]:
    rng = random.Random(f"{stage}/{seed}")
    rows = []
    for benchmark, group in BENCHMARKS.items():
        skill = SKILL[stage] - (0.12 if group == "out-of-distribution" else 0) + rng.uniform(-0.04, 0.04)
        for index in range(per_benchmark):
            difficulty = random.Random(f"{benchmark}/{index}").uniform(-0.3, 0.3)
            for mode, sample in (("greedy", 0), ("sampled", 0), ("sampled", 1)):
                rows.append(make_item(rng, stage, benchmark, group, index, mode, sample, skill + difficulty))
    return rows


def make_item(
    rng: random.Random, stage: str, benchmark: str, group: str, index: int, mode: str, sample: int, skill: float
) -> Row:
    is_sharp = stage in ("align", "prism-grpo", "prism-dapo", "prism-gspo") or (mode == "greedy" and stage != "base")
    is_valid = rng.random() < (0.98 if is_sharp else 0.86)
    fraction = min(1.0, max(0.0, rng.gauss(0.93 if is_sharp else 0.7, 0.12))) if is_valid else None
    steps = (
        rng.choices((3, 4, 5, 6), (9, 16, 11, 4))[0] if is_sharp else rng.choices((1, 2, 3, 4, 9), (5, 6, 4, 2, 1))[0]
    )
    return {
        "benchmark": benchmark,
        "group": group,
        "item_id": f"{benchmark}-{index}",
        "mode": mode,
        "sample": sample,
        "verdict": "correct" if is_valid and rng.random() < skill else "wrong",
        "is_valid": is_valid,
        "caption_fraction": fraction,
        "is_caption_exact": None if fraction is None else fraction > 0.95,
        "num_steps": steps if is_valid else None,
        "num_items": (rng.choice((8, 9, 9, 9)) if is_sharp else rng.choice((5, 6, 7, 8, 9, 9, 10)))
        if is_valid
        else None,
        "num_tokens": rng.randint(60, 180),
        "response": HOSTILE,
    }


METRICS = {
    "accuracy": lambda row: float(row["verdict"] == "correct"),
    "caption_exact": lambda row: row["is_caption_exact"],
    "caption_fraction": lambda row: row["caption_fraction"],
    "valid": lambda row: float(row["is_valid"]),
}


def summarise(stage: str, rows: Sequence[Row]) -> Row:
    """The summary a run writes: means over items of the mean over samples, averages over benchmarks."""

    def measure(benchmark: str, mode: str, metric: str) -> Row:
        by_item: dict[str, list[float]] = {}
        for row in rows:
            if (row["benchmark"], row["mode"]) == (benchmark, mode) and METRICS[metric](row) is not None:
                by_item.setdefault(row["item_id"], []).append(float(METRICS[metric](row)))
        return interval([sum(values) / len(values) for values in by_item.values()])

    benchmarks: Row = {
        name: {"group": group} | {mode: {m: measure(name, mode, m) for m in METRICS} for mode in ("greedy", "sampled")}
        for name, group in BENCHMARKS.items()
    }
    average: Row = {}
    for scope in ("in-distribution", "out-of-distribution", "all"):
        members = [entry for entry in benchmarks.values() if scope in ("all", entry["group"])]
        average[scope] = {
            mode: {m: macro([entry[mode][m] for entry in members]) for m in METRICS} for mode in ("greedy", "sampled")
        }
    return {
        "checkpoint": f"{stage}/model",
        "checkpoint_sha256": "ab" * 32,
        "num_items": len({row["item_id"] for row in rows}),
        "benchmarks": benchmarks,
        "average": average,
        "distribution": {"num_steps": {}, "num_items": {}, "num_tokens": []},
    }


def closing(rng: random.Random, step: int, *, start: float, end: float, scale: float, noise: float) -> float:
    return end + (start - end) * math.exp(-step / scale) + rng.gauss(0, noise)


def make_metrics(stage: str, seed: int) -> list[Row]:
    rng = random.Random(f"metrics/{stage}/{seed}")
    if stage in ("base", "sft"):
        return [supervised_row(rng, step) for step in range(1, 301, 5)]
    if stage == "warmup":
        return [warmup_row(rng, step) for step in range(1, 17)]
    if stage == "align":
        return [align_row(rng, step) for step in range(1, ALIGN_STEPS + 1)]
    steps = RLVR_STEPS + (ALIGN_STEPS if stage.startswith("sft") else 0)
    return [rlvr_row(rng, stage, step) for step in range(1, steps + 1)]


def supervised_row(rng: random.Random, step: int) -> Row:
    row: Row = {"step": step, "loss/nll": closing(rng, step, start=3.2, end=0.31, scale=40, noise=0.02)}
    if step % 50 == 1:
        row["loss/dev_nll"] = closing(rng, step, start=3.2, end=0.36, scale=40, noise=0.01)
    return row


def warmup_row(rng: random.Random, step: int) -> Row:
    return {
        "step": step,
        "loss/perception": closing(rng, step, start=0.7, end=0.2, scale=5, noise=0.02),
        "loss/reasoning": closing(rng, step, start=0.7, end=0.3, scale=6, noise=0.02),
        "loss/balance": closing(rng, step, start=2.3, end=2.02, scale=4, noise=0.02),
        "heldout/perception_accuracy": min(1.0, closing(rng, step, start=0.5, end=0.9, scale=4, noise=0.02)),
        "heldout/reasoning_accuracy": min(1.0, closing(rng, step, start=0.5, end=0.8, scale=5, noise=0.02)),
        "heldout/count": 64,
    }


def align_row(rng: random.Random, step: int) -> Row:
    is_missing = step in (17, 18)
    return {
        "step": step,
        "gap/perception": closing(rng, step, start=1.5, end=0.5, scale=14, noise=0.06),
        "gap/reasoning": 0.5 + 0.5 * math.sin(step / 9) * math.exp(-step / 40) + rng.gauss(0, 0.06),
        "accuracy/perception": None if is_missing else closing(rng, step, start=0.92, end=0.62, scale=15, noise=0.03),
        "accuracy/reasoning": None if is_missing else closing(rng, step, start=0.8, end=0.68, scale=15, noise=0.03),
        "accuracy/count": 0 if is_missing else rng.randint(50, 64),
        "rollout/valid_fraction": min(1.0, closing(rng, step, start=0.8, end=0.99, scale=10, noise=0.01)),
        "rollout/length": closing(rng, step, start=95, end=140, scale=12, noise=3),
        "rollout/entropy": closing(rng, step, start=0.18, end=0.12, scale=20, noise=0.004),
        "reward/accuracy": closing(rng, step, start=0.4, end=0.5, scale=20, noise=0.03),
        "policy/clip_fraction": abs(rng.gauss(0.01, 0.004)),
        "loss/policy": rng.gauss(0, 0.02),
    }


def rlvr_row(rng: random.Random, stage: str, step: int) -> Row:
    start = 0.5 if stage.startswith("prism") else 0.4
    accuracy = closing(rng, step, start=start, end=start + 0.2, scale=30, noise=0.03)
    valid = min(1.0, closing(rng, step, start=0.9, end=1.0, scale=8, noise=0.01))
    length = (140, 120) if stage.startswith("prism") else (95, 70)
    return {
        "step": step,
        "reward/accuracy": accuracy,
        "reward/format": valid,
        "reward/total": 0.8 * accuracy + 0.2 * valid,
        "rollout/valid_fraction": valid,
        "rollout/length": closing(rng, step, start=length[0], end=length[1], scale=25, noise=2),
        "rollout/entropy": closing(rng, step, start=0.12, end=0.06, scale=25, noise=0.004),
        "policy/grad_norm": abs(rng.gauss(0.4, 0.1)),
    }


def make_samples(stage: str, seed: int) -> list[Row]:
    caption = (
        "row 1: a red circle, a blue square, nothing\nrow 2: nothing, a green triangle, a red square\nrow 3: nothing"
    )
    think = "1. Red: a circle in row 1 and a square in row 2.\n2. That makes two red things.\n3. So the answer is 2."
    valid = f"<caption>{caption}</caption>\n<think>{think}</think>\n<answer>2</answer>"
    rows = []
    for step in (20, 40):
        for index in range(4):
            is_valid = index != 2
            rows.append(
                {
                    "step": step,
                    "prompt_id": f"p{index}",
                    "question": "<image>How many red things are there?" if index else f"Is it {HOSTILE}?",
                    "image": f"seed-{seed}/images/{index}.png",
                    "answer": "2",
                    "response": valid if is_valid else f"<caption>no end {HOSTILE}",
                    "reward": 1.0 if is_valid else -1.25,
                    "scores": {"perception": 0.42, "reasoning": -0.13} if stage == "align" else None,
                    "is_valid": is_valid,
                }
            )
    return rows


def write_stage(run: Path, seed: int, name: str, *, per_benchmark: int = 20, status: str = "complete") -> Path:
    path = run / f"seed-{seed}" / name
    kind = name if "-" not in name else "rlvr"
    manifest = {
        "name": name,
        "kind": kind,
        "status": status,
        "config": {},
        "config_hash": "cd" * 32,
        "inputs": {"data/test.parquet": "ef" * 32},
        "code_version": "0.1.0+g1a2b3c4",
        "outputs": {},
    }
    write_json(path / "manifest.json", manifest)
    write_jsonl(path / "metrics.jsonl", make_metrics(name, seed))
    timings = [{"step": step, "time/step_seconds": 2 + 0.1 * (step % 3)} for step in range(1, 20)]
    write_jsonl(path / "timings.jsonl", timings)
    if kind in ("align", "rlvr"):
        write_jsonl(path / "samples.jsonl", make_samples(name, seed))
    if name in SKILL and status == "complete":
        rows = make_items(name, seed, per_benchmark=per_benchmark)
        write_jsonl(path / "evaluation" / "items.jsonl", rows)
        write_json(path / "evaluation" / "summary.json", summarise(name, rows))
    return path


def write_run(
    root: Path, *, seeds: Sequence[int] = (0, 1), stages: Sequence[str] = STAGES, per_benchmark: int = 20
) -> Path:
    write_json(root / "recipe.json", {**RECIPE, "seeds": list(seeds)})
    for seed in seeds:
        write_json(root / f"seed-{seed}" / "data" / "teacher_distribution.json", TEACHER)
        images = root / f"seed-{seed}" / "images"
        images.mkdir(parents=True)
        for index in range(4):
            (images / f"{index}.png").write_bytes(png(48, 60 + 40 * index))
        for name in stages:
            write_stage(root, seed, name, per_benchmark=per_benchmark)
    return root


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, every stage; read only."""
    return write_run(tmp_path_factory.mktemp("full-run"))


@pytest.fixture(scope="session")
def single_seed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed, every stage; read only."""
    return write_run(tmp_path_factory.mktemp("single-seed-run"), seeds=(0,))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run` into a directory of the test's own."""

    def make(**options: Any) -> Path:
        return write_run(tmp_path / "run", **options)

    return make


@pytest.fixture
def add_stage() -> Callable[..., Path]:
    """`write_stage`: one more stage in a run directory."""
    return write_stage


@pytest.fixture
def hostile() -> str:
    """Text that every sample and every graded response of the made-up runs holds."""
    return HOSTILE
