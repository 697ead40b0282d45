"""Shares of right answers, overall and by a key of the items; samples of one item count as one item."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from prism.evals.benchmarks.benchmark import Headline, ItemScore
from prism.evals.statistics import Interval, share_interval

SEPARATOR = "; "
"""Between the values of a key that may have several, such as the skills an item needs."""


def accuracy(scores: Sequence[ItemScore]) -> Interval:
    """Mean over items of the share of their samples that are right; what no rule decided is not right."""
    samples: dict[str, list[float]] = {}
    for score in scores:
        samples.setdefault(score.item_id, []).append(float(score.is_correct is True))
    return share_interval(samples, {score.item_id: score.cluster for score in scores})


def item_accuracy(scores: Sequence[ItemScore]) -> dict[str, float]:
    """Share of right samples of each item; one that the rules left undecided is not right."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for score in scores:
        verdicts[score.item_id].append(score.is_correct is True)
    return {item: fmean(values) for item, values in verdicts.items()}


ACCURACY = Headline("accuracy", item_accuracy)


def accuracy_by(scores: Sequence[ItemScore], key: str, metric: str | None = None) -> dict[str, Interval]:
    """`accuracy` of the items with each value of `key`, as `<metric or key>/<value>`, in the order of the values."""
    return _grouped(scores, metric or key, lambda score: [score.keys[key]] if score.keys.get(key) else [])


def accuracy_by_each(scores: Sequence[ItemScore], key: str, metric: str | None = None) -> dict[str, Interval]:
    """`accuracy_by` for a key with several values; an item counts for each of them."""
    return _grouped(scores, metric or key, lambda score: filter(None, score.keys.get(key, "").split(SEPARATOR)))


def _grouped(
    scores: Sequence[ItemScore], metric: str, values: Callable[[ItemScore], Iterable[str]]
) -> dict[str, Interval]:
    groups: dict[str, list[ItemScore]] = {}
    for score in scores:
        for value in values(score):
            groups.setdefault(value, []).append(score)
    return {f"{metric}/{value}": accuracy(groups[value]) for value in sorted(groups)}
