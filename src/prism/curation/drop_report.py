"""What steps dropped, with examples of every reason, for a person to judge the rules by."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prism.curation.funnel import count_step
from prism.curation.store import Store
from prism.runtime.atomic import write_json

NUM_EXAMPLES = 20
"""Of each reason."""


def write_drop_report(store: Store, steps: Iterable[str], path: Path) -> None:
    """JSON: of each step its counts and, by reason, the first examples with their detail and evidence.

    Raises DataError for a step that has not run, StorageError.
    """
    write_json(path, {step: asdict(count_step(store, step)) | {"examples": _examples(store, step)} for step in steps})


def _examples(store: Store, step: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for outcome in store.outcomes(step):
        examples = found[outcome.reason or ""]
        if outcome.status == "dropped" and len(examples) < NUM_EXAMPLES:
            examples.append({"id": outcome.row_id, "detail": outcome.detail, "evidence": dict(outcome.findings)})
    return {reason: examples for reason, examples in found.items() if examples}
