"""Carries a step out over the rows of a store that it has not decided yet.

Outcomes are committed every second or so. A run killed at any moment loses what came since: those rows are looked at
again, and nothing is recorded twice. SIGTERM and Ctrl-C end it after the rows that are being worked on.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from prism.curation.chain import StepRun
from prism.curation.rows import NUM_UNANSWERED, Outcome, Row, Step, WholeStep
from prism.curation.shard import Shard
from prism.curation.store import Part, Store
from prism.curation.timing import note_timing
from prism.errors import DataError
from prism.runtime.interrupt import Interrupted, InterruptFlag
from prism.runtime.progress import make_console, say

Work = Callable[[Iterator[Row]], Iterator[Outcome]]
Execute = Callable[[Work, Iterator[Row]], Iterator[Outcome]]

_COMMIT_EVERY_S = 1.0
_SAY_EVERY_S = 30.0


def here(work: Work, rows: Iterator[Row]) -> Iterator[Outcome]:
    """In this process."""
    return work(rows)


def run_step(
    store: Store, step: Step, part: Part | None = None, execute: Execute = here, *, resolve_doubts: bool = False
) -> int:
    """Outcomes for all rows of the part that have none under these settings, or one with requests that nobody answered;
    returns how many.

    `execute` may have others do the work (see `processes`, `on_ray`). With `resolve_doubts` rows are looked at again
    for which requests are in doubt. Raises Interrupted after a signal, with everything recorded that was done.
    """
    with ExitStack() as stack:
        shards = stack.enter_context(store.writing(part or Part()))
        run = store.chain.register(step.name, step.settings)
        flag = stack.enter_context(InterruptFlag())
        behind = [other.id for other in store.chain.behind(run)]
        if resolve_doubts:
            for shard in shards.values():
                shard.remove_doubtful(run.id, behind)
        count, seconds = _record(store, shards, run, execute(step.run, _pending(shards, run, flag)), behind)
        note_timing(store.directory, run.id, count, seconds * _num_at_work(execute))
        _stop_if_asked(flag, run)
    return count


def run_whole_step(store: Store, step: WholeStep, part: Part | None = None, execute: Execute = here) -> int:
    """The features of the part's rows and, where the part is the whole store, the outcomes of all; returns how many.

    So array tasks may find the features and one process afterwards decides. Outcomes are found anew whenever a row
    has none, for a new row may change what is said of the others; what steps behind said on these grounds goes too.
    """
    part = part or Part()
    with ExitStack() as stack:
        shards = stack.enter_context(store.writing(part))
        feature = store.chain.register(step.name, step.settings, role="feature")
        run = store.chain.register(step.name, step.settings)
        flag = stack.enter_context(InterruptFlag())
        described = execute(partial(_describe, step), _pending(shards, feature, flag))
        # The time of a row is that of its feature: of the decision a process has as much, whoever else helps.
        count, seconds = _record(store, shards, feature, described)
        note_timing(store.directory, run.id, count, seconds * _num_at_work(execute))
        _stop_if_asked(flag, run)
        if not part.is_whole or not any(True for _ in _pending(shards, run, flag)):
            return 0
        for shard in shards.values():
            for stale in (run, *store.chain.behind(run)):
                shard.remove_outcomes(stale.id)
            shard.commit()
        return _record(store, shards, run, step.decide(_Features(shards, feature)))[0]


def _describe(step: WholeStep, rows: Iterator[Row]) -> Iterator[Outcome]:
    return (Outcome(row_id, "kept", findings=value) for row_id, value in step.describe(rows))


class _Features:
    """The features of all rows that got as far as the step; can be read more than once."""

    def __init__(self, shards: dict[int, Shard], feature: StepRun) -> None:
        self._shards, self._feature = shards, feature

    def __iter__(self) -> Iterator[tuple[str, dict]]:
        for _, shard in sorted(self._shards.items()):
            yield from shard.findings(self._feature.before, self._feature.id)


def _pending(shards: dict[int, Shard], run: StepRun, flag: InterruptFlag) -> Iterator[Row]:
    for _, shard in sorted(shards.items()):
        for row in shard.rows(run.before, without=run.id):
            if flag.signal_number is not None:
                return
            yield row


def _num_at_work(execute: Execute) -> int:
    """The processes that share the work, as far as they are known: not on Ray."""
    return getattr(execute, "num_at_work", 1)


def _record(
    store: Store, shards: dict[int, Shard], run: StepRun, outcomes: Iterable[Outcome], behind: Sequence[str] = ()
) -> tuple[int, float]:
    """How many there were, and the seconds that it took."""
    console = make_console()
    count, num_unanswered, start = 0, 0, time.monotonic()
    committed = said = start
    for outcome in outcomes:
        number = store.shard_of(outcome.row_id)
        if number not in shards:
            raise DataError(f"step {run.name!r} gave an outcome for {outcome.row_id!r}, which it was not asked about")
        shards[number].add_outcome(run.id, outcome, behind)
        count += 1
        num_unanswered += NUM_UNANSWERED in outcome.findings
        now = time.monotonic()
        if count == 1:
            said = now  # a decision on all rows may take long before the first
        if now - committed > _COMMIT_EVERY_S:
            for shard in shards.values():
                shard.commit()
            committed = time.monotonic()
        if now - said > _SAY_EVERY_S:
            say(console, f"{run.name}: {count:,} rows, {count / (now - start):,.0f} rows/s")
            said = now
    for shard in shards.values():
        shard.commit()
    if num_unanswered:
        advice = "the same command sends these again"
        say(console, f"{run.name}: {num_unanswered:,} rows have requests that nobody answered; {advice}")
    return count, time.monotonic() - start


def _stop_if_asked(flag: InterruptFlag, run: StepRun) -> None:
    if flag.signal_number is not None:
        raise Interrupted(flag.signal_number, f"{run.name}: stopped; give the same command again to go on")
