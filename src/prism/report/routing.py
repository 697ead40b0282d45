"""Where the discriminator's router sends the tokens of each view, layer by layer."""

from collections.abc import Sequence
from statistics import fmean

from prism.report.markup import Html, cells_table, element
from prism.report.rundir import Row, Run


def routing_table(run: Run) -> Html | None:
    """The last routing that alignment recorded, means over seeds, folded away; None without experts."""
    last = [stage.routing[-1] for stage in run.over_seeds("align") if stage.routing]
    if not last:
        return None
    views = list(last[0]["load"])
    titles = ["Layer", *(f"{view}: {what}" for view in views for what in ("load of the experts, %", "entropy"))]
    if len(views) > 1:
        titles.append("Divergence of the views, bits")
    rows = [_row(last, views, layer) for layer in range(len(last[0]["divergence"]))]
    steps = ", ".join(sorted({str(row["step"]) for row in last}))
    note = (
        f"After step {steps}, mean over {len(last)} seed{'s' if len(last) > 1 else ''}. Entropy is a share of the "
        "largest: 1 is an even load, 0 a single expert. Divergence is 0 where the views are routed alike."
    )
    return element(
        "details",
        element("summary", "How the experts are used, layer by layer"),
        cells_table(titles, rows),
        element("p", note, class_="note"),
    )


def _row(last: Sequence[Row], views: Sequence[str], layer: int) -> list[str]:
    cells = [str(layer)]
    for view in views:
        loads = [fmean(shares) for shares in zip(*(row["load"][view][layer] for row in last), strict=True)]
        entropy = fmean(row["entropy"][view][layer] for row in last)
        cells += [", ".join(f"{100 * load:.0f}" for load in loads), f"{entropy:.2f}"]
    if len(views) > 1:
        cells.append(f"{fmean(row['divergence'][layer] for row in last):.3f}")
    return cells
