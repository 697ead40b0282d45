"""Training curves: seeds as faint lines, their mean as a strong one, gaps where nothing was measured."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean, median

from prism.config import SECOND_SFT, Dapo, Recipe
from prism.config.control import ControlConfig
from prism.report.charts import Line, Marks, Point, line_chart, percent, plain
from prism.report.identity import OTHER, VIEWS, stage_colour, stage_title
from prism.report.markup import Html, element
from prism.report.routing import routing_table
from prism.report.rundir import Run, Stage, metric_value

KEPT_NOTE = (
    "Of RLVR with dynamic sampling (DAPO) only the groups that it keeps are counted, those whose answers differ: this "
    "is not how often the policy is right. Of alignment all are."
)
_MANY_POINTS = 160
_SHARE = (0.0, 1.0)


def metric_points(stage: Stage, name: str, *, offset: float = 0) -> tuple[Point, ...]:
    """The metric over steps. A null is a gap, and so is a hole wider than the usual spacing of this metric."""
    found = [
        (row["step"] + offset, metric_value(row, name))
        for row in (*stage.metrics, *stage.timings)
        if name in row and metric_value(row, "step") is not None
    ]
    steps = [step for step, _ in found]
    spacing = median(b - a for a, b in pairwise(steps)) if len(steps) > 1 else 0
    points: list[Point] = []
    for step, value in found:
        if points and step - points[-1][0] > 1.5 * spacing:
            points.append(((step + points[-1][0]) / 2, None))
        points.append((step, value))
    return tuple(points)


def mean_over_seeds(series: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """The mean at the steps where every seed has a value, a gap elsewhere: a mean over a changing set of
    seeds would jump without anything having happened."""
    tables = [dict(points) for points in series]
    steps = sorted({step for table in tables for step in table})
    means: list[Point] = []
    for step in steps:
        values = [value for table in tables if (value := table.get(step)) is not None]
        means.append((step, fmean(values) if len(values) == len(tables) else None))
    return tuple(means)


def smoothed(points: Sequence[Point], window: int) -> tuple[Point, ...]:
    """Centred mean over up to `window` points; a gap stays a gap and lends no value to its neighbours."""
    half = window // 2
    result: list[Point] = []
    for index, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, index - half) : index + half + 1] if v is not None]
        result.append((x, fmean(near) if y is not None else None))
    return tuple(result)


def seed_lines(series: Sequence[tuple[int, Sequence[Point]]], label: str, colour: str) -> list[Line]:
    """`series` holds (seed, points). Long series are drawn faint with a running mean over 1/40 of them on top."""
    series = [(seed, points) for seed, points in series if any(y is not None for _, y in points)]
    if not series:
        return []
    mean = mean_over_seeds([points for _, points in series])
    is_long = len(mean) > _MANY_POINTS
    lines = []
    if len(series) > 1 or is_long:
        lines = [Line(f"{label}, seed {seed}", colour, tuple(points), is_faint=True) for seed, points in series]
    return [*lines, Line(label, colour, smoothed(mean, len(mean) // 40) if is_long else mean)]


def stage_lines(run: Run, stage: str, metric: str, *, label: str, colour: str) -> list[Line]:
    return seed_lines([(s.seed, metric_points(s, metric)) for s in run.over_seeds(stage)], label, colour)


def _view_lines(run: Run, stage: str, prefix: str, suffix: str = "") -> list[Line]:
    """A line for each view that was scored."""
    return [
        line
        for view, colour in VIEWS.items()
        for line in stage_lines(run, stage, f"{prefix}/{view}{suffix}", label=view, colour=colour)
    ]


def accuracy_band(recipe: Recipe | None) -> tuple[float, float]:
    """Accuracy on fresh rollouts that leaves the policy a signal: above it the discriminator wins, below it guesses.

    The band of the recipe's collapse control, that control's default where the recipe has none.
    """
    control = recipe.align.control if recipe and recipe.align else None
    band = control or ControlConfig()
    return band.low, band.high


def alignment_section(run: Run) -> Html | None:
    """Score gaps, discriminator accuracy and valid share over the alignment steps; None without alignment."""
    if not run.over_seeds("align"):
        return None
    band = accuracy_band(run.recipe)
    low, high = band
    lead = (
        "The adversarial game. The gap is the teacher's mean score minus the policy's, per view of a response; it "
        "closes as rollouts come to look like the teacher's. Accuracy is measured on fresh rollouts before the "
        f"discriminator learns from them; inside the shaded band, {percent(low)} to {percent(high)}, neither side has "
        "won."
    )
    valid = stage_lines(
        run, "align", "rollout/valid_fraction", label="valid rollouts", colour=stage_colour(run, "align")
    )
    charts = (
        line_chart(
            "Score gap, teacher − policy", _view_lines(run, "align", "gap"), marks=Marks(level=0.0), is_named=True
        ),
        line_chart(
            "Discriminator accuracy on fresh rollouts",
            _view_lines(run, "align", "accuracy"),
            y_range=_SHARE,
            label=percent,
            marks=Marks(band=band, level=0.5),
            is_named=True,
        ),
        line_chart("Rollouts in valid format", valid, y_range=_SHARE, label=percent),
    )
    return element(
        "section",
        element("h2", "Alignment"),
        element("p", lead, class_="lead"),
        element("div", *charts, class_="charts"),
        element("p", _pairs_note(run), class_="note"),
        routing_table(run),
        id="alignment",
    )


def _pairs_note(run: Run) -> str:
    counts = [
        value
        for stage in run.over_seeds("align")
        for row in stage.metrics
        if (value := metric_value(row, "accuracy/count")) is not None
    ]
    drawn = "Faint: single seeds. Strong: their mean where every seed has a value. " if len(run.seeds) > 1 else ""
    if not counts:
        return f"{drawn}The number of pairs behind each accuracy was not recorded."
    return f"{drawn}Pairs behind each accuracy: median {plain(median(counts))}, least {plain(min(counts))}."


def steps_before(run: Run, stage: Stage) -> float | None:
    """Alignment steps that a stage starts from, so that its curve begins where alignment ended.

    None where alignment left no steps to count.
    """
    planned = run.planned.get(stage.name)
    if planned is None or planned.start != "align":
        return 0
    align = run.stages.get((stage.seed, "align"))
    steps = [step for row in align.metrics if (step := metric_value(row, "step")) is not None] if align else []
    return max(steps) if steps else None


def course(run: Run, stage: Stage, metric: str) -> tuple[Point, ...] | None:
    """The metric in steps after SFT, of alignment first where the stage starts from it; None as for `steps_before`."""
    if (offset := steps_before(run, stage)) is None:
        return None
    align = run.stages.get((stage.seed, "align")) if offset else None
    return (*(metric_points(align, metric) if align else ()), *metric_points(stage, metric, offset=offset))


def _after_sft(run: Run, metric: str, names: Sequence[str]) -> list[Line]:
    lines = []
    for name in names:
        placed = [(stage, steps_before(run, stage)) for stage in run.over_seeds(name)]
        series = [(stage.seed, metric_points(stage, metric, offset=o)) for stage, o in placed if o is not None]
        lines += seed_lines(series, stage_title(name), stage_colour(run, name))
    return lines


def policy_section(run: Run) -> Html | None:
    """Length, entropy and rewards of every stage that samples from its policy, on one axis of steps after SFT."""
    names = [name for name in run.stage_names if run.kind(name) in ("align", "rlvr")]
    if not names:
        return None
    ends = {steps_before(run, stage) for name in names for stage in run.over_seeds(name)} - {0, None}
    marks = Marks(boundary=next(iter(ends)) if len(ends) == 1 else None)
    rlvr = [name for name in names if name != "align"]
    start = "SFT" if run.recipe.sft or run.recipe.second_sft else "the base"

    def chart(title: str, metric: str, stages: Sequence[str], *, is_share: bool = False) -> Html:
        options = {"y_range": _SHARE, "label": percent} if is_share else {}
        return line_chart(
            title, _after_sft(run, metric, stages), x_label=f"steps after {start}", marks=marks, **options
        )

    charts = [
        chart("Response length, tokens", "rollout/length", names),
        chart("Entropy of the policy, nats per token", "rollout/entropy", names),
        chart("Accuracy reward", "reward/accuracy", names, is_share=True),
    ]
    if rlvr:
        charts += [
            chart("Total reward", "reward/total", rlvr),
            chart("Format reward", "reward/format", rlvr, is_share=True),
        ]
    boundary = " The dashed line marks the end of alignment." if marks.boundary else ""
    lead = (
        f"Rollouts during training, in steps after {start}: a PRISM run first spends its alignment steps, "
        f"the baseline spends their rollouts and the warm-up's on RLVR.{boundary} Training prompts differ between "
        "alignment and RLVR."
    )
    is_filtered = any(isinstance(run.planned[name].algorithm, Dapo) for name in rlvr if name in run.planned)
    return element(
        "section",
        element("h2", "Policy during training"),
        element("p", lead, class_="lead"),
        element("p", KEPT_NOTE, class_="note") if is_filtered else None,
        element("div", *charts, class_="charts"),
        id="policy",
    )


def losses_section(run: Run) -> Html | None:
    charts = [_supervised_chart(run, name) for name in ("base", "sft", SECOND_SFT) if run.over_seeds(name)]
    if run.over_seeds("warmup"):
        held_out = _view_lines(run, "warmup", "heldout", "_accuracy")
        charts += [
            line_chart("Discriminator warm-up: loss", _view_lines(run, "warmup", "loss")),
            line_chart(
                "Discriminator warm-up: load balance",
                stage_lines(run, "warmup", "loss/balance", label="balance", colour=OTHER),
            ),
            line_chart(
                "Discriminator warm-up: held-out accuracy",
                held_out,
                y_range=_SHARE,
                label=percent,
                marks=Marks(level=0.5),
            ),
        ]
    if not charts:
        return None
    return element(
        "section",
        element("h2", "Losses"),
        element("p", "Supervised stages, and the discriminator's warm-up before the game.", class_="lead"),
        element("div", *charts, class_="charts"),
        id="losses",
    )


def _supervised_chart(run: Run, name: str) -> Html:
    train = stage_lines(run, name, "loss/nll", label="training", colour=stage_colour(run, name))
    dev = stage_lines(run, name, "loss/dev_nll", label="development", colour=OTHER)
    return line_chart(f"{stage_title(name)}: negative log-likelihood, nats per token", [*train, *dev])


_DRAWN_ABOVE: dict[str, Callable[[str], bool]] = {
    "align": lambda metric: metric in {f"{prefix}/{view}" for prefix in ("gap", "accuracy") for view in VIEWS},
    "base": lambda metric: metric in ("loss/nll", "loss/dev_nll"),
    **dict.fromkeys(("sft", SECOND_SFT), lambda metric: metric in ("loss/nll", "loss/dev_nll")),
    "warmup": lambda metric: metric.startswith("loss/") or metric in {f"heldout/{view}_accuracy" for view in VIEWS},
}
_ALWAYS_DRAWN = frozenset({"rollout/length", "rollout/entropy", "reward/total", "reward/accuracy", "reward/format"})


def other_metrics(run: Run) -> Html | None:
    """Every recorded metric that no chart above shows, folded away stage by stage."""
    folds = []
    for name in run.stage_names:
        is_drawn = _DRAWN_ABOVE.get(name, _ALWAYS_DRAWN.__contains__)
        recorded = {key for s in run.over_seeds(name) for row in (*s.metrics, *s.timings) for key in row if "/" in key}
        rest = sorted(metric for metric in recorded if not is_drawn(metric) and metric not in _ALWAYS_DRAWN)
        charts = [
            line_chart(metric, lines)
            for metric in rest
            if (lines := stage_lines(run, name, metric, label=metric, colour=stage_colour(run, name)))
        ]
        if charts:
            title = element("summary", f"{stage_title(name)}: {len(charts)} more metrics")
            folds.append(element("details", title, element("div", *charts, class_="charts")))
    if not folds:
        return None
    return element("section", element("h2", "Everything else that was recorded"), *folds, id="metrics")
