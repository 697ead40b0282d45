"""Each diagnosis on a planted trajectory and not on its neighbours; healthy and broken runs as they were recorded."""

import json
import tarfile
from fnmatch import fnmatch
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from prism.config.control import ControlConfig
from prism.stages.collapse import MEASURED, TEACHER_LENGTH, WORDS_FROM_TEACHER
from prism.stages.control import Control

RECORDED = json.loads(Path(__file__).with_name("alignment_runs.json").read_text(encoding="utf-8"))
"""Alignments of the built-in world, a step a row: three healthy ones, and ones that were broken as their names say."""

Row = dict[str, float | None]
WINDOW = 4
UNMEASURED: Row = dict.fromkeys((*WORDS_FROM_TEACHER, TEACHER_LENGTH))
"""Games that were recorded before the distance to the teacher and its length were say nothing of them."""


def diagnoses(rows: list[Row], **fields: Any) -> dict[str, int]:
    """Each diagnosis and the first step it is made at."""
    control = Control(ControlConfig.model_validate(fields), {}, seed=0)
    found: dict[str, int] = {}
    has_stopped = False
    for step, row in enumerate(rows, 1):
        for event in control.observe(step, row)[1]:
            found.setdefault(event["diagnosis"], step)
            has_stopped = has_stopped or event["event"] == "stop"
            assert control.has_collapsed == has_stopped
    return found


def recorded(name: str) -> list[Row]:
    return [UNMEASURED | dict(zip(RECORDED["columns"], row, strict=True)) for row in RECORDED["runs"][name]]


@pytest.mark.parametrize("name", ["healthy-0", "healthy-1", "healthy-2"])
@pytest.mark.parametrize("window", [4, 8, 16])
def test_a_healthy_run_raises_nothing(name: str, window: int) -> None:
    assert len(recorded(name)) == 40
    assert diagnoses(recorded(name), window=window) == {}


ARCHIVES = sorted((Path(__file__).parents[3] / "benchmarks" / "results").glob("*effect/seed-*.tar.xz"))
"""Games of every seed that was run."""
NUM_GAMES = {"effect": 5, "noisy-effect": 3, "tuned-effect": 1}
"""Of each archive, at least: cells are added to it one by one."""


def archived_games(path: Path) -> dict[str, list[Row]]:
    """The metrics of the game of every cell that an archive holds."""
    with tarfile.open(path) as archive:
        links = {
            member.name.split("/")[1]: member.linkname.rpartition("/")[2]
            for member in archive.getmembers()
            if member.issym() and fnmatch(member.name, "cells/*/align")
        }
        games = {}
        for cell, stage in links.items():
            file = archive.extractfile(f"store/{path.name.partition('.')[0]}/{stage}/metrics.jsonl")
            assert file is not None
            games[cell] = [UNMEASURED | json.loads(line) for line in file]
    return games


FOUND = {
    "effect/seed-2": {"whole-response": {"discriminator-saturated": 16}},
    "effect/seed-3": {"whole-response": {"discriminator-saturated": 16}},
    "tuned-effect/seed-2": {"full": {"rollouts-astray": 34}},
}
"""What the default limits find: with one score for the whole response two games were told apart to the last pair while
answers became worse; in one the rollouts went away from the teacher."""


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: f"{path.parent.name}-{path.name.partition('.')[0]}")
def test_no_archived_game_is_stopped_and_one_that_lost_half_of_its_answers_is_warned_of(path: Path) -> None:
    games = archived_games(path)
    assert len(games) >= NUM_GAMES[path.parent.name]
    found = {cell: diagnosed for cell, rows in games.items() if (diagnosed := diagnoses(rows))}
    assert found == FOUND.get(f"{path.parent.name}/{path.name.partition('.')[0]}", {})


def test_a_policy_may_become_as_sure_as_the_teacher_whose_texts_it_writes() -> None:
    """A game of eighty steps ended with 0.06 of the entropy that it began with, and 0.01 of the distance to
    the teacher, whose texts vary little."""
    rows = archived_games(next(path for path in ARCHIVES if "tuned-effect/seed-1" in str(path)))["full"]
    assert diagnoses(rows) == {}
    assert diagnoses(rows, limits={"near": 0.0}) == {"entropy-collapsed": 67}


@pytest.mark.parametrize("name", ["discriminator-rate-x10", "no-warmup"])
def test_an_unusual_run_that_works_raises_nothing(name: str) -> None:
    """Ten times the learning rate did no harm; without warm-up the discriminator learned during the game."""
    assert diagnoses(recorded(name)) == {}


@pytest.mark.parametrize(
    ("name", "diagnosis", "step"),
    [
        ("discriminator-frozen", "discriminator-frozen", 8),
        ("discriminator-rate-x100", "discriminator-overshooting", 8),
        ("policy-rate-x30", "rollouts-invalid", 8),
        ("policy-rate-x10", "rollouts-repetitive", 19),
    ],
)
def test_a_broken_run_is_stopped_by_name(name: str, diagnosis: str, step: int) -> None:
    found = diagnoses(recorded(name))
    assert next(iter(found.items())) == (diagnosis, step)


def test_a_discriminator_at_its_limit_has_no_gradient_left() -> None:
    """From step 28 on that run's scores all stand at ±10."""
    end = recorded("discriminator-rate-x100")[30:]
    assert all(row["discriminator/grad_norm"] == 0 for row in end)
    limits = {"weight_change": (1e-8, 1.0)}
    assert diagnoses(end, limits=limits) == {"discriminator-frozen": 8, "discriminator-blind": 8}


def make_rows(*, start: int = WINDOW + 1, **changes: Any) -> list[Row]:
    """A healthy game in which `changes` hold from step `start` on; a function gives the value of its step."""
    rows: list[Row] = []
    for step in range(1, 3 * WINDOW + 1):
        row: Row = dict.fromkeys(MEASURED, 1.0) | {
            "accuracy/count": 64,
            "discriminator/weight_change": 1e-4,
            "discriminator/grad_norm": 3.0,
            "rollout/truncated_count": 2,
            "rollout/count": 64,
            "rollout/length": 80.0,
            "rollout/entropy": 0.2,
            "rollout/repetition": 0.05,
            "rollout/distinct_2": 0.1,
            "teacher/length": 80.0,
        }
        for view in ("perception", "reasoning"):
            row |= {f"accuracy/{view}": 0.75, f"gap/{view}": 0.5}
        if step >= start:
            for name, value in changes.items():
                row[name.replace("_", "/", 1)] = value(step) if isinstance(value, FunctionType) else value
        rows.append(row)
    return rows


PLANTED = {
    "discriminator-frozen": {"discriminator_weight_change": 0.0},
    "discriminator-overshooting": {"discriminator_weight_change": 3.5e-3},
    "rollouts-invalid": {"rollout_valid_fraction": 0.45},
    "rollouts-truncated": {"rollout_truncated_count": 17},
    "rollouts-repetitive": {"rollout_repetition": 0.16},
    "entropy-collapsed": {"rollout_entropy": 0.019},
    "entropy-exploded": {"rollout_entropy": 0.61},
    "length-collapsed": {"rollout_length": 26.0},
    "length-exploded": {"rollout_length": 161.0},
    "distinct-collapsed": {"rollout_distinct_2": 0.029},
    "distinct-exploded": {"rollout_distinct_2": 0.31},
    "discriminator-overtaken": {"accuracy_reasoning": 0.44, "gap_reasoning": -0.1},
    "rollouts-astray": {"drift_description/bigrams": 2.02},
}
NEIGHBOURS = {
    "a small update": {"discriminator_weight_change": 1e-7},
    "a large update": {"discriminator_weight_change": 2.9e-3},
    "an update held back by a reaction": {"discriminator_weight_change": None, "discriminator_grad_norm": None},
    "no valid pair, and so no gradient, now and then": {
        "accuracy_count": lambda step: 64 * (step % 2),
        "discriminator_grad_norm": lambda step: 3.0 * (step % 2),
    },
    "every second rollout valid": {"rollout_valid_fraction": 0.5},
    "a quarter truncated": {"rollout_truncated_count": 16},
    "some repetition": {"rollout_repetition": 0.14},
    "less entropy": {"rollout_entropy": 0.021},
    "more entropy": {"rollout_entropy": 0.59},
    "shorter": {"rollout_length": 27.0},
    "longer": {"rollout_length": 159.0},
    "less varied": {"rollout_distinct_2": 0.031},
    "more varied": {"rollout_distinct_2": 0.29},
    "farther from the teacher": {"drift_reasoning/bigrams": 1.98},
    "a part that has gone": {"drift_description/bigrams": None, "drift_reasoning/bigrams": 1.9},
    "as sure as the teacher": {
        "rollout_entropy": 0.001,
        "rollout_distinct_2": 0.01,
        "drift_description/bigrams": 0.3,
        "drift_reasoning/bigrams": 0.09,
    },
    "as long as the teacher": {"rollout_length": 399.0, "teacher_length": 200.0},
    "as short as the teacher": {"rollout_length": 7.0, "teacher_length": 20.0},
    "chance with the teacher ahead": {"accuracy_reasoning": 0.44, "gap_reasoning": 0.1},
    "chance, late": {"accuracy_reasoning": 0.5, "gap_reasoning": -0.1},
    "overtaken as far as a few pairs can tell": {
        "accuracy_count": 7,
        "accuracy_reasoning": 0.0,
        "gap_reasoning": -0.1,
    },
    "saturated with a falling gap": {"accuracy_perception": 0.99, "gap_perception": lambda step: 3 - 0.1 * step},
    "a growing gap short of saturation": {"accuracy_perception": 0.97, "gap_perception": lambda step: 0.1 * step},
    "saturated for one window": {
        "accuracy_perception": lambda step: 0.99 if step <= 2 * WINDOW else 0.9,
        "gap_perception": lambda step: 0.1 * step,
    },
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_failure_is_named(name: str) -> None:
    assert diagnoses(make_rows(**PLANTED[name]), window=WINDOW) == {name: 2 * WINDOW}


SURE: dict[str, Any] = {"rollout_entropy": 0.019}


@pytest.mark.parametrize(
    "changes",
    [
        SURE | {"drift_description/bigrams": 0.3, "drift_reasoning/bigrams": 0.11},
        SURE | {"drift_description/bigrams": None, "drift_reasoning/bigrams": 0.0},
        SURE | {"drift_description/bigrams": None, "drift_reasoning/bigrams": None},
    ],
)
def test_who_is_sure_of_something_else_than_the_teacher_has_collapsed(changes: dict[str, Any]) -> None:
    """A fifth of the distance is the most, and the reasonings alone are not enough where descriptions have gone."""
    assert diagnoses(make_rows(**changes), window=WINDOW) == {"entropy-collapsed": 2 * WINDOW}


def test_who_comes_near_the_teacher_and_leaves_again_has_collapsed() -> None:
    near: dict[str, Any] = SURE | {"drift_description/bigrams": 0.0, "drift_reasoning/bigrams": 0.1}
    rows = make_rows(**near)
    gone: Row = {"rollout/entropy": 0.019, "drift/description/bigrams": 0.5, "drift/reasoning/bigrams": 0.5}
    assert diagnoses([*rows, *(row | gone for row in rows[-WINDOW:])], window=WINDOW) == {"entropy-collapsed": 14}


def test_length_may_go_as_far_as_the_teacher_and_its_limit_beyond() -> None:
    """Where that is on the way, wherever it came from."""
    for length, teacher, found in ((401.0, 200.0, "length-exploded"), (6.0, 20.0, "length-collapsed")):
        rows = make_rows(rollout_length=length, teacher_length=teacher)
        assert diagnoses(rows, window=WINDOW) == {found: 2 * WINDOW}


def test_one_blind_view_of_two_earns_a_warning() -> None:
    """The game of another view may well teach it."""
    rows = make_rows(start=1, accuracy_reasoning=0.5)
    control = Control(ControlConfig(window=WINDOW), {}, seed=0)
    events = [event for step, row in enumerate(rows, 1) for event in control.observe(step, row)[1]]
    assert [(event["event"], event["diagnosis"]) for event in events] == [("warning", "discriminator-blind")]
    both = make_rows(start=1, accuracy_reasoning=0.5, accuracy_perception=0.5)
    assert diagnoses(both, window=WINDOW) == {"discriminator-blind": WINDOW}
    control = Control(ControlConfig(window=WINDOW), {}, seed=0)
    for step, row in enumerate(both[:WINDOW], 1):
        control.observe(step, row)
    assert control.has_collapsed


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_its_neighbour_is_not(name: str) -> None:
    assert diagnoses(make_rows(**NEIGHBOURS[name]), window=WINDOW) == {}


def saturated(*views: str) -> dict[str, Any]:
    return {f"accuracy_{view}": 0.99 for view in views} | {f"gap_{view}": lambda step: 0.1 * step for view in views}


def test_saturation_is_named_after_two_windows_with_a_growing_gap_in_every_view() -> None:
    both = saturated("perception", "reasoning")
    assert diagnoses(make_rows(start=1, **both), window=WINDOW) == {"discriminator-saturated": 2 * WINDOW}
    assert diagnoses(make_rows(start=3, **both), window=WINDOW) == {"discriminator-saturated": 2 * WINDOW + 2}
    assert diagnoses(make_rows(start=1, **saturated("reasoning")), window=WINDOW) == {}
    assert diagnoses(make_rows(start=1, accuracy_count=7, **both), window=WINDOW) == {}, "28 pairs a window are too few"


def test_saturation_warns_once_each_time_and_stops_nothing() -> None:
    rows = [*make_rows(start=1, **saturated("perception", "reasoning")), *make_rows()]
    rows += make_rows(start=1, **saturated("perception", "reasoning"))
    control, events = Control(ControlConfig(window=WINDOW), {}, seed=0), []
    for step, row in enumerate(rows, 1):
        events += control.observe(step, row)[1]
        control.check()
    named = [(event["step"], event["event"], event["diagnosis"]) for event in events]
    steps = (2 * WINDOW, 8 * WINDOW)
    assert named == [(step, "warning", "discriminator-saturated") for step in steps]


@pytest.mark.parametrize(("accuracy", "found"), [(0.54, {"discriminator-blind": WINDOW}), (0.56, {})])
def test_blindness_is_named_from_the_first_steps_only(accuracy: float, found: dict[str, int]) -> None:
    assert diagnoses(make_rows(start=1, accuracy_perception=accuracy), window=WINDOW) == found


def test_a_discriminator_without_gradient_is_frozen_whatever_its_weights_do() -> None:
    rows = make_rows(discriminator_grad_norm=0.0)
    assert diagnoses(rows, window=WINDOW) == {"discriminator-frozen": 2 * WINDOW}


def test_one_view_alone_is_watched_like_two() -> None:
    rows = make_rows(start=1, accuracy_response=0.5, gap_response=0.0)
    for row in rows:
        for name in ("accuracy/perception", "accuracy/reasoning", "gap/perception", "gap/reasoning"):
            del row[name]
    assert diagnoses(rows, window=WINDOW) == {"discriminator-blind": WINDOW}


def test_a_limit_that_is_moved_is_kept_to() -> None:
    rows = make_rows(rollout_valid_fraction=0.45)
    assert diagnoses(rows, window=WINDOW, limits={"valid_fraction": 0.4}) == {}


def test_what_was_measured_and_what_to_try_stand_in_one_line() -> None:
    control = Control(ControlConfig(window=WINDOW), {}, seed=0)
    lines = []
    for step, row in enumerate(make_rows(start=1, accuracy_reasoning=0.52, gap_reasoning=0.01), 1):
        lines += [event["reason"] for event in control.observe(step, row)[1]]
    assert lines[0].startswith(
        "reasoning: accuracy 0.520 over 256 pairs, score gap 0.01 in steps 1–4, no better than chance from the start; "
    )
    assert "warm up" in lines[0] and "\n" not in lines[0]
