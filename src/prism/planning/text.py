"""An estimate as tables for a terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prism.planning.estimate import GIB, PARTS, Estimate, Phase, StageEstimate
from prism.planning.remedies import Remedy

_WIDTH = 160
"""Where there is no terminal to fit into."""


def print_estimate(estimate: Estimate, remedies: Sequence[Remedy] = ()) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for stages in _alike(estimate.stages):
        _print(console, " · ".join(_heading(estimate, stage) for stage in stages))
        console.print(_stage_table(stages[0]), "")
    _print(console, f"{estimate.recipe.name} on {_describe(estimate)}")
    console.print(_summary_table(estimate), "")
    for line in (*_verdict(estimate), *(f"  {line}" for line in estimate.basis)):
        _print(console, line)
    if remedies:
        _print(console, "")
        console.print(_remedy_table(remedies))


def _print(console: Console, line: str) -> None:
    """As it is: neither wrapped nor read as markup."""
    console.print(Text(line), soft_wrap=True)


def _alike(stages: Sequence[StageEstimate]) -> list[list[StageEstimate]]:
    """Stages whose steps are the same are shown together: RLVR by several algorithms, or from several starts."""
    groups: dict[str, list[StageEstimate]] = {}
    for stage in stages:
        phases = [(phase.name, phase.memory, phase.seconds, phase.times / stage.num_steps) for phase in stage.phases]
        groups.setdefault(str(phases), []).append(stage)
    return list(groups.values())


def _heading(estimate: Estimate, stage: StageEstimate) -> str:
    steps = "" if stage.name == "evaluation" else f", {stage.num_steps:,} steps from {stage.start}"
    cost = "" if estimate.hardware.price is None else f", {_cost(estimate, stage.seconds)}"
    return f"{stage.name}{steps}: {_duration(stage.seconds)}{cost}"


def _stage_table(stage: StageEstimate) -> Table:
    """Memory of one rank by part, and the work of one time, a column for each phase."""
    unit, name = (GIB, "GiB") if stage.peak.bytes >= GIB else (2**20, "MiB")
    table = _table(f"  {name} per rank", *(phase.name for phase in stage.phases))
    for part in PARTS:
        cells = [phase.memory.get(part, 0.0) for phase in stage.phases]
        if any(cells):
            table.add_row(f"  {part}", *(_number(value / unit) if value else "" for value in cells))
    totals = [_number(phase.bytes / unit) + (" peak" if phase is stage.peak else "") for phase in stage.phases]
    table.add_row("  together", *totals, style="bold")
    table.add_row("  times", *(_times(stage, phase) for phase in stage.phases))
    table.add_row("  unique tokens", *(f"{phase.tokens:,}" for phase in stage.phases))
    table.add_row("  TFLOPs, all ranks", *(_number(phase.flops / 1e12) for phase in stage.phases))
    table.add_row("  seconds", *(_number(phase.seconds) for phase in stage.phases))
    return table


def _times(stage: StageEstimate, phase: Phase) -> str:
    if stage.name == "evaluation":
        return "each model"
    per_step = phase.times / stage.num_steps
    if per_step >= 1:
        return "each step" if per_step == 1 else f"{per_step:g} a step"
    return "once" if phase.times == 1 else f"each {1 / per_step:g} steps"


def _summary_table(estimate: Estimate) -> Table:
    columns = ["stage", "steps", "peak per rank", "tokens", "PFLOPs", "s per step", "time"]
    has_price = estimate.hardware.price is not None
    table = _table(*columns, *(["cost"] if has_price else []))
    for stage in estimate.stages:
        cost = [_cost(estimate, stage.seconds)] if has_price else []
        table.add_row(stage.name, *_stage_cells(stage), *cost)
    seeds = len(estimate.recipe.seeds)
    label = "all" if seeds == 1 else f"all, {seeds} seeds"
    tokens, flops = (
        seeds * sum(values) for values in zip(*((s.tokens, s.flops) for s in estimate.stages), strict=True)
    )
    cost = [_cost(estimate, estimate.seconds)] if has_price else []
    cells = (
        "",
        _bytes(estimate.peak.peak.bytes),
        _count(tokens),
        _number(flops / 1e15),
        "",
        _duration(estimate.seconds),
    )
    table.add_row(label, *cells, *cost, style="bold")
    return table


def _stage_cells(stage: StageEstimate) -> Iterable[str]:
    steps = "" if stage.name == "evaluation" else f"{stage.num_steps:,}"
    per_step = "" if stage.name == "evaluation" else _number(stage.step_seconds)
    yield from (steps, _bytes(stage.peak.bytes), _count(stage.tokens), _number(stage.flops / 1e15), per_step)
    yield _duration(stage.seconds)


def _remedy_table(remedies: Sequence[Remedy]) -> Table:
    table = _table("with", "peak per rank", "fits", "time")
    for remedy in remedies:
        found = remedy.estimate
        fits = "yes" if found.fits else "no"
        table.add_row(remedy.change, _bytes(found.peak.peak.bytes), fits, _duration(found.seconds))
    return table


def _verdict(estimate: Estimate) -> list[str]:
    hardware, peak = estimate.hardware, estimate.peak
    usable = f"{_bytes(hardware.usable_bytes)} of {hardware.memory_gib:g} GiB are there for tensors"
    verdict = "It fits" if estimate.fits else "IT DOES NOT FIT"
    return [
        f"{verdict}: the peak is {peak.name}, {peak.peak.name}, with {_bytes(peak.peak.bytes)} per rank; {usable}.",
        "Planned, not measured:",
    ]


def _describe(estimate: Estimate) -> str:
    hardware = estimate.hardware
    price = "" if hardware.price is None else f", {hardware.currency}{hardware.price:g} per rank and hour"
    machines = "" if hardware.num_nodes == 1 else f" in {hardware.num_nodes} machines"
    return f"{hardware.name}: {hardware.ranks} {'rank' if hardware.ranks == 1 else 'ranks'}{machines}{price}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right")
    return table


def _number(value: float) -> str:
    """Three digits are more than such a figure is worth."""
    if value == 0:
        return "0"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def _bytes(value: float) -> str:
    return f"{_number(value / GIB)} GiB" if value >= GIB else f"{_number(value / 2**20)} MiB"


def _count(value: float) -> str:
    return f"{_number(value / 1e6)}M" if value >= 1e6 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{_number(seconds)} s"
    return f"{_number(seconds / 60)} min" if seconds < 7200 else f"{_number(seconds / 3600)} h"


def _cost(estimate: Estimate, seconds: float) -> str:
    cost = estimate.cost(seconds)
    return "" if cost is None else f"{estimate.hardware.currency}{_number(cost)}"
