"""How far each checkpoint's responses are from the teacher's, as its evaluation measured it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mode as most_common

from prism.report.identity import stage_title
from prism.report.markup import Html, element, join
from prism.report.results import MODES
from prism.report.rundir import Row, Run, Stage, metric_value
from prism.report.statistics import Estimate, over_seeds
from prism.report.tables import interval_note, seeds_note

MEASURES: Mapping[str, tuple[str, str]] = {
    "description/items": ("Described items", "items"),
    "description/length": ("Length of the description", "words"),
    "description/unigrams": ("Words of the description", "bits"),
    "description/bigrams": ("Word pairs of the description", "bits"),
    "reasoning/steps": ("Reasoning steps", "steps"),
    "reasoning/length": ("Length of the reasoning", "words"),
    "reasoning/unigrams": ("Words of the reasoning", "bits"),
    "reasoning/bigrams": ("Word pairs of the reasoning", "bits"),
    "whole/length": ("Length of the whole response", "words"),
}
"""Name in `summary.json` → title and unit; what is in bits is at most 1."""

_REFERENCES = {
    "test": "the same prompts",
    "alignment": "the alignment prompts, which are others, so that even the teacher itself would not be at 0",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """A distance over the seeds; `is_within_floor` where, in each of them, a perfect imitator may be as far away."""

    estimate: Estimate
    is_within_floor: bool


@dataclass(frozen=True, slots=True)
class _Column:
    """A checkpoint with what was found of each of `MEASURES`."""

    title: str
    drifts: tuple[Drift | None, ...]

    @property
    def estimates(self) -> list[Estimate]:
        return [drift.estimate for drift in self.drifts if drift is not None]

    @property
    def count(self) -> int | None:
        """The number of prompts behind most of its measures."""
        counts = [estimate.count for estimate in self.estimates if estimate.count is not None]
        return most_common(counts) if counts else None

    @property
    def num_seeds(self) -> int:
        """The seeds behind its best covered measure."""
        return max((estimate.num_seeds for estimate in self.estimates), default=0)


def drift_tables(run: Run, names: Sequence[str]) -> Html | None:
    """For each mode a table with a column for every checkpoint of `names`; None where no drift was measured.

    The base is left out: the tiny one is asked for a brief answer, and its distances say nothing of it.
    """
    trained = [name for name in names if run.kind(name) != "base"]
    found = {mode: _columns(run, trained, mode) for mode in MODES}
    if not any(column.estimates for columns in found.values() for column in columns):
        return None
    views = [
        element("div", element("h3", f"Drift from the teacher, {mode}"), _table(run, columns), class_=f"only-{mode}")
        for mode, columns in found.items()
    ]
    return join(*views, element("p", _note(run, trained), class_="note"))


def drift_over_seeds(stages: Sequence[Stage], mode: str, measure: str) -> Drift | None:
    """None where no seed could measure it; a seed without a floor is not taken to be within one."""
    estimates, are_within = [], []
    for stage in stages:
        entry = (_drift_of(stage).get(mode) or {}).get(measure) or {}
        mean, low, high, plug_in, floor = (metric_value(entry, key) for key in _NUMBERS)
        if mean is not None:
            estimates.append(Estimate(mean, low, high, entry.get("count")))
            are_within.append(plug_in is not None and floor is not None and plug_in <= floor)
    estimate = over_seeds(estimates)
    return None if estimate is None else Drift(estimate, all(are_within))


_NUMBERS = ("mean", "low", "high", "plug_in", "floor")


def _drift_of(stage: Stage) -> Row:
    return (stage.summary or {}).get("drift") or {}


def _columns(run: Run, names: Sequence[str], mode: str) -> list[_Column]:
    return [
        _Column(stage_title(name), tuple(drift_over_seeds(run.over_seeds(name), mode, measure) for measure in MEASURES))
        for name in names
    ]


def _table(run: Run, columns: Sequence[_Column]) -> Html:
    groups = (element("th"), element("th", "Checkpoint", colspan=len(columns), scope="colgroup", class_="starts"))
    names = (element("th", "Distance", scope="col", class_="first"), *(_head(run, column) for column in columns))
    head = element("thead", element("tr", *groups), element("tr", *names))
    rows = [
        element(
            "tr",
            element("th", title, element("small", unit), scope="row"),
            *(_cell(column, place, unit) for column in columns),
        )
        for place, (title, unit) in enumerate(MEASURES.values())
    ]
    table = element("table", head, element("tbody", *rows))
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Drift")


def _head(run: Run, column: _Column) -> Html:
    count = f"n = {column.count:,}" if column.count is not None else ""
    notes = (seeds_note(column.estimates, len(run.seeds)), count)
    return element("th", column.title, *(element("small", note) for note in notes if note), scope="col")


def _cell(column: _Column, place: int, unit: str) -> Html:
    """The numbers of prompts and of seeds stand here where they are not those in the column's head."""
    drift = column.drifts[place]
    if drift is None:
        return element("td", "–", title="not measured")
    estimate = drift.estimate
    is_own = estimate.count not in (None, column.count)
    own_count = f"n = {estimate.count:,}" if is_own else ""
    notes = (_limits(estimate, unit), own_count, seeds_note([estimate], column.num_seeds))
    mark = " *" if drift.is_within_floor else None
    return element("td", _number(estimate.mean, unit), mark, *(element("small", note) for note in notes if note))


def _number(value: float, unit: str) -> str:
    return f"{value:.4f}" if unit == "bits" else f"{value:,.2f}"


def _limits(estimate: Estimate, unit: str) -> str:
    """Limits that reach past what a distance can be are cut there; of two seeds the value of each."""
    if estimate.is_pair:
        return " · ".join(_number(value, unit) for value in estimate.by_seed)
    if estimate.low is None or estimate.high is None:
        return "[–]"
    high = min(estimate.high, 1.0) if unit == "bits" else estimate.high
    return f"{_number(max(estimate.low, 0.0), unit)}–{_number(high, unit)}"


def _note(run: Run, names: Sequence[str]) -> str:
    sources = {_drift_of(stage).get("reference") for name in names for stage in run.over_seeds(name)}
    prompts = ", elsewhere to ".join(text for source, text in _REFERENCES.items() if source in sources)
    intervals = "Intervals are over prompts, of which there are n."
    if len(run.seeds) > 1:
        intervals = interval_note(len(run.seeds), units="prompts")
    return (
        "Distances between a checkpoint's responses on the test set and the teacher's"
        f"{f' to {prompts}' if prompts else ''}; 0 is equal. Items, steps and words are Wasserstein-1 distances "
        "between the numbers per response, bits are Jensen-Shannon divergences between the words or word pairs, at "
        "most 1. * cannot be told from no drift: in every seed a perfect imitator may be as far away by chance. No "
        f"distance is below 0, so an interval above 0 shows no drift by itself. {intervals}"
    )
