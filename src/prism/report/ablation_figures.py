"""The paper's figures, redrawn from an ablation."""

from collections.abc import Mapping, Sequence
from itertools import product

from prism.config import BranchAdvantage, Dapo, MixedAdvantage, Recipe
from prism.report.ablation import Cell, Listing
from prism.report.ablation_checkpoints import ITEMS_RIGHT, OVERALL, Group
from prism.report.charts import Line, Marks, line_chart, percent, plain
from prism.report.curves import KEPT_NOTE, course, seed_lines, stage_lines
from prism.report.distributions import DISTANCE_LEAD, distribution_panels, distributions_legend
from prism.report.identity import VIEWS, algorithm_title, seeds_title
from prism.report.markup import Html, element, join
from prism.report.results import MODES
from prism.report.rundir import Run
from prism.report.statistics import over_seeds
from prism.report.tables import SCOPES, forests

_ALPHAS = ("align.advantage.alpha", "align.advantage.base.alpha")
_VIEW_TITLES = {"response": "whole response"}


def difference_plots(listing: Listing, cells: Sequence[Cell], group: Group, mode: str) -> Html | None:
    """The reference cell less each: a panel for each scope of accuracy, and one for descriptions."""
    measured = [(cell, cell.checkpoints[group].gains[mode]) for cell in cells if group in cell.checkpoints]
    titles = [*SCOPES.values(), "Described items right"]
    places = [*range(len(SCOPES)), ITEMS_RIGHT]
    return forests(
        {
            title: [(cell.name, cell.colour, gains[place]) for cell, gains in measured]
            for title, place in zip(titles, places, strict=True)
        }
    )


GameLines = Mapping[str, Line]
"""metric → its mean over a cell's seeds"""


def game_lines(cell: Cell, run: Run) -> GameLines:
    """Score gaps and discriminator accuracies during alignment, if the cell is the reference or one that
    changes the discriminator; nothing otherwise."""
    changes = cell.changes
    is_drawn = changes is not None and (not changes or any(key.startswith("discriminator.") for key in changes))
    mode = run.recipe.discriminator.type
    label = cell.name if cell.name == mode else f"{cell.name} ({mode})"
    lines = {}
    for metric in (f"{prefix}/{view}" for prefix in ("gap", "accuracy") for view in VIEWS if is_drawn):
        drawn = stage_lines(run, "align", metric, label=label, colour=cell.colour)
        strong = [line for line in drawn if not line.is_faint]
        if strong:
            lines[metric] = strong[0]
    return lines


def game_section(found: Sequence[GameLines], band: tuple[float, float]) -> Html | None:
    """None where no discriminator was trained; `band` is where the reference is to keep accuracy."""
    if not any(found):
        return None
    low, high = band
    lead = (
        "The reference and the cells that change the discriminator, by mode; means over the seeds where every seed "
        "has a value. The gap is the teacher's mean score minus the policy's. Scores of different discriminators "
        "have no common unit: compare when a gap closes, not how large it is. Accuracy is on fresh rollouts before "
        f"the discriminator learns from them; the band is {percent(low)} to {percent(high)}."
    )
    gaps = [
        line_chart(f"Score gap, {title}", lines, marks=Marks(level=0.0), is_named=True)
        for title, lines in _by_view(found, "gap").items()
    ]
    accuracies = [
        line_chart(
            f"Discriminator accuracy, {title}",
            lines,
            y_range=(0.0, 1.0),
            label=percent,
            marks=Marks(band=band, level=0.5),
            is_named=True,
        )
        for title, lines in _by_view(found, "accuracy").items()
    ]
    return element(
        "section",
        element("h2", "Discriminators"),
        element("p", lead, class_="lead"),
        element("div", *gaps, class_="charts"),
        element("div", *accuracies, class_="charts"),
        id="game",
    )


COURSES = {"rollout/length": "Response length, tokens", "reward/accuracy": "Right answers of the rollouts"}

CourseLines = Mapping[tuple[str, str], Line]
"""(algorithm, metric) → its mean over a cell's seeds"""


def course_lines(cell: Cell, run: Run) -> CourseLines:
    """Length and accuracy of rollouts in alignment and RLVR, if the cell is the reference or one without alignment;
    nothing otherwise."""
    is_drawn = cell.changes is not None and (not cell.changes or run.recipe.align is None)
    if not is_drawn:
        return {}
    algorithms = {stage.name: stage.algorithm.name for stage in run.planned.values() if stage.algorithm is not None}
    lines = {}
    for name, metric in product(algorithms, COURSES):
        found = [(stage.seed, course(run, stage, metric)) for stage in run.over_seeds(name)]
        series = [(seed, points) for seed, points in found if points is not None]
        strong = [line for line in seed_lines(series, cell.name, cell.colour) if not line.is_faint]
        if strong:
            lines[algorithms[name], metric] = strong[0]
    return lines


def course_section(found: Mapping[str, CourseLines], recipes: Mapping[str, Recipe | None]) -> Html | None:
    """A row of charts for each algorithm; None where RLVR has not begun. Both are by cell."""
    drawn = [recipe for name, lines in found.items() if lines and (recipe := recipes[name]) is not None]
    algorithms = dict.fromkeys(algorithm for lines in found.values() for algorithm, _ in lines)
    if not algorithms:
        return None
    start = _start(drawn)
    lead = (
        "The reference and the cells without alignment, means over the seeds where every seed has a value, in steps "
        f"after {start}: the reference first spends its steps of alignment. Training prompts differ between alignment "
        "and RLVR."
    )
    filtered = {a.name for recipe in drawn if recipe.rlvr for a in recipe.rlvr.algorithms if isinstance(a, Dapo)}
    rows = []
    for algorithm in algorithms:
        is_filtered = algorithm in filtered
        charts = [
            line_chart(
                f"{title}, of kept groups" if is_filtered else title,
                [lines[algorithm, metric] for lines in found.values() if (algorithm, metric) in lines],
                x_label=f"steps after {start}",
                label=percent if metric.startswith("reward/") else plain,
                is_named=True,
            )
            for metric, title in COURSES.items()
        ]
        note = element("p", KEPT_NOTE, class_="note") if is_filtered else None
        rows += [join(element("h3", algorithm_title(algorithm)), note, element("div", *charts, class_="charts"))]
    heading = element("h2", "Rollouts of alignment and RLVR")
    return element("section", heading, element("p", lead, class_="lead"), *rows, id="course")


def _start(recipes: Sequence[Recipe]) -> str:
    """What the first step that is drawn comes after."""
    starts = {"SFT" if recipe.sft or recipe.second_sft else "the base" for recipe in recipes}
    return starts.pop() if len(starts) == 1 else "SFT, or the base without one"


def _by_view(found: Sequence[GameLines], prefix: str) -> dict[str, list[Line]]:
    """The lines of all cells for each view that any of them has."""
    views = {view: [lines[f"{prefix}/{view}"] for lines in found if f"{prefix}/{view}" in lines] for view in VIEWS}
    return {_VIEW_TITLES.get(view, view): lines for view, lines in views.items() if lines}


def cell_distributions(run: Run) -> Html | None:
    """Panels and distances of the checkpoints after SFT, alignment and RLVR; None where none was evaluated."""
    names = [name for name in run.evaluated_names if run.kind(name) in ("sft", "second_sft", "align", "rlvr")]
    return distribution_panels(run, names) if names else None


def cell_distributions_section(panels: Mapping[str, Html], opened: Sequence[str]) -> Html | None:
    """`panels` by cell; those of the cells `opened` are in sight, the others folded away."""
    if not panels:
        return None
    shown = [part for name in opened if name in panels for part in (element("h3", f"Cell {name}"), panels[name])]
    folded = [
        element("details", element("summary", f"Cell {name}"), part)
        for name, part in panels.items()
        if name not in opened
    ]
    return element(
        "section",
        element("h2", "Distributions"),
        element("p", DISTANCE_LEAD, class_="lead"),
        distributions_legend(),
        *shown,
        *folded,
        id="distributions",
    )


def alpha_section(listing: Listing, cells: Sequence[Cell]) -> Html | None:
    """Accuracy against α over the cells that change nothing else; None with fewer than two values of it."""
    varied = {alpha: cell for cell in cells if (alpha := _alpha(cell)) is not None}
    if len(varied) < 2:
        return None
    views = []
    for mode in MODES:
        series = [_alpha_line(varied, group, mode) for group in listing.groups]
        edges = [limit for line in series for limit in _edges(line)]
        if edges:
            margin = 0.06 * (max(edges) - min(edges)) or 0.01
            y_range = (max(0.0, min(edges) - margin), min(1.0, max(edges) + margin))
            options = {"x_label": "α", "y_range": y_range, "label": percent, "is_counted": False}
            charts = [line_chart(line.label, [line], **options) for line in series if line.points]
            heading = element("h3", f"Accuracy over all sub-benchmarks, {mode}")
            views.append(element("div", heading, element("div", *charts, class_="charts"), class_=f"only-{mode}"))
    if not views:
        return None
    lead = (
        "Weight α of the description's score against the reasoning's, all else as in the reference, over the seeds "
        "that all of these cells have. 95% intervals where these are one, or three and more."
    )
    return element(
        "section", element("h2", "Accuracy against α"), element("p", lead, class_="lead"), *views, id="alpha"
    )


def _alpha(cell: Cell) -> float | None:
    """The cell's α if it is the reference or differs from it in nothing else."""
    if cell.recipe is None or cell.recipe.align is None or cell.changes is None:
        return None
    if not set(cell.changes) <= set(_ALPHAS):
        return None
    form = cell.recipe.align.advantage
    return (form if isinstance(form, BranchAdvantage | MixedAdvantage) else form.base).alpha


def _alpha_line(varied: Mapping[float, Cell], group: Group, mode: str) -> Line:
    """Over the seeds that all cells have which have any: another seed has other questions and another base."""
    measured = {
        alpha: scores
        for alpha, cell in sorted(varied.items())
        if group in cell.checkpoints and (scores := cell.checkpoints[group].seed_scores[mode][OVERALL])
    }
    shared = [seed for seed in next(iter(measured.values()), ()) if all(seed in scores for scores in measured.values())]
    points, intervals = [], []
    for alpha, scores in measured.items():
        score = over_seeds([scores[seed] for seed in shared])
        if score is None:
            continue
        points.append((alpha, score.mean))
        if score.low is not None and score.high is not None and not score.is_pair:
            intervals.append((alpha, max(0.0, score.low), min(1.0, score.high)))
    title = f"{group.title}, {seeds_title(shared)}" if shared else group.title
    return Line(title, "c-cell-1", tuple(points), intervals=tuple(intervals))


def _edges(line: Line) -> list[float]:
    values = [y for _, y in line.points if y is not None]
    return values + [limit for _, low, high in line.intervals for limit in (low, high)]
