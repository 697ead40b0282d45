"""Rows that nobody expects, for Hypothesis: JSON of any shape and depth, and parquet columns of any type."""

import datetime
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

COLUMNS = ["prompt", "messages", "completion", "images", "image", "answer", "reward_model", "extra_info", "question"]
COLUMNS += ["teacher_caption", "teacher_cot", "student_response", "teacher_response", "metadata", "system", "id"]
COLUMNS += ["loss_spans", "choices", "equivalents", "kind", "data_source", "videos", "other"]

_KEYS = ["role", "content", "from", "value", "type", "index", "bytes", "path", "choices", "metadata", "ground_truth"]
_TEXTS = ["user", "assistant", "image", "text", "http://[x/a.png", "file://[", "data:,", "<image>", "<svg/onload=f()>"]
_TEXTS += ["\ud800", "\x00", " ", '{"a": NaN}', '{"metadata": {"a": "\\ud800"}}', '{"choices": [[[]]]}', "[" * 600]
_TEXTS += ["<caption>a</caption><think>b</think><answer>c</answer>", "<think>1 < 2</think>"]


def _nested(depth: int, as_objects: bool) -> Any:
    value: Any = "core"
    for _ in range(depth):
        value = {"content": value} if as_objects else [value]
    return value


any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(_TEXTS)
    | st.builds(_nested, st.sampled_from([90, 101, 600, 900]), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3),
    max_leaves=10,
)

any_json_row = st.dictionaries(st.sampled_from(COLUMNS), any_json, max_size=2) | st.dictionaries(
    st.sampled_from(COLUMNS), any_json, max_size=8
)
"""Few columns beside those of a good row are what gets furthest."""


def _deep_array(depth: int) -> pa.Array:
    kind, value = pa.int64(), 1
    for level in range(depth):
        kind, value = (pa.list_(kind), [value]) if level % 2 else (pa.struct({"inner": kind}), {"inner": value})
    return pa.array([value], kind)


def _struct(**columns: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


_SCALARS = [
    pa.array([2**50], pa.timestamp("ms")),
    pa.array([-(2**62)], pa.timestamp("us", tz="UTC")),
    pa.array([1], pa.timestamp("ns")),
    pa.array([0], pa.timestamp("ms", tz="Nowhere/City")),
    pa.array([2**31 - 1], pa.date32()),
    pa.array([datetime.date(2024, 2, 29)]),
    pa.array([datetime.time(1, 2)]),
    pa.array([2**62], pa.duration("us")),
    pa.array([10**30], pa.decimal128(38, 2)),
    pa.array([1.5], pa.float32()),
    pa.array([float("nan")]),
    pa.array([b"\xff\xfe"]),
    pa.array([b"\xff\xfe"]).view(pa.string()),
    pa.array(["text"]).dictionary_encode(),
    pa.array(["2"], pa.large_string()),
    pa.array([2**63], pa.uint64()),
    pa.array([[("key", 1)]], pa.map_(pa.string(), pa.int64())),
    pa.array([None], pa.null()),
    _deep_array(60),
]
_ARRAYS = [
    *_SCALARS,
    *(pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), inner) for inner in _SCALARS),
    *(_struct(**{name: inner}) for name in _KEYS for inner in _SCALARS),
    *(pa.StructArray.from_arrays([inner, inner], ["twice", "twice"]) for inner in _SCALARS[:2]),
]

any_parquet_row = st.dictionaries(st.sampled_from(COLUMNS), st.integers(0, len(_ARRAYS) - 1), max_size=4)
"""The numbers of `parquet_columns`, which tell more than a column that is printed."""


def parquet_columns(numbers: dict[str, int]) -> dict[str, pa.Array]:
    """Columns of one value each, for a table of one row."""
    return {name: _ARRAYS[number] for name, number in numbers.items()}
