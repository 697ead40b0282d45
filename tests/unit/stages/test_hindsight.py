"""Warnings of a game played to its end: on planted courses and not on their neighbours, on none that is known to have
worked."""

import json
from pathlib import Path
from typing import Any

import pytest

from prism.stages.hindsight import look_back

RUNS = json.loads(Path(__file__).with_name("alignment_runs.json").read_text(encoding="utf-8"))
NUM_STEPS = 40


def course(accuracy: tuple[float, float], gap: tuple[float, float], *, count: int = 64, steps: int = NUM_STEPS) -> Any:
    """A game in which accuracy and gap of the descriptions go straight from the one value to the other, while the
    reasoning is repaired."""
    rows = []
    for step in range(1, steps + 1):
        share = (step - 1) / (steps - 1)
        rows.append(
            {
                "step": step,
                "accuracy/count": count,
                "accuracy/perception": accuracy[0] + share * (accuracy[1] - accuracy[0]),
                "gap/perception": gap[0] + share * (gap[1] - gap[0]),
                "accuracy/reasoning": 0.9 - 0.3 * share,
                "gap/reasoning": 2.0 - share,
            }
        )
    return rows


def with_answers(rows: Any, shares: list[float | None]) -> Any:
    """`rows` with the share of right answers of each step, `shares` over and over."""
    return [row | {"reward/accuracy": shares[place % len(shares)]} for place, row in enumerate(rows)]


def names(rows: Any) -> list[str]:
    found = look_back(rows)
    assert not any(warning.is_fatal for warning in found), "the game has been played: there is nothing to stop"
    return [warning.name for warning in found]


def recorded(name: str) -> Any:
    rows = [dict(zip(RUNS["columns"], row, strict=True)) for row in RUNS["runs"][name]]
    return [row | {"step": step} for step, row in enumerate(rows, 1)]


@pytest.mark.parametrize("name", ["healthy-0", "healthy-1", "healthy-2", "discriminator-rate-x10", "no-warmup"])
def test_a_game_that_worked_raises_nothing(name: str) -> None:
    """The last of them had not been warmed up, and learned to tell while it was played."""
    assert names(recorded(name)) == []


def test_a_policy_that_left_the_language_is_told_apart_to_the_end() -> None:
    """Ten times its learning rate; collapse control stops it for what its texts have become."""
    warnings = look_back(recorded("policy-rate-x10"))
    assert [warning.name for warning in warnings] == ["rollouts-not-closer"]
    assert warnings[0].line.startswith("perception: accuracy 0.8")


def with_distances(rows: Any, description: tuple[float, float], reasoning: tuple[float | None, float | None]) -> Any:
    """`rows` with the distances of words in the first and in the last fifth; nothing is known of those between."""
    found = []
    for place, row in enumerate(rows):
        chosen = 0 if place < len(rows) // 5 else 1
        distances = {"drift/description/bigrams": description[chosen], "drift/reasoning/bigrams": reasoning[chosen]}
        found.append(row | distances)
    return found


@pytest.mark.parametrize(
    ("description", "reasoning", "expected"),
    [
        ((0.10, 0.13), (0.07, 0.06), ["rollouts-farther"]),  # 0.19 of 0.17
        ((0.10, 0.11), (0.07, 0.07), []),  # 0.18 of 0.17
        ((0.10, 0.03), (0.07, 0.20), ["rollouts-farther"]),
        ((0.10, 0.20), (None, None), ["rollouts-farther"]),
        ((0.10, 0.20), (0.07, None), []),  # no valid rollout is left to measure
    ],
)
def test_rollouts_that_end_farther_from_the_teacher(
    description: tuple[float, float], reasoning: tuple[float | None, float | None], expected: list[str]
) -> None:
    """Whatever the discriminator tells of them, which here is less and less."""
    rows = with_distances(course((0.93, 0.6), (2.1, 0.9)), description, reasoning)
    assert names(rows) == expected


def test_who_came_closer_to_the_teacher_may_still_be_told_apart() -> None:
    """By more and more: a discriminator learns, and the last faults are the easiest to see."""
    rows = course((0.93, 0.89), (2.1, 3.9))
    assert names(with_distances(rows, (0.10, 0.06), (0.07, 0.07))) == []  # 0.13 of 0.17
    assert names(with_distances(rows, (0.10, 0.07), (0.07, 0.07))) == ["rollouts-not-closer"]


def test_rollouts_that_stay_told_apart_by_more_and_more() -> None:
    (warning,) = look_back(course((0.93, 0.89), (2.1, 3.9)))
    assert warning.name == "rollouts-not-closer"
    assert warning.line.startswith(
        "perception: accuracy 0.926 in steps 1–8 and 0.894 in steps 33–40, while the score gap grew from 2.26 to 3.74; "
    )


@pytest.mark.parametrize(
    ("accuracy", "gap"),
    [
        ((0.93, 0.85), (2.1, 3.9)),  # a fall of 6 to 10 points
        ((0.93, 0.93), (2.1, 2.0)),  # the gap shrinks
        ((0.66, 0.95), (0.1, 3.9)),  # the discriminator was still learning
        ((0.68, 0.66), (0.1, 0.2)),
    ],
)
def test_its_neighbours(accuracy: tuple[float, float], gap: tuple[float, float]) -> None:
    assert names(course(accuracy, gap)) == []


def test_answers_that_rose_say_that_the_game_has_helped() -> None:
    """Steps of 0.3 and 0.5, later of 0.5 and 0.7: means 0.2 apart, of eight steps each, whose standard error is
    sqrt(2 · 0.0114 / 8) = 0.0535; t at 14 degrees of freedom is 1.761, so a rise of 0.094 and more counts."""
    stays = course((0.93, 0.93), (1.0, 2.0))
    assert names(with_answers(stays, [0.3, 0.5])) == ["rollouts-not-closer"]
    early, late = with_answers(stays[:32], [0.3, 0.5]), stays[32:]
    assert names([*early, *with_answers(late, [0.5, 0.7])]) == []
    assert names([*early, *with_answers(late, [0.396, 0.596])]) == []
    assert names([*early, *with_answers(late, [0.392, 0.592])]) == ["rollouts-not-closer"]


def test_answers_that_fell() -> None:
    """By as much as would count as a rise, whatever the discriminator told apart."""
    heals = course((0.93, 0.6), (2.0, 1.0))
    early, late = with_answers(heals[:32], [0.5, 0.7]), heals[32:]
    (warning,) = look_back([*early, *with_answers(late, [0.404, 0.604])])
    assert warning.name == "answers-worse"
    assert warning.line.startswith("60.0% of the answers were right in steps 1–8 and 50.4% in steps 33–40, so that ")
    assert names([*early, *with_answers(late, [0.408, 0.608])]) == []
    stays = course((0.93, 0.93), (1.0, 2.0))
    fell = [*with_answers(stays[:32], [0.5, 0.7]), *with_answers(stays[32:], [0.1, 0.3])]
    assert names(fell) == ["answers-worse", "rollouts-not-closer"]


def test_answers_that_nobody_can_judge_say_nothing() -> None:
    stays = course((0.93, 0.93), (1.0, 2.0))
    unknown = with_answers(stays[:32], [None])
    assert names(with_answers(stays, [None])) == ["rollouts-not-closer"]
    assert names([*unknown, *with_answers(stays[32:], [0.9])]) == ["rollouts-not-closer"]
    once = [*with_answers(stays[:1], [0.1]), *unknown[1:], *with_answers(stays[32:], [0.9])]
    assert names(once) == ["rollouts-not-closer"], "a single step has no spread"
    assert names(with_answers(stays, [0.4])) == ["rollouts-not-closer"], "none at all neither"


def test_a_discriminator_that_tells_nothing_from_the_start() -> None:
    (warning,) = look_back(course((0.48, 0.51), (0.0, 0.0)))
    assert warning.name == "discriminator-blind"
    assert warning.line == (
        "perception: accuracy 0.483 in steps 1–8, no better than chance, so that its scores told the policy nothing at "
        "first; warm up for longer, check that images and texts reach the discriminator, or leave alignment out where "
        "rollouts cannot be told from the teacher"
    )
    assert names(course((0.57, 0.57), (0.0, 0.1))) == []


def test_one_that_was_blind_at_first_is_told_of_whatever_came_of_its_rollouts() -> None:
    rows = course((0.48, 0.51), (0.0, 0.0))
    nothing = {"accuracy/count": 0, "accuracy/perception": None, "gap/perception": None}
    nothing |= {"accuracy/reasoning": None, "gap/reasoning": None}
    assert names([*rows[:20], *(row | nothing for row in rows[20:])]) == ["discriminator-blind"]


def test_little_evidence_raises_nothing() -> None:
    """A fall of three points over few pairs may be one of eight."""
    stays: dict[str, Any] = {"accuracy": (0.93, 0.93), "gap": (1.0, 2.0)}
    falls: dict[str, Any] = stays | {"accuracy": (0.93, 0.89)}
    assert names(course(**falls, count=64)) == ["rollouts-not-closer"]
    assert names(course(**falls, count=16)) == []
    assert names(course(**stays, count=16)) == ["rollouts-not-closer"]
    assert names(course(**stays, count=3)) == [], "24 pairs in a fifth"
    assert names(course(**stays, steps=20)) == ["rollouts-not-closer"]
    assert names(course(**stays, steps=19)) == []


def test_steps_without_valid_pairs_are_left_out() -> None:
    rows = course((0.93, 0.93), (1.0, 2.0))
    nothing = {"accuracy/count": 0, "accuracy/perception": None, "gap/perception": None}
    nothing |= {"accuracy/reasoning": None, "gap/reasoning": None}
    rows[2] |= nothing
    rows[-1] |= nothing
    assert names(rows) == ["rollouts-not-closer"]
    assert names([row | nothing for row in rows]) == []


def test_every_view_is_looked_at() -> None:
    rows = [
        {key.replace("perception", "response"): value for key, value in row.items() if "reasoning" not in key}
        for row in course((0.93, 0.93), (1.0, 2.0))
    ]
    assert [warning.line.split(":")[0] for warning in look_back(rows)] == ["response"]
    blind = [row | {"accuracy/response": 0.5} for row in rows]
    assert look_back(blind)[0].line.startswith("response: accuracy 0.500")
