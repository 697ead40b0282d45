"""The shortcut audit as plain text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism.evals.audit import share
from prism.evals.statistics import Interval
from prism.evals.tables import ABSENT, aligned


def format_audit(document: Mapping[str, Any]) -> str:
    """`audit.json` as tables: what tells the sides apart, what broken texts do to the scores, all verdicts; then
    each flag and warning with what to do."""
    subject = document["subject"]
    blocks = [_heading(subject), _accuracy_table(document["accuracy"])]
    if document["probes"]:
        blocks.append(_probe_table(document["probes"]))
    blocks += [_check_table(document["checks"]), _verdicts(document["checks"])]
    return "\n\n".join(blocks)


def _heading(subject: Mapping[str, Any]) -> str:
    seen = f", {subject['num_seen']} of them trained on" if subject["num_seen"] else ""
    return (
        f"audit of seed {subject['seed']}: rollouts of {subject['policy']}, discriminator "
        f"{subject['discriminator'] or 'none yet'}; {subject['num_prompts']} prompts{seen}, "
        f"{subject['num_valid']} of {subject['num_rollouts']} rollouts valid"
    )


def _accuracy_table(accuracy: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for rows in accuracy.values() for name in rows))
    rows = [["tells teacher from rollout", "", *accuracy]]
    for name in names:
        rows.append([f"  {name}", "", *(_share_cell(found.get(name)) for found in accuracy.values())])
    return "\n".join(aligned(rows))


def _share_cell(interval: Mapping[str, Any] | None) -> str:
    return ABSENT if interval is None else share(Interval(**interval))


def _probe_table(probes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["the teacher's score beside", "", "falls in", "change in sd", "texts"]]
    for view, found in probes.items():
        for name, probe in found.items():
            shift = ABSENT if probe["shift"] is None else f"{probe['shift']:.3f}"
            rows.append([f"  {name}", view, _share_cell(probe["fallen"]), shift, f"{probe['num_pairs']:,}"])
    return "\n".join(aligned(rows))


def _check_table(checks: Sequence[Mapping[str, str]]) -> str:
    rows = [["check", "of", "verdict", "measured", "raised where"]]
    for check in checks:
        rows.append([f"  {check['name']}", *(check[key] for key in ("view", "verdict", "measured", "limit"))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _verdicts(checks: Sequence[Mapping[str, str]]) -> str:
    raised = [check for verdict in ("flag", "warning") for check in checks if check["verdict"] == verdict]
    lines = [
        f"{check['verdict'].upper()} {check['name']} ({check['view']}): {check['measured']}, "
        f"raised where {check['limit']}\n  {check['advice']}"
        for check in raised
    ]
    if not any(check["verdict"] == "flag" for check in raised):
        lines.append("no flags")
    return "\n".join(lines)
