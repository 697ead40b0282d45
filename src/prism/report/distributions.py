"""How many reasoning steps and described items responses have, and how far they are from the teacher's."""

from collections.abc import Mapping, Sequence

from prism.report.drift import drift_tables
from prism.report.identity import stage_colour, stage_title
from prism.report.markup import Html, element, join
from prism.report.plots import histogram, integer_bins, shares
from prism.report.results import MODES, counts_of
from prism.report.rundir import Row, Run, Stage
from prism.report.statistics import imitators_distance, total_variation

DISTANCE_LEAD = (
    "Responses on the test set against the teacher's; d is their total variation distance, in brackets what chance "
    "alone gives to as many responses drawn from the teacher's distribution itself."
)
_QUESTIONS = {
    "test": "The teacher's responses are those to the same questions.",
    "alignment": (
        "The teacher's responses are its demonstrations for alignment, which are to other questions than the test "
        "set's: its own answers to these are some way from them, too, by more than chance."
    ),
}
_BELOW = " Drift, below, is measured from its answers to the same questions."
_FIELDS = {"num_steps": "Reasoning steps per response", "num_items": "Described items per response"}


def distributions_section(run: Run) -> Html | None:
    if not any(stage.items for stage in run.stages.values()):
        return None
    return element(
        "section",
        element("h2", "Distributions"),
        element("p", DISTANCE_LEAD, class_="lead"),
        distributions_legend(),
        distribution_panels(run, run.evaluated_names),
        id="distributions",
    )


def distributions_legend() -> Html:
    bar = element(
        "svg", element("rect", x=2, y=0, width=12, height=8, class_="bar c-align"), viewBox="0 0 16 8", class_="swatch"
    )
    outline = element("svg", element("path", d="M1,8V1H15V8", class_="teacher"), viewBox="0 0 16 8", class_="swatch")
    return element("ul", element("li", bar, "checkpoint"), element("li", outline, "teacher"), class_="legend")


def distribution_panels(run: Run, names: Sequence[str]) -> Html:
    """A panel for each of the checkpoints called `names`, in both modes, and their distances to the teacher."""
    source, teacher = teacher_counts(run)
    drift = drift_tables(run, names)
    is_of_tests = any(_is_of_tests(stage) for name in names for stage in run.over_seeds(name))
    below = _BELOW if source == "alignment" and drift is not None and is_of_tests else ""
    note = element("p", _QUESTIONS[source], below, class_="note") if source else None
    absent = None if source else element("p", "The teacher's distribution was not recorded.", class_="absent")
    views = [
        element("div", *(_field_panels(run, names, teacher, field, mode) for field in _FIELDS), class_=f"only-{mode}")
        for mode in MODES
    ]
    return join(note, absent, *views, drift)


Counts = Mapping[str, Mapping[int, int]]
"""`num_steps` and `num_items` → how often each number occurs"""


def teacher_counts(run: Run) -> tuple[str | None, Counts]:
    """Which questions the teacher answered, and what it gave, summed over the seeds: the test set's where every seed
    that was evaluated has them, else those of alignment; None where neither was recorded."""
    evaluated = dict.fromkeys(seed for (seed, _), stage in run.stages.items() if stage.summary is not None)
    to_tests = [found for seed in evaluated if (found := _to_tests(run, seed)) is not None]
    source, tables = (
        ("test", to_tests) if to_tests and len(to_tests) == len(evaluated) else ("alignment", [*run.teacher.values()])
    )
    if not tables:
        return None, {field: {} for field in _FIELDS}
    counts: dict[str, dict[int, int]] = {field: {} for field in _FIELDS}
    for field, total in counts.items():
        for table in tables:
            for value, count in table.get(field, {}).items():
                total[int(value)] = total.get(int(value), 0) + count
    return source, counts


def _to_tests(run: Run, seed: int) -> Row | None:
    """What the teacher answered to the test questions that a seed's policies were asked."""
    for stage in run.stages.values():
        found = ((stage.summary or {}).get("distribution") or {}).get("teacher")
        if stage.seed == seed and _is_of_tests(stage) and found is not None:
            return found
    return None


def _is_of_tests(stage: Stage) -> bool:
    """Whether its drift is measured from the teacher's answers to the same questions."""
    return ((stage.summary or {}).get("drift") or {}).get("reference") == "test"


def _field_panels(run: Run, names: Sequence[str], counts_of_teacher: Counts, field: str, mode: str) -> Html | None:
    teacher = counts_of_teacher[field]
    found = {}
    for name in names:
        items = [item for stage in run.over_seeds(name) for item in stage.items or ()]
        counts, num_without = counts_of(items, field, mode)
        if counts:
            found[name] = (counts, num_without)
    heading = element("h3", f"{_FIELDS[field]}, {mode}")
    if not found:
        return join(heading, element("p", "Not recorded.", class_="absent"))
    bins = integer_bins([teacher, *(counts for counts, _ in found.values())])
    everything = [teacher, *(counts for counts, _ in found.values())]
    top = 1.05 * max(share for counts in everything for share in shares(counts, bins))
    panels = []
    for name, (counts, num_without) in found.items():
        small = [element("small", line) for line in _caption(counts, num_without, teacher)]
        caption = element("figcaption", stage_title(name), *small)
        plot = histogram(
            f"{_FIELDS[field]}: {stage_title(name)}",
            counts,
            teacher,
            bins=bins,
            top=top,
            colour=stage_colour(run, name),
        )
        panels.append(element("figure", caption, plot))
    return join(heading, element("div", *panels, class_="panels"))


def _caption(counts: Mapping[int, int], num_without: int, teacher: Mapping[int, int]) -> list[str]:
    count = sum(counts.values())
    mean = sum(value * times for value, times in counts.items()) / count
    distance, by_chance = total_variation(counts, teacher), imitators_distance(teacher, count)
    shown = [f"d = {distance:.2f} ({by_chance:.2f})"] if distance is not None else []
    line = " · ".join([*shown, f"mean {mean:.1f}", f"n = {count:,}"])
    return [line, f"{num_without / (count + num_without):.1%} of responses had none to count"]
