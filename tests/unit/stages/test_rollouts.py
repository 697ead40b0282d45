"""What counts as a valid rollout, and the counts of a step, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from prism.records import RolloutGroup
from prism.stages.rollouts import mean, parse_rollout, rollout_metrics

Make = Callable[..., Any]
GOOD = "<caption>a, b</caption><think>1. x\n2. y\n3. z</think><answer>5</answer>"


def test_a_rollout_cut_off_is_invalid_whatever_it_holds(make_rollout: Make) -> None:
    cut = parse_rollout(make_rollout(GOOD, is_finished=False))
    assert (cut.is_valid, cut.reason, cut.text, cut.caption) == (False, "truncated", GOOD, None)
    whole = parse_rollout(make_rollout(GOOD))
    assert (whole.is_valid, whole.caption, whole.answer) == (True, "a, b", "5")
    assert parse_rollout(make_rollout("5")).reason == "missing_caption"


def test_mean_of_nothing_is_missing() -> None:
    assert mean([]) is None
    assert mean([1.0, 2.0, 6.0]) == 3


def test_counts_of_a_step(make_prompt: Make, make_rollout: Make) -> None:
    other = "<caption>a</caption><think>1. x</think><answer>5</answer>"
    rollouts = (make_rollout(GOOD), make_rollout("red"), make_rollout("red", is_finished=False), make_rollout(other))
    groups = [RolloutGroup(make_prompt(0), rollouts[:2]), RolloutGroup(make_prompt(1), rollouts[2:])]
    metrics = rollout_metrics(groups, list(map(parse_rollout, rollouts)))
    assert metrics.pop("rollout/repetition") is not None and metrics.pop("rollout/distinct_2") is not None
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    assert lengths[1:3] == [2, 1]
    assert metrics == {
        "rollout/count": 4,
        "rollout/valid_count": 2,
        "rollout/valid_fraction": 0.5,
        "rollout/truncated_count": 1,
        "rollout/length": pytest.approx(sum(lengths) / 4),
        "rollout/longest": max(lengths),
        "rollout/num_steps": 2,
        "rollout/num_items": 1.5,
    }


def test_repetition_and_variety_of_all_texts_by_hand(make_prompt: Make, make_rollout: Make) -> None:
    """Valid or not. Of the 4-grams 2 2 2 2, 2 2 2 2 one stood there before, of the other text none. The 4 + 4
    pairs are 2 2 and red blue, blue red, red red, red blue: four different ones. "red" has neither."""
    texts = ("2 2 2 2 2", "red blue red red blue", "red")
    rollouts = tuple(make_rollout(text, is_finished=False) for text in texts)
    metrics = rollout_metrics([RolloutGroup(make_prompt(0), rollouts)], list(map(parse_rollout, rollouts)))
    assert metrics["rollout/repetition"] == pytest.approx((1 / 2 + 0) / 2)
    assert metrics["rollout/distinct_2"] == pytest.approx(4 / 8)
    single = rollout_metrics([RolloutGroup(make_prompt(0), rollouts[2:])], [parse_rollout(rollouts[2])])
    assert single["rollout/repetition"] is None and single["rollout/distinct_2"] is None


def test_shapes_are_missing_where_nothing_is_valid(make_prompt: Make, make_rollout: Make) -> None:
    group = RolloutGroup(make_prompt(0), (make_rollout("red"),))
    metrics = rollout_metrics([group], [parse_rollout(group.rollouts[0])])
    assert metrics["rollout/num_steps"] is None and metrics["rollout/num_items"] is None
    assert metrics["rollout/valid_fraction"] == 0
