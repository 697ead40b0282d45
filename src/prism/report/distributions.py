"""How many reasoning steps and described items responses have, and how far they are from the teacher's."""

from collections.abc import Mapping, Sequence

from prism.report.drift import drift_tables
from prism.report.identity import stage_colour, stage_title
from prism.report.markup import Html, element, join
from prism.report.plots import histogram, integer_bins, shares
from prism.report.results import MODES, counts_of
from prism.report.rundir import Run
from prism.report.statistics import total_variation

_FIELDS = {"num_steps": "Reasoning steps per response", "num_items": "Described items per response"}


def distributions_section(run: Run) -> Html | None:
    if not any(stage.items for stage in run.stages.values()):
        return None
    lead = "Responses on the test set against the teacher's demonstrations; d is their total variation distance."
    return element(
        "section",
        element("h2", "Distributions"),
        element("p", lead, class_="lead"),
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
    absent = None if run.teacher else element("p", "The teacher's distribution was not recorded.", class_="absent")
    views = [
        element("div", *(_field_panels(run, names, field, mode) for field in _FIELDS), class_=f"only-{mode}")
        for mode in MODES
    ]
    return join(absent, *views, drift_tables(run, names))


def teacher_counts(run: Run, field: str) -> dict[int, int]:
    """Counts summed over the seeds."""
    total: dict[int, int] = {}
    for distribution in run.teacher.values():
        for value, count in distribution.get(field, {}).items():
            total[int(value)] = total.get(int(value), 0) + count
    return total


def _field_panels(run: Run, names: Sequence[str], field: str, mode: str) -> Html | None:
    teacher = teacher_counts(run, field)
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
    distance = total_variation(counts, teacher)
    shown = [f"d = {distance:.2f}"] if distance is not None else []
    line = " · ".join([*shown, f"mean {mean:.1f}", f"n = {count:,}"])
    return [line, f"{num_without / (count + num_without):.1%} of responses had none to count"]
