"""Scores of single responses and the published aggregates over them, by the benchmark's name."""

from collections.abc import Sequence

from prism.errors import DataError
from prism.evals.benchmarks import get_benchmark
from prism.evals.benchmarks.benchmark import ItemScore, Profile, Row
from prism.evals.statistics import Interval


def score_item(benchmark: str, row: Row, response: str, *, profile: Profile = "strict", sample: int = 0) -> ItemScore:
    """What the rules of `profile` make of `response`, the model's raw output for the dataset row `row`.

    Raises ConfigError for an unknown benchmark and RowError for a row it cannot use.
    """
    found = get_benchmark(benchmark)
    score = found.score(row, response, profile)
    return ItemScore(
        benchmark=benchmark,
        item_id=found.item_id(row),
        cluster=found.cluster(row),
        profile=profile,
        is_correct=score.is_correct,
        rule=score.rule,
        answer=score.answer,
        needs_judge=score.needs_judge,
        sample=sample,
        keys=found.keys(row),
    )


def aggregate(benchmark: str, records: Sequence[ItemScore]) -> dict[str, Interval]:
    """The benchmark's published metrics as shares in [0, 1], the headline first.

    Several samples of an item are averaged first. Raises DataError where records are of another
    benchmark or of more than one profile.
    """
    subjects = {(record.benchmark, record.profile) for record in records}
    if len(subjects) > 1 or any(name != benchmark for name, _ in subjects):
        found = ", ".join(sorted(f"{name}/{profile}" for name, profile in subjects))
        raise DataError(f"aggregates are of one benchmark under one profile, {benchmark}, not of {found}")
    return get_benchmark(benchmark).metrics(records)
