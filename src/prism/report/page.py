"""Puts the sections of a run's report together."""

import shlex
from pathlib import Path

from prism.config import CheckpointBase, DenseDiscriminator, Recipe, WorldData
from prism.report.audit import audit_section
from prism.report.completeness import left_over_parts, missing_parts
from prism.report.curves import alignment_section, losses_section, other_metrics, policy_section
from prism.report.distributions import distributions_section
from prism.report.document import document, page_header, status, write_page
from prism.report.events import events_section
from prism.report.markup import Html, element, join
from prism.report.results import MODES, results_table
from prism.report.rundir import Run, read_run
from prism.report.samples import samples_section
from prism.report.tables import results_section

_TITLES = {
    "results": "Results",
    "audit": "Audit",
    "alignment": "Alignment",
    "control": "Game",
    "distributions": "Distributions",
    "policy": "Policy",
    "losses": "Losses",
    "samples": "Samples",
    "reproduce": "Reproduce",
    "metrics": "More",
}


def render_report(run_directory: Path, output: Path | None = None) -> Path:
    """Write the report (`report.html` in the run directory by default) and return its path.

    Raises DataError where the directory is no run directory or one of its files is damaged, and
    StorageError where the report cannot be written.
    """
    run = read_run(run_directory)
    path = output if output is not None else run_directory / "report.html"
    write_page(path, _page(run))
    return path


def _page(run: Run) -> str:
    tables = [results_table(run, mode) for mode in MODES]
    sections = {
        "results": results_section(run, tables),
        "audit": audit_section(run),
        "alignment": alignment_section(run),
        "control": events_section(run),
        "distributions": distributions_section(run),
        "policy": policy_section(run),
        "losses": losses_section(run),
        "samples": samples_section(run),
        "reproduce": _reproduce_section(run),
        "metrics": other_metrics(run),
    }
    titled = {name: (_TITLES[name], section) for name, section in sections.items()}
    return document(f"{run.recipe.name}: PRISM run report", header=_header(run), sections=titled)


def _header(run: Run) -> Html:
    facts = {
        "Seeds": ", ".join(map(str, run.seeds)),
        "Policy": describe_base(run.recipe),
        "Discriminator": describe_discriminator(run.recipe),
        "Stage files written": _dates(run),
        "Code version": ", ".join(code_versions(run)) or "not recorded",
        "Test items per checkpoint": f"{_num_items(run)}{dev_note(run.recipe)}",
    }
    return page_header("PRISM run report", run.recipe.name, facts, _status(run))


def describe_base(recipe: Recipe) -> str:
    if isinstance(recipe.base, CheckpointBase):
        return str(recipe.base.path)
    sources = {"shipped": "shipped weights", "pretrain": "pretrained in this run", "kept": f"from {recipe.base.path}"}
    return f"tiny Qwen3-VL, {sources[recipe.base.source]}"


def dev_note(recipe: Recipe) -> str:
    """Says so where a run was evaluated on the scenes that settings are chosen on."""
    is_dev = isinstance(recipe.data, WorldData) and recipe.data.test_split == "dev"
    return " (scenes of the dev split)" if is_dev else ""


def describe_discriminator(recipe: Recipe) -> str:
    discriminator = recipe.discriminator
    if discriminator.checkpoint is not None:
        return f"{discriminator.type}, {discriminator.checkpoint}"
    origin = "the base" if discriminator.dense is None else str(discriminator.dense)
    if isinstance(discriminator, DenseDiscriminator):
        return f"dense, {discriminator.width} times as wide as {origin}"
    experts = f"{discriminator.num_experts} experts, top {discriminator.top_k}"
    return f"{discriminator.type}: {experts}, upcycled from {origin}"


def _dates(run: Run) -> str:
    if run.dates is None:
        return "no stage yet"
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in run.dates)
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC"


def code_versions(run: Run) -> list[str]:
    manifests = [stage.manifest for stage in run.stages.values() if stage.manifest]
    return sorted({str(manifest["code_version"]) for manifest in manifests if manifest.get("code_version")})


def _num_items(run: Run) -> str:
    summaries = [stage.summary for stage in run.stages.values() if stage.summary]
    counts = {int(summary["num_items"]) for summary in summaries if summary.get("num_items") is not None}
    return " or ".join(f"{count:,}" for count in sorted(counts)) or "not evaluated"


def _status(run: Run) -> Html:
    of_seeds = f" for {len(run.seeds)} seeds" if len(run.seeds) > 1 else ""
    complete = f"Complete: all {len(run.planned)} stages of the recipe finished{of_seeds}."
    return status(complete, "This run is not complete.", missing_parts(run), left_over_parts(run))


def _reproduce_section(run: Run) -> Html:
    command = f"prism run {shlex.quote(str(run.recipe.run_directory / 'recipe.json'))}"
    recipe = element(
        "details", element("summary", "The resolved recipe"), element("pre", run.recipe.model_dump_json(indent=2))
    )
    rows = [
        element(
            "tr",
            element("td", f"{stage.name}, seed {stage.seed}"),
            element("td", name),
            element("td", element("code", sha)),
        )
        for stage_name in run.stage_names
        for stage in run.over_seeds(stage_name)
        for name, sha in sorted((stage.manifest or {}).get("inputs", {}).items())
    ]
    head = element(
        "thead", element("tr", *(element("th", title, scope="col") for title in ("Stage", "Input", "SHA-256")))
    )
    hashes = element("div", element("table", head, element("tbody", *rows), class_="hashes"), class_="scroll")
    absent = element("p", "No input hashes were recorded.", class_="absent")
    text = "Goes on with this run, or repeats it elsewhere. What is finished and unchanged is not run again."
    return element(
        "section",
        element("h2", "Reproduce"),
        element("p", text),
        element("pre", command),
        recipe,
        element("details", element("summary", f"Input hashes ({len(rows)})"), join(hashes) if rows else absent),
        id="reproduce",
    )
