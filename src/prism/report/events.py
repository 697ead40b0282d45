"""What happened in the game: what collapse control did, and what a game played to its end is warned of, and why."""

from collections.abc import Iterator

from prism.report.charts import plain
from prism.report.identity import seeds_title
from prism.report.markup import Html, cells_table, element
from prism.report.rundir import Row, Run

_VERBS = {"start": "starts", "turn": "turns round", "end": "ends"}
_OUTCOMES = {"stop": "stopped", "warning": "warning"}


def events_section(run: Run) -> Html | None:
    """A row for every event of every seed's alignment; None where nothing was watched and there is no warning."""
    stages = run.over_seeds("align")
    is_watched = run.recipe.align is not None and run.recipe.align.control is not None
    if not any(stage.events for stage in stages) and not (is_watched and stages):
        return None
    rows = [(stage.seed, *describe_event(event)) for stage in stages for event in stage.events]
    titles = ("Seed", "Step", "What", "Why", "Change")
    lead = (
        "A reaction changes how the game is played from the next step on, until accuracy is back inside its band; a "
        "game that has failed is stopped; a warning, of one step or of the whole game in hindsight, stops nothing."
    )
    return element(
        "section",
        element("h2", "What happened in the game"),
        element("p", lead, class_="lead"),
        cells_table(titles, rows) if rows else element("p", "Nothing happened: no reaction started.", class_="absent"),
        id="control",
    )


def describe_event(event: Row) -> tuple[str, str, str, str]:
    """Step, what happened, why, and which settings changed."""
    kind = str(event.get("event", ""))
    what = f"{event.get('reaction', '')} {_VERBS.get(kind, kind)}"
    if kind in _OUTCOMES:
        what = f"{_OUTCOMES[kind]}: {event.get('diagnosis', '')}"
    changed = event.get("changed") or {}
    changes = [
        f"{name.replace('_', ' ')} {plain(before)} → {plain(after)}" for name, (before, after) in changed.items()
    ]
    return str(event.get("step", "")), what, str(event.get("reason", "")), ", ".join(changes) or "–"


def warning_lines(run: Run) -> list[str]:
    """Each warning of each seed's alignment in a line of its own, with what was measured."""
    return [
        f"Warning, alignment of seed {seed}: {name}: {event.get('reason', '')}" for seed, name, event in _warnings(run)
    ]


def warnings_note(run: Run) -> str:
    """The names of the warnings with their seeds, empty where there is none."""
    seeds: dict[str, dict[int, None]] = {}
    for seed, name, _ in _warnings(run):
        seeds.setdefault(name, {})[seed] = None
    return ", ".join(f"{name} ({seeds_title([*found])})" for name, found in seeds.items())


def _warnings(run: Run) -> Iterator[tuple[int, str, Row]]:
    for stage in run.over_seeds("align"):
        for event in stage.events:
            if event.get("event") == "warning":
                yield stage.seed, str(event.get("diagnosis", "")), event
