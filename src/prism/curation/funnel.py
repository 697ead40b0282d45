"""What went in, what went on, and why the rest did not."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from prism.curation.store import Store


@dataclass(frozen=True, slots=True)
class Funnel:
    """Counts of one step over the rows that got as far as it; `num_in` is the sum of all the others.

    `num_pending` are rows that it has not looked at yet.
    """

    step: str
    num_kept: int = 0
    num_pending: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    passed: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_in(self) -> int:
        return self.num_kept + self.num_pending + sum(self.dropped.values()) + sum(self.passed.values())

    def lines(self) -> list[str]:
        """For a person: the counts, then every reason with its count, the most frequent first."""
        num_passed, num_dropped = sum(self.passed.values()), sum(self.dropped.values())
        counts = f"{self.num_in:,} in, {self.num_kept:,} kept, {num_passed:,} passed, {num_dropped:,} dropped"
        pending = f", {self.num_pending:,} to do" if self.num_pending else ""
        reasons = [
            f"  {count:>9,} {status}: {reason}"
            for status, counts in (("dropped", self.dropped), ("passed", self.passed))
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        return [f"{self.step}: {counts}{pending}", *reasons]


def count_step(store: Store, step: str) -> Funnel:
    """The funnel of a step's newest run. Raises DataError for a step that has not run."""
    run = store.newest_run(step)
    counts: dict[str | None, Counter[str]] = {key: Counter() for key in ("kept", "dropped", "passed", None)}
    for shard in store.reading():
        for status, reason, count in shard.count(store.chain.before(step), run.id):
            counts[status][reason or ""] += count
    return Funnel(step, counts["kept"].total(), counts[None].total(), dict(counts["dropped"]), dict(counts["passed"]))


def count_import(store: Store) -> dict[str, Funnel]:
    """By source: the rows that are in the store, and the rejected ones by reason."""
    rows: Counter[str] = Counter()
    rejects: dict[str, Counter[str]] = {}
    with store.reading_all() as shards:
        for shard in shards:
            rows.update(dict(shard.count_rows()))
            for source, number, reason in shard.rejects():
                # One that was rejected by one process, and later imported by another, which cannot write here.
                if not any(other.has_number(source, number) for other in shards):
                    rejects.setdefault(source, Counter())[reason] += 1
    return {
        source: Funnel(f"import of {source}", rows[source], dropped=dict(rejects.get(source, {})))
        for source in sorted({*rows, *rejects})
    }
