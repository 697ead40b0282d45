"""Drift from the teacher: hand-worked distances, seeds put together, and marks only where chance explains all."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from prism.evals import drift as computed
from prism.evals.summary import Reference, summarize
from prism.report import render_report
from prism.report.distributions import distributions_section
from prism.report.drift import MEASURES, drift_over_seeds, drift_tables
from prism.report.rundir import Stage, read_run
from prism.rewards import parse_response

MakeRun = Callable[..., Path]


def distance(mean: float | None, **changes: Any) -> dict[str, Any]:
    """One measure as in `summary.json`: far above its floor, with limits that no report works out."""
    known = {"mean": mean, "low": None, "high": None, "count": 20, "plug_in": mean, "floor": 0.0}
    return known | {"num_responses": 20, "num_teacher_responses": 20} | changes


def everywhere(mean: float | None, **changes: Any) -> dict[str, Any]:
    return {name: distance(mean, **changes) for name in MEASURES}


def write_drift(run: Path, seed: int, stage: str, drift: Mapping[str, Any] | None) -> None:
    path = run / f"seed-{seed}" / stage / "evaluation" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"drift": drift}), encoding="utf-8")


def stage_with(seed: int, drift: Mapping[str, Any] | None) -> Stage:
    return Stage(seed, "sft", None, (), (), (), {"drift": drift}, None)


def greedy_rows(run: Path) -> list[list[str]]:
    """The cells of the greedy table, head included, as text; the parts of a cell stand apart by a space."""
    read = read_run(run)
    markup = str(drift_tables(read, read.evaluated_names))
    table = markup[markup.index('<div class="only-greedy">') : markup.index('<div class="only-sampled">')]
    return [
        [
            " ".join(re.sub("<[^>]+>", " ", cell).split())
            for cell in re.findall(r"<t[hd][^>]*?(?:/>|>(.*?)</t[hd]>)", row)
        ]
        for row in re.findall("<tr>(.*?)</tr>", table)
    ]


def text_of(markup: object) -> str:
    return re.sub("<[^>]+>", " ", str(markup)).replace("&#x27;", "'")


@pytest.fixture
def small_run(make_run: MakeRun) -> Path:
    """Two seeds with a base, a policy after SFT and one after alignment; without drift."""
    return make_run(stages=("base", "sft", "align"))


def test_every_measure_of_the_evaluation_has_a_title_and_its_unit() -> None:
    assert list(MEASURES) == list(computed.MEASURES)
    for name, (_, unit) in MEASURES.items():
        assert computed.MEASURES[name].is_number == (unit != "bits")


def response(num_steps: int) -> str:
    steps = "\n".join(f"{number}. so" for number in range(1, num_steps + 1))
    return f"<caption>a cat, a dog</caption>\n<think>{steps}</think>\n<answer>1</answer>"


def row(item: int, text: str) -> dict[str, Any]:
    graded = {"verdict": "correct", "is_valid": True, "caption_fraction": None, "is_caption_exact": None}
    sizes = {"num_steps": 3, "num_items": 2, "num_tokens": 9}
    place = {"benchmark": "color", "group": "in-distribution", "item_id": str(item), "mode": "greedy", "sample": 0}
    return place | graded | sizes | {"response": text}


def test_what_an_evaluation_measured_stands_in_the_table(make_run: MakeRun) -> None:
    teacher = Reference("test", {str(item): [parse_response(response(5))] for item in range(4)})
    rows = [row(item, response(3)) for item in range(4)]
    found = summarize(rows, checkpoint="sft", checkpoint_sha256="", teacher=teacher)["drift"]
    run = make_run(seeds=(0,), stages=("sft",))
    write_drift(run, 0, "sft", found)
    cells = {shown[0]: shown[1] for shown in greedy_rows(run)}
    assert cells["Distance"] == "SFT n = 4"
    assert cells["Reasoning steps steps"] == "2.00 [–]", "three of five steps in every response"
    assert cells["Length of the reasoning words"] == "6.00 [–]", "a number, a point and a word in each step"
    assert cells["Described items items"] == "0.00 * [–]"
    assert cells["Words of the reasoning bits"] == "–", "no word stands in the responses to ten prompts"
    assert "Intervals are over prompts" in text_of(distributions_section(read_run(run)))


def test_seeds_are_put_together_and_limits_stay_where_a_distance_can_be(make_run: MakeRun) -> None:
    run = make_run(seeds=(0, 1, 2), stages=("base", "sft"))
    for seed, steps, bits, count in ((0, 1.0, 0.9, 20), (1, 2.0, 0.95, 30), (2, 3.0, 1.0, 40)):
        greedy = everywhere(9.0) | {
            "reasoning/steps": distance(steps, low=0.9 * steps, high=1.1 * steps, count=count),
            "reasoning/bigrams": distance(bits, count=count),
            "whole/length": distance(10 + steps / 20, count=count),
        }
        write_drift(run, seed, "sft", {"reference": "test", "greedy": greedy, "sampled": everywhere(7.0)})
    cells = {shown[0]: shown[1] for shown in greedy_rows(run)}
    # Means 2, .95 and 10.1; standard deviations 1, .05 and .05, over √3 and times 4.30265: 2.48414, .124207, .124207.
    assert cells["Distance"] == "SFT n = 60"
    assert cells["Reasoning steps steps"] == "2.00 0.00–4.48 n = 90"
    assert cells["Word pairs of the reasoning bits"] == "0.9500 0.8258–1.0000 n = 90"
    assert cells["Length of the whole response words"] == "10.10 9.98–10.22 n = 90"
    assert cells["Described items items"] == "9.00 [–]", "neither seeds nor prompts show any spread"
    assert "Means over 3 seeds" in text_of(distributions_section(read_run(run)))


def test_two_seeds_are_shown_one_by_one(small_run: Path) -> None:
    for seed, bits in ((0, 0.9), (1, 0.95)):
        found = everywhere(1.0) | {"reasoning/bigrams": distance(bits, count=20)}
        write_drift(small_run, seed, "sft", {"reference": "test", "greedy": found, "sampled": found})
    cells = {shown[0]: shown[1] for shown in greedy_rows(small_run)}
    assert cells["Word pairs of the reasoning bits"].startswith("0.9250 0.9000 · 0.9500")
    assert "Means over two seeds" in text_of(distributions_section(read_run(small_run)))


@pytest.mark.parametrize(
    ("seeds", "is_within"),
    [
        ([(0.1, 0.1)], True),
        ([(0.1, 0.1), (0.1, 0.2)], True),
        ([(0.0, 0.0)], True),
        ([(0.1, 0.2), (0.2001, 0.2)], False),
        ([(0.3, 0.2), (0.4, 0.2)], False),
        ([(0.1, 0.2), (0.1, None)], False),
        ([(None, 0.2)], False),
    ],
)
def test_chance_must_explain_every_seed(seeds: Sequence[tuple[float | None, float | None]], is_within: bool) -> None:
    stages = [
        stage_with(seed, {"greedy": {"reasoning/steps": distance(0.05, plug_in=plug_in, floor=floor)}})
        for seed, (plug_in, floor) in enumerate(seeds)
    ]
    found = drift_over_seeds(stages, "greedy", "reasoning/steps")
    assert found is not None
    assert found.is_within_floor is is_within


@pytest.mark.parametrize(
    "drift",
    [
        None,
        {"reference": "test"},
        {"greedy": None},
        {"greedy": {}},
        {"greedy": {"reasoning/steps": None}},
        {"greedy": {"reasoning/steps": {}}},
        {"greedy": {"reasoning/steps": distance(None, floor=None, count=0)}},
    ],
)
def test_a_seed_that_measured_nothing_is_left_out(drift: Mapping[str, Any] | None) -> None:
    silent = stage_with(0, drift)
    assert drift_over_seeds([silent], "greedy", "reasoning/steps") is None
    measured = stage_with(1, {"greedy": {"reasoning/steps": distance(0.5, low=0.4, high=0.6, plug_in=0.5, floor=0.6)}})
    found = drift_over_seeds([silent, measured], "greedy", "reasoning/steps")
    assert found is not None and found.is_within_floor
    estimate = found.estimate
    assert (estimate.mean, estimate.low, estimate.high, estimate.count, estimate.num_seeds) == (0.5, 0.4, 0.6, 20, 1)


def test_missing_seeds_and_measures_are_named(small_run: Path) -> None:
    full = everywhere(1.0) | {"description/items": distance(None, count=0, plug_in=None, floor=None)}
    part = full | {"reasoning/steps": distance(None, count=0, plug_in=None, floor=None)}
    write_drift(small_run, 0, "sft", {"reference": "test", "greedy": full})
    write_drift(small_run, 1, "sft", {"reference": "test", "greedy": part})
    write_drift(small_run, 0, "align", {"reference": "test", "greedy": full})
    cells = {shown[0]: shown[1:] for shown in greedy_rows(small_run)}
    assert cells["Distance"] == ["SFT n = 40", "PRISM 1 of 2 seeds n = 20"]
    assert cells["Described items items"] == ["–", "–"]
    assert cells["Reasoning steps steps"] == ["1.00 [–] n = 20 1 of 2 seeds", "1.00 [–]"]


def test_a_column_for_each_trained_checkpoint_and_none_for_the_base(make_run: MakeRun) -> None:
    run = make_run(seeds=(0,))
    trained = ("sft", "sft-grpo", "align", "prism-grpo", "prism-dapo", "prism-gspo")
    for number, name in enumerate(("base", *trained)):
        write_drift(run, 0, name, {"reference": "test", "greedy": everywhere(float(number))})
    rows = greedy_rows(run)
    titles = ["SFT", "SFT → GRPO", "PRISM", "PRISM → GRPO", "PRISM → DAPO", "PRISM → GSPO"]
    assert rows[1] == ["Distance", *(f"{title} n = 20" for title in titles)]
    assert [shown[0].rpartition(" ")[2] for shown in rows[2:]] == [unit for _, unit in MEASURES.values()]
    assert rows[2][1:] == [f"{number}.00 [–]" for number in range(1, 7)]


def test_each_mode_has_a_table_of_its_own(small_run: Path) -> None:
    drift = {"reference": "test", "greedy": everywhere(0.25), "sampled": everywhere(0.75)}
    write_drift(small_run, 0, "sft", drift)
    greedy, sampled = str(distributions_section(read_run(small_run))).split("Drift from the teacher, sampled")
    assert greedy.count("<td>0.25<") == sampled.count("<td>0.75<") == len(MEASURES) - 4
    assert "0.75<" not in greedy.partition("Drift from the teacher, greedy")[2]


def test_distances_to_answers_to_other_prompts_say_so(small_run: Path) -> None:
    write_drift(small_run, 0, "sft", {"reference": "test", "greedy": everywhere(1.0)})
    section = text_of(distributions_section(read_run(small_run)))
    assert "the teacher's to the same prompts; 0 is equal" in section
    write_drift(small_run, 0, "sft", {"reference": "alignment", "greedy": everywhere(1.0)})
    section = text_of(distributions_section(read_run(small_run)))
    assert "the teacher's to the alignment prompts, which are others" in section
    assert "same prompts" not in section


def test_figures_against_other_questions_point_to_the_drift_from_answers_to_the_same(small_run: Path) -> None:
    for source, is_told in (("test", True), ("alignment", False)):
        for seed in (0, 1):
            write_drift(small_run, seed, "sft", {"reference": source, "greedy": everywhere(1.0), "sampled": {}})
        text = text_of(distributions_section(read_run(small_run)))
        assert ("Drift, below, is measured from its answers to the same questions." in text) is is_told


def test_without_drift_there_is_no_table(small_run: Path, full_run: Path) -> None:
    nothing = everywhere(None, plug_in=None, floor=None, count=0)
    for seed, stage, drift in (
        (0, "sft", None),
        (1, "sft", {"reference": "test", "greedy": nothing, "sampled": nothing}),
        (0, "base", {"reference": "test", "greedy": everywhere(1.0), "sampled": nothing}),
    ):
        write_drift(small_run, seed, stage, drift)
    for path in (small_run, full_run):
        run = read_run(path)
        assert drift_tables(run, run.evaluated_names) is None
    assert "Drift" not in render_report(small_run).read_text(encoding="utf-8")
