"""What curating many rows will take, from a trial on few: each step's rows, hours and cost, and the disk.

A source is expected to fare as its rows in the trial did, step by step. Of a step's rows those that it passed on cost
it nothing; the time and the money that it took are those of the others. What counts is each step's newest run, whatever
other settings were tried before.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prism.curation.chain import StepRun
from prism.curation.funnel import count_import
from prism.curation.spending import count_spending
from prism.curation.store import Store
from prism.curation.timing import Timing, import_key, read_timings
from prism.errors import DataError


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """`num_rows` reach it and `num_worked` of them are its business; what was not measured is None."""

    name: str
    num_rows: float
    num_worked: float
    seconds_per_row: float | None
    cost_per_row: float = 0.0
    tokens_per_row: float = 0.0

    @property
    def hours(self) -> float | None:
        """Of one process."""
        return None if self.seconds_per_row is None else self.num_worked * self.seconds_per_row / 3600


@dataclass(frozen=True, slots=True)
class Forecast:
    steps: tuple[PlannedStep, ...]
    num_left: float
    num_bytes: float

    def lines(self, num_processes: int) -> list[str]:
        """For a person; `num_processes` share every step that can be shared."""
        header = f"{'step':<24}{'rows':>12}{'worked on':>12}{'ms/row':>10}{'hours':>9}{'with ' + str(num_processes):>9}"
        lines = [f"{header}{'tokens/row':>12}{'cost/row':>11}{'cost':>12}"]
        for step in self.steps:
            time = "–" if step.seconds_per_row is None else f"{1000 * step.seconds_per_row:.2f}"
            hours = ("–", "–") if step.hours is None else (f"{step.hours:.2f}", f"{step.hours / num_processes:.2f}")
            counts = f"{step.num_rows:>12,.0f}{step.num_worked:>12,.0f}"
            spent = (
                f"{step.tokens_per_row:>12,.0f}{step.cost_per_row:>11.5f}{step.num_worked * step.cost_per_row:>12,.2f}"
            )
            lines.append(f"{step.name:<24}{counts}{time:>10}{hours[0]:>9}{hours[1]:>9}{spent}")
        hours = sum(step.hours or 0.0 for step in self.steps)
        cost = sum(step.num_worked * step.cost_per_row for step in self.steps)
        lines.append(
            f"{hours:,.1f} hours of one process, {hours / num_processes:,.1f} of {num_processes}; cost {cost:,.2f}"
        )
        lines.append(f"{self.num_left:,.0f} rows are left; the store takes {self.num_bytes / 1e9:,.1f} GB")
        return lines


def forecast(store: Store, planned: Mapping[str, int]) -> Forecast:
    """`planned` rows by source. Raises DataError for a source of which the store has no row to go by."""
    timings, imports = read_timings(store.directory), count_import(store)
    for source in planned:
        if source not in imports or not imports[source].num_kept:
            known = ", ".join(sorted(imports)) or "none"
            raise DataError(f"{store.directory}: has no rows of source {source!r} to plan by; it has: {known}")
    steps: list[PlannedStep] = []
    live: dict[str, float] = {}
    for source, num_rows in planned.items():
        funnel = imports[source]
        steps.append(PlannedStep(import_key(source), num_rows, num_rows, _rate(timings, import_key(source), 1.0)))
        live[source] = num_rows * funnel.num_kept / funnel.num_in
    num_imported = sum(live.values())
    for run in store.chain.current():
        step, live = _plan_step(store, run, live, timings)
        steps.append(step)
    num_stored = sum(funnel.num_kept for funnel in imports.values())
    return Forecast(tuple(steps), sum(live.values()), _size(store.directory) / num_stored * num_imported)


def _plan_step(
    store: Store, run: StepRun, live: Mapping[str, float], timings: Mapping[str, Timing]
) -> tuple[PlannedStep, dict[str, float]]:
    """The step, and the rows by source that it lets go on."""
    counts: dict[str, Counter[str]] = {}
    for outcome in store.outcomes(run.name):
        counts.setdefault(outcome.row_id.partition("/")[0], Counter())[outcome.status] += 1
    seen = sum(counter.total() for counter in counts.values())
    if not seen:
        return PlannedStep(run.name, sum(live.values()), 0.0, None), dict(live)
    worked = seen - sum(counter["passed"] for counter in counts.values())
    num_worked, left = 0.0, {}
    for source, num_rows in live.items():
        counter = counts.get(source) or sum(counts.values(), Counter())
        num_worked += num_rows * (1 - counter["passed"] / counter.total())
        left[source] = num_rows * (1 - counter["dropped"] / counter.total())
    spending = count_spending(store, run.name, run=run.id)
    tokens = spending.prompt_tokens + spending.completion_tokens
    step = PlannedStep(
        run.name,
        sum(live.values()),
        num_worked,
        _rate(timings, run.id, worked / seen),
        cost_per_row=spending.cost / worked if worked else 0.0,
        tokens_per_row=tokens / worked if worked else 0.0,
    )
    return step, left


def _rate(timings: Mapping[str, Timing], key: str, share_worked: float) -> float | None:
    timing = timings.get(key)
    if timing is None or not share_worked:
        return None
    return timing.seconds / (timing.num_rows * share_worked)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in _files(directory))


def _files(directory: Path) -> Iterable[Path]:
    """Of shards and images: what grows with the rows."""
    for name in ("shards", "images"):
        yield from (path for path in (directory / name).rglob("*") if path.is_file())
