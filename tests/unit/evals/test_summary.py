import json
from typing import Any

import pytest

from prism.errors import DataError
from prism.evals.statistics import macro_average, mean_interval, wilson_interval
from prism.evals.summary import Reference, summarize
from prism.rewards import parse_response


def row(item_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "benchmark": "shapes",
        "group": "in-distribution",
        "item_id": item_id,
        "mode": "greedy",
        "sample": 0,
        "verdict": "correct",
        "is_valid": True,
        "caption_fraction": None,
        "is_caption_exact": None,
        "num_steps": 3,
        "num_items": 4,
        "num_tokens": 50,
        "response": "",
    } | changes


def build() -> list[dict[str, Any]]:
    rows = [
        row("a"),
        row("b", verdict="wrong", caption_fraction=0.5, is_caption_exact=False, num_steps=None),
        row("c", verdict="unverifiable", is_valid=False, caption_fraction=1.0, is_caption_exact=True),
        row("a", benchmark="charts", group="out-of-distribution"),
        row("b", benchmark="charts", group="out-of-distribution"),
    ]
    verdicts = {"a": ("correct", "wrong"), "b": ("correct", "correct"), "c": ("wrong", "wrong")}
    for item, pair in verdicts.items():
        rows += [
            row(item, mode="sampled", sample=index, verdict=verdict, num_steps=index + 2, num_tokens=10 + index)
            for index, verdict in enumerate(pair)
        ]
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return summarize(rows, checkpoint="model", checkpoint_sha256="0" * 64)


def test_greedy_shares_have_wilson_intervals():
    greedy = summary(build())["benchmarks"]["shapes"]["greedy"]
    assert greedy["accuracy"] == wilson_interval(1, 3).to_dict()
    assert greedy["unverifiable"] == wilson_interval(1, 3).to_dict()
    assert greedy["valid"] == wilson_interval(2, 3).to_dict()
    assert greedy["caption_exact"] == wilson_interval(1, 2).to_dict()


def test_fractions_and_samples_have_intervals_clustered_by_item_and_cut_to_their_range():
    found = summary(build())["benchmarks"]["shapes"]
    clustered = mean_interval({"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0]})
    assert clustered.low is not None and clustered.low < 0
    assert found["sampled"]["accuracy"] == {"mean": 0.5, "low": 0.0, "high": 1.0, "count": 3}
    assert found["greedy"]["caption_fraction"] == {"mean": 0.75, "low": 0.0, "high": 1.0, "count": 2}


def test_samples_that_all_agree_keep_an_interval():
    assert summary(build())["benchmarks"]["shapes"]["sampled"]["valid"] == wilson_interval(3, 3).to_dict()


def test_what_was_not_measured_is_null():
    sampled = summary(build())["benchmarks"]["charts"]["sampled"]
    assert sampled["accuracy"] == {"mean": None, "low": None, "high": None, "count": 0}


def test_averages_are_macro_averages_over_benchmarks():
    average = summary(build())["average"]
    shapes, charts = wilson_interval(1, 3), wilson_interval(2, 2)
    assert average["in-distribution"]["greedy"]["accuracy"] == pytest.approx(shapes.to_dict())
    assert average["out-of-distribution"]["greedy"]["accuracy"] == pytest.approx(charts.to_dict())
    assert average["all"]["greedy"]["accuracy"] == pytest.approx(macro_average([charts, shapes]).to_dict())
    assert average["all"]["greedy"]["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert average["all"]["sampled"]["accuracy"]["count"] == 3


def test_distribution_is_that_of_the_sampled_rows():
    found = summary(build())
    assert found["num_items"] == 5
    assert found["distribution"] == {
        "num_steps": {"2": 3, "3": 3},
        "num_items": {"4": 6},
        "num_tokens": [10, 11, 10, 11, 10, 11],
        "teacher": None,
    }
    greedy_only = [entry for entry in build() if entry["mode"] == "greedy"]
    assert summary(greedy_only)["distribution"]["num_steps"] == {"3": 4}


def written(num_steps: int) -> str:
    steps = "".join(f"{number}. so\n" for number in range(1, num_steps + 1))
    return f"<caption>a star</caption><think>{steps}</think><answer>1</answer>"


def test_distribution_holds_the_teachers_counts_beside():
    answers = {"a": [parse_response(written(2)), parse_response(written(3))], "b": [parse_response("no format")]}
    found = summarize(build(), checkpoint="", checkpoint_sha256="", teacher=Reference("test", answers))
    assert found["distribution"]["teacher"] == {"num_steps": {"2": 1, "3": 1}, "num_items": {"1": 2}}


def test_texts_are_measured_per_decoding_mode_against_the_teachers():
    rows = [row(item, response=written(2)) for item in "ab"]
    rows += [row(item, mode="sampled", sample=index, response=written(4)) for item in "ab" for index in range(2)]
    rows.append(row("c", mode="sampled", response="no format"))
    reference = Reference("test", {item: [parse_response(written(1))] for item in "abc"})
    found = summarize(rows, checkpoint="model", checkpoint_sha256="0" * 64, teacher=reference)
    drift = found["drift"]
    assert drift["reference"] == "test"
    assert drift["greedy"]["reasoning/steps"]["plug_in"] == pytest.approx(1)
    sampled = drift["sampled"]["reasoning/steps"]
    assert sampled["plug_in"] == pytest.approx(3)
    assert [sampled[name] for name in ("count", "num_responses", "num_teacher_responses")] == [2, 4, 3]
    lengths = {name: shape["reasoning"]["length"] for name, shape in found["shape"].items()}
    assert lengths == {  # each step is a number, a dot and a word
        "greedy": {"mean": 6, "count": 2},
        "sampled": {"mean": 12, "count": 4},
        "teacher": {"mean": 3, "count": 3},
    }
    assert found["shape"]["sampled"]["whole"]["length"]["count"] == 5


def test_without_a_teacher_there_is_no_drift():
    found = summary(build())
    assert found["drift"] is None and found["shape"]["teacher"] is None


def test_order_of_rows_does_not_change_estimates():
    first, second = summary(build()), summary(list(reversed(build())))
    assert first["benchmarks"] == second["benchmarks"] and first["average"] == second["average"]


def test_summary_is_json_even_without_rows():
    for rows in (build(), []):
        json.dumps(summary(rows), allow_nan=False)
    assert set(summary([])["average"]) == {"in-distribution", "out-of-distribution", "all"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "right"}, "row 1: 'verdict' is 'right', not one of correct, wrong, unverifiable"),
        ({"mode": "beam"}, "row 1: 'mode' is 'beam'"),
        ({"group": "out-of-distribution"}, "row 1: benchmark 'shapes' stands in two groups"),
        ({"item_id": "a"}, "row 1: item 'a' has two greedy rows of one sample"),
    ],
)
def test_bad_rows_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        summary([row("a"), row("b") | changes])


def test_a_missing_field_is_named():
    incomplete = row("a")
    del incomplete["is_valid"]
    with pytest.raises(DataError, match="row 0: field 'is_valid' is missing"):
        summary([incomplete])
