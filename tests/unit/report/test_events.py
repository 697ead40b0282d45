"""The table of what collapse control did: every event in words, and nothing made up where none was watched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prism.report import print_results_table, render_report
from prism.report.events import describe_event, events_section, warnings_note
from prism.report.rundir import Row, read_run

MakeRun = Callable[..., Path]
START: Row = {
    "step": 9,
    "event": "start",
    "reaction": "update-ratio",
    "reason": "accuracy 0.910 over 8 steps, above the band 0.65–0.85 since step 9",
    "measured": 0.91,
    "changed": {"discriminator_updates": [1, 0], "policy_rate": [1.0, 0.9]},
}
STOP: Row = {"step": 12, "event": "stop", "diagnosis": "rollouts-invalid", "reason": "only 38% of the rollouts <b>"}


@pytest.fixture
def watched(make_run: MakeRun) -> Path:
    """A run of two seeds whose recipe asks for collapse control; nothing has happened."""
    path = make_run(stages=("base", "sft", "align"))
    recipe = json.loads((path / "recipe.json").read_text())
    recipe["align"]["control"] = {}
    (path / "recipe.json").write_text(json.dumps(recipe))
    return path


def test_events_in_words() -> None:
    assert describe_event(START) == (
        "9",
        "update-ratio starts",
        START["reason"],
        "discriminator updates 1 → 0, policy rate 1 → 0.9",
    )
    assert describe_event({**START, "event": "end"})[1] == "update-ratio ends"
    assert describe_event(STOP) == ("12", "stopped: rollouts-invalid", STOP["reason"], "–")


def test_the_events_of_every_seed_stand_below_the_curves(watched: Path) -> None:
    for seed, events in ((0, [START, STOP]), (1, [START])):
        file = watched / f"seed-{seed}" / "align" / "events.jsonl"
        file.write_text("".join(json.dumps(event) + "\n" for event in events))
    html = str(events_section(read_run(watched)))
    assert html.count("<tr>") == 1 + 3
    assert "<td>0</td><td>12</td><td>stopped: rollouts-invalid</td><td>only 38% of the rollouts &lt;b&gt;</td>" in html
    page = render_report(watched).read_text(encoding="utf-8")
    assert page.index('id="alignment"') < page.index('id="control"') < page.index('id="distributions"')


def test_a_game_in_which_nothing_happened_says_so(watched: Path) -> None:
    assert "Nothing happened" in str(events_section(read_run(watched)))


def test_a_game_that_was_not_watched_has_no_such_section(full_run: Path) -> None:
    assert events_section(read_run(full_run)) is None


WARNING: Row = {
    "step": 40,
    "event": "warning",
    "diagnosis": "rollouts-not-closer",
    "reason": "perception: accuracy 0.93 in steps 1–8",
}


def test_warnings_are_told_wherever_results_are(make_run: MakeRun) -> None:
    path = make_run(seeds=(0, 1), stages=("base", "sft", "align"))
    for seed in (0, 1):
        (path / f"seed-{seed}" / "align" / "events.jsonl").write_text(json.dumps(WARNING) + "\n")
    run = read_run(path)
    assert "<td>1</td><td>40</td><td>warning: rollouts-not-closer</td>" in str(events_section(run))
    told = [line for line in print_results_table(path).splitlines() if line.startswith("Warning")]
    assert told == [
        f"Warning, alignment of seed {seed}: rollouts-not-closer: perception: accuracy 0.93 in steps 1–8"
        for seed in (0, 1)
    ]
    assert warnings_note(run) == "rollouts-not-closer (seeds 0, 1)"
