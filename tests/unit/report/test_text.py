"""The table at the end of a run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from prism.report import print_results_table


def test_it_holds_the_numbers_of_the_summaries(single_seed_run: Path) -> None:
    text = print_results_table(single_seed_run)
    assert max(map(len, text.splitlines())) <= 120
    for stage, title in (("base", "Base"), ("sft-grpo", "SFT → GRPO"), ("prism-dapo", "PRISM → DAPO")):
        path = single_seed_run / "seed-0" / stage / "evaluation" / "summary.json"
        average = json.loads(path.read_text())["average"]
        greedy, sampled = [line for line in text.splitlines() if line.startswith(f"{title}  ")]
        for mode, line in (("greedy", greedy), ("sampled", sampled)):
            entries = [average[scope][mode]["accuracy"] for scope in ("in-distribution", "out-of-distribution", "all")]
            for entry in [*entries, average["all"][mode]["caption_exact"]]:
                assert f"{entry['mean'] * 100:.1f} ({entry['low'] * 100:.1f}–{entry['high'] * 100:.1f})" in line
            assert line.endswith("  120")


def test_differences_name_their_baseline(full_run: Path) -> None:
    lines = print_results_table(full_run).splitlines()
    (first, second) = [line for line in lines if line.startswith("  PRISM → GRPO − SFT → GRPO")]
    assert first.endswith("n = 240") and second.endswith("n = 240")
    assert re.search(r"[+−]\d+\.\d +\([+−]?\d+\.\d · [+−]?\d+\.\d\) +n = 240$", first), "two seeds are shown one by one"
    assert "Means over two seeds" in " ".join(lines)
    assert max(map(len, lines)) <= 120


def test_missing_stages_are_named_first(make_run: Callable[..., Path]) -> None:
    text = print_results_table(make_run(seeds=(0,), stages=("base",)))
    assert text.startswith("Missing stages: SFT (sft), ")


def test_nothing_evaluated(make_run: Callable[..., Path]) -> None:
    assert print_results_table(make_run(seeds=(0,), stages=())).endswith(
        "No checkpoint of this run has been evaluated."
    )
