"""The student's side of warm-up pairs, from a real server and from a checkpoint in this process."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curated_rows import Scripted, fill, made
from curated_world import world_store
from prism.config import PairsRecipe, build_config
from prism.curation import Outcome, Part, Row, Store, count_step, run_step
from prism.curation.pairs import run_pairs
from prism.curation.rows import kept
from prism.errors import DataError
from prism.rewards import parse_response
from prism.stages.workspace import SHIPPED_BASE
from servers.openai_stub import Received, Reply, completion, serving

VALID = "<caption>a dot</caption><think>{}</think><answer>1</answer>"


def reserve(row: Row) -> Outcome:
    return kept(row, split="sft" if row.prompt.id == "3" else "alignment")


def pair(store: Store, model: dict[str, Any], **changes: Any) -> dict[str, Outcome]:
    run_pairs(store, build_config(PairsRecipe, {"model": model} | changes, (), source="test"), Part())
    return {outcome.row_id: outcome for outcome in store.outcomes("pairs")}


def test_the_first_valid_rollout_is_the_students(store: Store) -> None:
    fill(store, made(5))
    run_step(store, Scripted("split", reserve))
    asked: Counter[str] = Counter()

    def answer(received: Received) -> Reply:
        n = received.question.split("What is ")[1].split()[0]
        asked[n] += 1
        if n == "1":
            return completion("Two.")
        if n == "2":
            return completion(VALID.format("1. Cut"), finish_reason="length")
        if n == "4":
            return completion(VALID.format("1. In <image> one."))
        return completion(VALID.format(received.body["seed"]))

    with serving(answer) as stub:
        outcomes = pair(store, {"base_url": stub.base_url, "model": "sft"}, num_samples=3)
    assert asked == {"0": 3, "1": 3, "2": 3, "4": 3}
    assert outcomes["made/0"].status == "kept" and outcomes["made/0"].findings["model"] == "sft"
    assert parse_response(outcomes["made/0"].findings["student"]).is_valid
    assert [(outcomes[f"made/{n}"].status, outcomes[f"made/{n}"].reason) for n in (1, 2, 3, 4)] == [
        ("passed", "no rollout is valid: missing_caption"),
        ("passed", "no rollout is valid: truncated"),
        ("passed", "is not reserved for alignment"),
        ("passed", "no rollout is valid: has an image mark outside the question"),
    ]


def test_a_checkpoint_of_this_process_is_sampled(tmp_path: Path) -> None:
    """The shipped base answers with a word, before it has seen demonstrations."""
    store, _ = world_store(tmp_path, 6)
    run_step(store, Scripted("split", reserve))
    model = {"type": "checkpoint", "path": str(SHIPPED_BASE), "batch_size": 8}
    outcomes = pair(store, model, max_response_tokens=24)
    assert {outcome.reason for outcome in outcomes.values()} == {"no rollout is valid: missing_caption"}
    assert count_step(store, "pairs").num_in == len(outcomes) == 6


def test_a_store_without_a_split_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="step 'split' has not run"):
        pair(store, {"base_url": "http://127.0.0.1:9", "model": "sft"})
