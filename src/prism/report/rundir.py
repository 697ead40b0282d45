"""Reads a run directory into frozen records. What is not there stays absent; what is damaged is an error."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from prism.config import FAILURE, PlannedStage, Recipe, load_recipe, plan_stages
from prism.errors import DataError
from prism.report.agreement import DATA, disagreements

Row = Mapping[str, Any]

AUDIT = "audit.json"
"""What marks the directory of an audit, which is no stage of training."""


@dataclass(frozen=True, slots=True)
class Item:
    """One graded response. `values` holds each metric in [0, 1], or None where it could not be decided."""

    benchmark: str
    group: str
    item_id: str
    mode: str
    values: Mapping[str, float | None]
    num_steps: int | None
    num_items: int | None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one seed. `summary` and `items` are None where the stage was not evaluated.

    `evaluation` is the manifest of its evaluation, None where there is none. `events` are
    those of collapse control, and warnings; `audits` those of the game while it was played, `routing` what its router
    did, a row for each step that was recorded.
    """

    seed: int
    name: str
    manifest: Row | None
    metrics: tuple[Row, ...]
    timings: tuple[Row, ...]
    samples: tuple[Row, ...]
    summary: Row | None
    items: tuple[Item, ...] | None
    evaluation: Row | None = None
    events: tuple[Row, ...] = ()
    audits: tuple[Row, ...] = ()
    routing: tuple[Row, ...] = ()

    @property
    def is_complete(self) -> bool:
        return self.manifest is not None and self.manifest.get("status") == "complete"

    @property
    def test_sha256(self) -> str | None:
        """Identifies the test items it was evaluated on; None where that was not recorded."""
        return ((self.evaluation or {}).get("inputs") or {}).get("data/test")


@dataclass(frozen=True)
class Run:
    """`seeds` are those the recipe asks for, then others that are there, complete and of this very recipe; `left_out`
    are those that are not, with the reason. `stages` and `audits`, by seed and directory, hold only what is there.
    `failures` are the errors that seeds ended with, `disagreements` what of a seed is not as the recipe has it."""

    directory: Path
    recipe: Recipe
    seeds: tuple[int, ...]
    stages: Mapping[tuple[int, str], Stage]
    teacher: Mapping[int, Row] = field(default_factory=dict)
    audits: Mapping[tuple[int, str], Row] = field(default_factory=dict)
    dates: tuple[datetime, datetime] | None = None
    failures: Mapping[int, str] = field(default_factory=dict)
    left_out: Mapping[int, str] = field(default_factory=dict)
    disagreements: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def planned(self) -> Mapping[str, PlannedStage]:
        """The stages of training in table order: a matched-budget baseline stands before alignment and all that is
        compared with it."""
        stages = [stage for stage in plan_stages(self.recipe) if stage.kind != "audit"]
        aligned = [stage for stage in stages if stage.kind == "align" or stage.start == "align"]
        return {stage.name: stage for stage in (*(s for s in stages if s not in aligned), *aligned)}

    @cached_property
    def stage_names(self) -> tuple[str, ...]:
        """Every stage that at least one seed has: planned ones in table order, then others by name."""
        present = {name for _, name in self.stages}
        planned = [name for name in self.planned if name in present]
        return (*planned, *sorted(present - set(planned)))

    @cached_property
    def evaluated_names(self) -> tuple[str, ...]:
        evaluated = {stage.name for stage in self.stages.values() if stage.summary is not None}
        return tuple(name for name in self.stage_names if name in evaluated)

    def kind(self, name: str) -> str:
        if name in self.planned:
            return self.planned[name].kind
        kinds = [str(stage.manifest.get("kind", "")) for stage in self.over_seeds(name) if stage.manifest]
        return kinds[0] if kinds else ""

    def over_seeds(self, name: str) -> list[Stage]:
        """The stage of each seed that has it, in the order of `seeds`."""
        return [self.stages[seed, name] for seed in self.seeds if (seed, name) in self.stages]

    def code_versions(self, seed: int) -> tuple[str, ...]:
        """Those that the planned stages of a seed were run by, in the order of stages."""
        manifests = [stage.manifest or {} for name in self.planned if (stage := self.stages.get((seed, name)))]
        return tuple(dict.fromkeys(str(found["code_version"]) for found in manifests if found.get("code_version")))

    def baseline_of(self, name: str) -> str | None:
        """The matched-budget baseline a checkpoint is compared with: the one of its own algorithm if it was
        run, else the first; None for a baseline itself and where there is none."""
        baselines = [stage for stage in self.planned.values() if stage.is_baseline]
        planned = self.planned.get(name)
        if not baselines or planned in baselines:
            return None
        same = [stage for stage in baselines if planned and planned.algorithm == stage.algorithm]
        return (same or baselines)[0].name


@dataclass(frozen=True)
class _Seed:
    """What one seed's directory holds; `data` is the manifest of its data, `failure` the error it ended with."""

    stages: Mapping[str, Stage]
    audits: Mapping[str, Row]
    teacher: Row | None
    data: Row | None
    failure: str | None

    def disagreements(self, recipe: Recipe) -> list[str]:
        manifests = {name: stage.manifest for name, stage in self.stages.items() if stage.manifest is not None}
        manifests |= {} if self.data is None else {DATA: self.data}
        evaluations = {name: stage.evaluation for name, stage in self.stages.items() if stage.evaluation is not None}
        return disagreements(recipe, manifests, evaluations)

    def why_left_out(self, recipe: Recipe) -> str | None:
        """What keeps a seed that the recipe does not ask for from being put together with those it does: it may be of
        an older recipe, or have been given up."""
        if found := self.disagreements(recipe):
            return f"of another recipe: {'; '.join(found)}"
        if self.failure is not None:
            return f"ended with an error: {self.failure}"
        for planned in plan_stages(recipe):
            stage = self.stages.get(planned.name)
            is_there = planned.name in self.audits if planned.kind == "audit" else stage and stage.is_complete
            if not is_there or (planned.is_evaluated and stage and stage.summary is None):
                return f"not finished: {planned.name}"
        return None


def read_run(directory: Path) -> Run:
    """Raises DataError where the directory is no run directory or one of its files is damaged."""
    if not (directory / "recipe.json").is_file():
        raise DataError(f"{directory}: holds no recipe.json; give the directory that `prism run` wrote")
    recipe = load_recipe(directory / "recipe.json")
    paths = {int(path.name[5:]): path for path in directory.glob("seed-*") if path.is_dir() and path.name[5:].isdigit()}
    found = {seed: _read_seed(seed, paths[seed]) for seed in sorted(paths)}
    reasons = {seed: each.why_left_out(recipe) for seed, each in found.items() if seed not in recipe.seeds}
    left_out = {seed: reason for seed, reason in reasons.items() if reason is not None}
    kept = {seed: each for seed, each in found.items() if seed not in left_out}
    return Run(
        directory=directory,
        recipe=recipe,
        seeds=(*recipe.seeds, *(seed for seed in kept if seed not in recipe.seeds)),
        stages={(seed, name): stage for seed, each in kept.items() for name, stage in each.stages.items()},
        teacher={seed: each.teacher for seed, each in kept.items() if each.teacher is not None},
        audits={(seed, name): audit for seed, each in kept.items() for name, audit in each.audits.items()},
        dates=_date_range([paths[seed] / name for seed, each in kept.items() for name in each.stages]),
        failures={seed: each.failure for seed, each in kept.items() if each.failure is not None},
        left_out=left_out,
        disagreements={seed: tuple(lines) for seed, each in kept.items() if (lines := each.disagreements(recipe))},
    )


def _read_seed(seed: int, directory: Path) -> _Seed:
    stages, audits = {}, {}
    for path in sorted(directory.iterdir()):
        # Results that a changed recipe has set aside are not this run's.
        if not path.is_dir() or ".stale-" in path.name:
            continue
        if path.name.startswith("audit"):
            if (audit := read_object(path / AUDIT)) is not None:
                audits[path.name] = audit
        elif _is_stage(path):
            stages[path.name] = _read_stage(seed, path)
    failure = read_object(directory / FAILURE)
    return _Seed(
        stages=stages,
        audits=audits,
        teacher=read_object(directory / DATA / "teacher_distribution.json"),
        data=read_object(directory / DATA / "manifest.json"),
        failure=None if failure is None else str(failure["error"]),
    )


def _is_stage(path: Path) -> bool:
    marks = ("manifest.json", "metrics.jsonl", "evaluation")
    return path.name != DATA and any((path / mark).exists() for mark in marks)


def _read_stage(seed: int, path: Path) -> Stage:
    items = path / "evaluation" / "items.jsonl"
    return Stage(
        seed=seed,
        name=path.name,
        manifest=read_object(path / "manifest.json"),
        metrics=tuple(_read_rows(path / "metrics.jsonl")),
        timings=tuple(_read_rows(path / "timings.jsonl")),
        samples=tuple(_read_rows(path / "samples.jsonl")),
        summary=read_object(path / "evaluation" / "summary.json"),
        items=tuple(_read_item(row, items) for row in _read_rows(items)) if items.exists() else None,
        evaluation=read_object(path / "evaluation" / "manifest.json"),
        events=tuple(_read_rows(path / "events.jsonl")),
        audits=tuple(_read_rows(path / "audits.jsonl")),
        routing=tuple(_read_rows(path / "router.jsonl")),
    )


def _read_item(row: Row, path: Path) -> Item:
    try:
        verdict = row["verdict"]
        values = {
            # As in summary.json: an unverifiable answer has not been shown to be right.
            "accuracy": float(verdict == "correct"),
            "caption_exact": _number(row.get("is_caption_exact")),
            "caption_fraction": _number(row.get("caption_fraction")),
            "valid": _number(row.get("is_valid")),
        }
        return Item(
            benchmark=str(row["benchmark"]),
            group=str(row["group"]),
            item_id=str(row["item_id"]),
            mode=str(row["mode"]),
            values=values,
            num_steps=row.get("num_steps"),
            num_items=row.get("num_items"),
        )
    except KeyError as error:
        raise DataError(f"{path}: a row lacks the field {error}; evaluate this checkpoint again") from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _reject_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number that a metric may have")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def read_object(path: Path) -> Row | None:
    if not path.exists():
        return None
    try:
        value = _DECODER.decode(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON ({error}); run its stage again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object; run its stage again")
    return value


def _read_rows(path: Path) -> Iterator[Row]:
    """JSON lines. A last line without its newline is one that is just being written and is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n") or not line.strip():
                continue
            try:
                row = _DECODER.decode(line)
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: not readable as JSON ({error}); run its stage again"
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected a JSON object; run its stage again")
            yield row


def _date_range(stages: list[Path]) -> tuple[datetime, datetime] | None:
    files = [stage / name for stage in stages for name in ("manifest.json", "metrics.jsonl", "timings.jsonl")]
    times = [path.stat().st_mtime for path in files if path.exists()]
    if not times:
        return None
    return datetime.fromtimestamp(min(times), UTC), datetime.fromtimestamp(max(times), UTC)


def metric_value(row: Row, name: str) -> float | None:
    """The number under this name, or None where the metric is absent, null or no number."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
