"""What a benchmark is: prompts from its rows, a verdict on each response, and the numbers it publishes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from prism.evals.statistics import Interval
from prism.records import Prompt

Row = Mapping[str, Any]
Profile = Literal["strict", "prism"]
"""`prism` scores as the paper's evaluation does, known defects included; `strict` has them mended."""
Judgement = Literal["correct", "incorrect", "unclear"]

PROFILES: tuple[Profile, ...] = get_args(Profile)


@dataclass(frozen=True, slots=True)
class Score:
    """What the rules of one profile make of one response.

    `answer` is the text that was compared, None where no answer could be found. `is_correct` is None
    where the rules decide nothing (the paper's evaluation draws a random option there). `needs_judge`
    says that the rules gave up and a judge would be asked; without one `is_correct` stands.
    """

    is_correct: bool | None
    rule: str
    answer: str | None = None
    needs_judge: bool = False


@dataclass(frozen=True, slots=True)
class ItemScore:
    """A `Score` with what an aggregate needs to know about its item.

    `keys` are the row's fields that the benchmark groups by, `cluster` the family whose members share
    their difficulty, `judgement` what a judge said if it was asked.
    """

    benchmark: str
    item_id: str
    cluster: str
    profile: Profile
    is_correct: bool | None
    rule: str
    answer: str | None = None
    needs_judge: bool = False
    judgement: Judgement | None = None
    sample: int = 0
    keys: Mapping[str, str] = field(default_factory=dict)


UnitValues = Callable[[Sequence[ItemScore]], Mapping[str, float]]
"""From all scores of one cluster to unit → value.

A metric is the mean of its units' values. A unit (an item, a figure, a family) has a name that is unique in
the benchmark, lies in one cluster, and exists whatever was answered. Its value averages over samples.
"""


@dataclass(frozen=True, slots=True)
class Headline:
    """The number that stands for a benchmark: the first of its `metrics`, and the units whose mean it is on rows that
    are complete."""

    metric: str
    unit_values: UnitValues


class Benchmark(Protocol):
    """One benchmark. Stateless; every method raises RowError (naming the field) on a row it cannot use."""

    name: str
    hub_id: str
    hub_configs: tuple[str, ...]
    hub_split: str
    headline: Headline
    limit_by: str | None
    """The key with whose values a limit deals evenly, since each stands for a part of the benchmark; None for none."""

    def item_id(self, row: Row) -> str:
        """Unique among the rows of the benchmark."""
        ...

    def cluster(self, row: Row) -> str:
        """The family whose members share their difficulty; the item itself where there are none."""
        ...

    def keys(self, row: Row) -> dict[str, str]:
        """What `metrics` groups by."""
        ...

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        """The question as it is put to a model, with the images in their places."""
        ...

    def score(self, row: Row, response: str, profile: Profile) -> Score: ...

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        """Whether an item counts as right after a judge has spoken."""
        ...

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        """The published aggregates as shares in [0, 1], with intervals."""
        ...


def with_judgement(benchmark: Benchmark, score: ItemScore, judgement: Judgement) -> ItemScore:
    """The item's score after a judge has spoken; it can lower a score as well as raise it."""
    return replace(score, is_correct=benchmark.judged(score, judgement), judgement=judgement)
