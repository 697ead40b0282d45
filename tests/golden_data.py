"""The golden files, as the tests read them."""

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"


def benchmark_items(benchmark: str) -> list[dict[str, Any]]:
    """Scored responses to items of one benchmark."""
    lines = (GOLDEN / "benchmark_items.jsonl").read_text(encoding="utf-8").splitlines()
    return [item for item in map(json.loads, lines) if item["benchmark"] == benchmark]


def benchmark_aggregates(benchmark: str) -> dict[str, Any]:
    """Responses to whole families of items, and the published numbers over them."""
    return json.loads((GOLDEN / "benchmark_aggregates.json").read_text(encoding="utf-8"))[benchmark]
