"""The shortcut audits of a run: what tells teacher from rollout, and which checks raised something."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prism.report.markup import Html, cells_table, element
from prism.report.rundir import Row, Run

_LEAD = (
    "What tells the teacher's responses from fresh rollouts besides their content, and what the discriminator looks "
    "at. A flag is an artefact that the game would teach the policy; a warning may be a real difference."
)
_RAISED = ("flag", "warning", "inconclusive")


def audit_section(run: Run) -> Html | None:
    """The audits of every seed, before and during the game; None where there was none."""
    games = [stage for stage in run.over_seeds("align") if stage.audits]
    if not run.audits and not games:
        return None
    audits = [part for (seed, _), document in sorted(run.audits.items()) for part in _audit(seed, document)]
    audits += [part for stage in games for part in _game(stage.seed, stage.audits)]
    return element("section", element("h2", "Shortcut audit"), element("p", _LEAD, class_="lead"), *audits, id="audit")


def _game(seed: int, documents: Sequence[Row]) -> Sequence[Html]:
    """A row for each audit while the game was played."""
    views = list(dict.fromkeys(view for document in documents for view in document["accuracy"]))
    titles = ["After step", "Flags", "Warnings", "Inconclusive", "Prompts (trained on)", "Valid"]
    titles += [f"{view}: {what}" for view in views for what in ("discriminator", "best feature")]
    rows = []
    for document in documents:
        subject = document["subject"]
        shares = [cell for view in views for cell in _game_shares(document["accuracy"].get(view) or {})]
        raised = [", ".join(document[kind]) or "–" for kind in ("flags", "warnings", "inconclusive")]
        prompts = f"{subject['num_prompts']} ({subject['num_seen']})"
        valid = f"{subject['num_valid']} of {subject['num_rollouts']}"
        rows.append([document["step"], *raised, prompts, valid, *shares])
    note = (
        "Shares of pairs in which the discriminator, or the best of the features (n-grams and all of them together "
        "among them), tells the teacher's text, with 95% intervals over prompts. Prompts that it was trained on fill "
        "up the number where there are too few others; it tells more of their pairs."
    )
    return (
        element("h3", f"Seed {seed}: while the game was played"),
        cells_table(titles, rows),
        element("p", note, class_="note"),
    )


def _game_shares(accuracy: Mapping[str, Any]) -> tuple[str, str]:
    features = [found for name, found in accuracy.items() if name != "discriminator" and found]
    best = max(features, key=lambda found: found["mean"] or 0.0, default=None)
    return _share(accuracy.get("discriminator")), _share(best)


def _audit(seed: int, document: Row) -> Sequence[Html]:
    subject, checks = document["subject"], document["checks"]
    raised = [check for verdict in _RAISED for check in checks if check["verdict"] == verdict]
    title = f"Seed {seed}: rollouts of {subject['policy']}, discriminator {subject['discriminator'] or 'none yet'}"
    counts = (
        f"{subject['num_prompts']} prompts, {subject['num_seen']} of them trained on; "
        f"{subject['num_valid']} of {subject['num_rollouts']} rollouts valid. Shares of pairs in which the best "
        "feature of a kind, or the discriminator, tells the teacher's text, with 95% intervals over prompts."
    )
    verdict = "No flag was raised." if not document["flags"] else f"Flags: {', '.join(document['flags'])}."
    all_checks = element("details", element("summary", f"All checks ({len(checks)})"), _check_table(checks))
    return (
        element("h3", title),
        element("p", element("b", verdict)),
        _check_table(raised) if raised else Html(""),
        _accuracy_table(document["accuracy"]),
        element("p", counts, class_="note"),
        all_checks,
    )


def _check_table(checks: Iterable[Mapping[str, str]]) -> Html:
    keys = {
        "name": "Check",
        "view": "Of",
        "verdict": "Verdict",
        "measured": "Measured",
        "limit": "Raised where",
        "advice": "What to do",
    }
    rows = [[check[key] for key in keys] for check in checks]
    return cells_table(list(keys.values()), rows)


def _accuracy_table(accuracy: Mapping[str, Mapping[str, Any]]) -> Html:
    names = dict.fromkeys(name for found in accuracy.values() for name in found)
    rows = [[name, *(_share(found.get(name)) for found in accuracy.values())] for name in names]
    return cells_table(["Tells teacher from rollout", *accuracy], rows)


def _share(interval: Mapping[str, Any] | None) -> str:
    if interval is None or interval["mean"] is None:
        return "–"
    if interval["low"] is None or interval["high"] is None:
        return f"{interval['mean']:.0%}"
    return f"{interval['mean']:.0%} ({100 * interval['low']:.0f}–{100 * interval['high']:.0f})"
