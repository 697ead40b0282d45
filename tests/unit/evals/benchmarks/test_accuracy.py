"""Accuracy over items and groups, by hand-counted shares."""

import pytest

from prism.evals.benchmarks.accuracy import accuracy, accuracy_by, accuracy_by_each
from prism.evals.benchmarks.benchmark import ItemScore


def score(item_id: str, is_correct: bool | None, cluster: str = "", **keys: str) -> ItemScore:
    return ItemScore("b", item_id, cluster or item_id, "strict", is_correct, "rule", keys=keys)


def test_samples_count_within_their_item_and_undecided_is_not_right() -> None:
    scores = [score("1", True), score("1", False), score("1", None), score("1", True), score("2", True)]
    assert accuracy(scores).mean == pytest.approx((0.5 + 1) / 2)
    assert accuracy([score("1", None), score("2", True)]).mean == 0.5
    assert accuracy([]).mean is None


def test_families_are_what_counts_as_independent() -> None:
    scores = [score(str(item), item < 10, cluster=str(item % 10)) for item in range(20)]
    assert accuracy(scores).count == 10
    assert accuracy([score(str(item), item < 10) for item in range(20)]).count == 20


def test_groups_are_named_after_key_and_value() -> None:
    scores = [score("1", True, level="2"), score("2", False, level="2"), score("3", True, level="1"), score("4", True)]
    found = accuracy_by(scores, "level")
    assert {name: interval.mean for name, interval in found.items()} == {"level/1": 1.0, "level/2": 0.5}


def test_an_item_counts_for_each_of_its_values() -> None:
    scores = [score("1", True, skills="logic; algebra"), score("2", False, skills="logic"), score("3", True)]
    found = accuracy_by_each(scores, "skills", "skill")
    assert {name: interval.mean for name, interval in found.items()} == {"skill/algebra": 1.0, "skill/logic": 0.5}
