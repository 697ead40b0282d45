"""From the rows of `items.jsonl` to `summary.json`: means with intervals per benchmark and averaged.

Every metric is a mean over items of the mean over each item's rows, with the interval of
`statistics.share_interval`: Wilson's where every item is right or wrong as a whole, else the item-clustered
Student-t one. Averages are macro averages over benchmarks.
A metric is taken over the rows that have it; an unverifiable answer counts as not correct, and its share
is reported beside the accuracy.

`shape` and `drift` are of the texts, per decoding mode and over all benchmarks together: `evals.shape` and
`evals.drift` define their measures.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism.errors import DataError
from prism.evals.drift import Responses, drift
from prism.evals.shape import shape
from prism.evals.statistics import Interval, macro_average, share_interval
from prism.records import Response
from prism.rewards import num_description_items, num_reasoning_steps, parse_response

GROUPS = ("in-distribution", "out-of-distribution")
MODES = ("greedy", "sampled")

Row = Mapping[str, Any]

_METRICS: dict[str, Callable[[Row], float | None]] = {
    "accuracy": lambda row: float(row["verdict"] == "correct"),
    "caption_exact": lambda row: None if row["is_caption_exact"] is None else float(row["is_caption_exact"]),
    "caption_fraction": lambda row: row["caption_fraction"],
    "valid": lambda row: float(row["is_valid"]),
    "unverifiable": lambda row: float(row["verdict"] == "unverifiable"),
}
_FIELDS = (
    "benchmark", "group", "item_id", "mode", "sample", "verdict", "is_valid", "caption_fraction", "is_caption_exact",
    "num_steps", "num_items", "num_tokens", "response",
)  # fmt: skip
_VALUES = {"group": GROUPS, "mode": MODES, "verdict": ("correct", "wrong", "unverifiable")}

Estimates = dict[str, dict[str, Interval]]
"""mode → metric → interval"""


@dataclass(frozen=True, slots=True)
class Reference:
    """The teacher's responses that drift is measured from; `source` names the prompts they answer."""

    source: str
    responses: Responses


def summarize(
    rows: Sequence[Row], *, checkpoint: str, checkpoint_sha256: str, teacher: Reference | None = None
) -> dict[str, Any]:
    """The content of `summary.json`; raises DataError naming the row and field that cannot be used.

    Without a teacher `drift` is null. `distribution` is that of the sampled rows, or of the greedy ones where
    nothing was sampled: greedy decoding hides how far a policy has drifted. `num_tokens` keeps the order of
    the rows; `teacher` has the counts of the responses that drift is measured from.
    """
    groups = _checked_groups(rows)
    by_benchmark: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_benchmark[row["benchmark"]].append(row)
    estimates = {name: _estimates(by_benchmark[name]) for name in sorted(by_benchmark)}
    return {
        "checkpoint": checkpoint,
        "checkpoint_sha256": checkpoint_sha256,
        "num_items": len({(row["benchmark"], row["item_id"]) for row in rows}),
        "benchmarks": {name: {"group": groups[name], **_as_json(found)} for name, found in estimates.items()},
        "average": {
            group: _as_json(_average([estimates[name] for name in estimates if group in ("all", groups[name])]))
            for group in (*GROUPS, "all")
        },
        "distribution": _distribution(rows, teacher),
        **_texts(rows, teacher),
    }


def _checked_groups(rows: Sequence[Row]) -> dict[str, str]:
    """The group of each benchmark, after checking every row."""
    groups: dict[str, str] = {}
    seen = set()
    for index, row in enumerate(rows):
        missing = next((field for field in _FIELDS if field not in row), None)
        if missing is not None:
            raise DataError(f"evaluation row {index}: field {missing!r} is missing")
        for field, allowed in _VALUES.items():
            if row[field] not in allowed:
                raise DataError(f"evaluation row {index}: {field!r} is {row[field]!r}, not one of {', '.join(allowed)}")
        if groups.setdefault(row["benchmark"], row["group"]) != row["group"]:
            raise DataError(f"evaluation row {index}: benchmark {row['benchmark']!r} stands in two groups")
        key = (row["benchmark"], row["item_id"], row["mode"], row["sample"])
        if key in seen:
            raise DataError(f"evaluation row {index}: item {row['item_id']!r} has two {row['mode']} rows of one sample")
        seen.add(key)
    return groups


def _estimates(rows: Iterable[Row]) -> Estimates:
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for metric, read in _METRICS.items():
            value = read(row)
            if value is not None:
                values[row["mode"], metric][row["item_id"]].append(value)
    return {mode: {metric: share_interval(values[mode, metric]) for metric in _METRICS} for mode in MODES}


def _average(estimates: Sequence[Estimates]) -> Estimates:
    return {
        mode: {metric: macro_average([found[mode][metric] for found in estimates]) for metric in _METRICS}
        for mode in MODES
    }


def _as_json(estimates: Estimates) -> dict[str, dict[str, dict[str, float | int | None]]]:
    return {
        mode: {metric: interval.to_dict() for metric, interval in metrics.items()}
        for mode, metrics in estimates.items()
    }


def _distribution(rows: Sequence[Row], teacher: Reference | None) -> dict[str, Any]:
    shown = [row for row in rows if row["mode"] == "sampled"] or list(rows)
    return {
        "num_steps": _histogram(row["num_steps"] for row in shown),
        "num_items": _histogram(row["num_items"] for row in shown),
        "num_tokens": [row["num_tokens"] for row in shown],
        "teacher": None if teacher is None else _counts(teacher.responses),
    }


def _counts(responses: Responses) -> dict[str, dict[str, int]]:
    given = [response for several in responses.values() for response in several]
    return {
        "num_steps": _histogram(None if one.think is None else num_reasoning_steps(one.think) for one in given),
        "num_items": _histogram(None if one.caption is None else num_description_items(one.caption) for one in given),
    }


def _texts(rows: Sequence[Row], teacher: Reference | None) -> dict[str, Any]:
    responses = {mode: _responses(row for row in rows if row["mode"] == mode) for mode in MODES}
    shapes = {mode: _shape_as_json(found) for mode, found in responses.items()}
    if teacher is None:
        return {"shape": shapes | {"teacher": None}, "drift": None}
    drifts = {
        mode: {name: distance.to_dict() for name, distance in drift(found, teacher.responses).items()}
        for mode, found in responses.items()
    }
    return {
        "shape": shapes | {"teacher": _shape_as_json(teacher.responses)},
        "drift": {"reference": teacher.source, **drifts},
    }


def _responses(rows: Iterable[Row]) -> dict[str, list[Response]]:
    found: dict[str, list[Response]] = defaultdict(list)
    for row in rows:
        found[row["item_id"]].append(parse_response(row["response"]))
    return found


def _shape_as_json(responses: Responses) -> dict[str, dict[str, dict[str, float | int | None]]]:
    parts = shape([response for given in responses.values() for response in given])
    return {part: {name: mean.to_dict() for name, mean in means.items()} for part, means in parts.items()}


def _histogram(values: Iterable[int | None]) -> dict[str, int]:
    counts = Counter(value for value in values if value is not None)
    return {str(value): counts[value] for value in sorted(counts)}
