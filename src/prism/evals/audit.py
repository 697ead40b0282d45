"""The verdicts of the shortcut audit: what was measured, the limit, and what to do.

    name                 kind     where
    image-positions      flag     a prompt's positions are not the ones that the model itself would give it
    input-builder        flag     a text of the teacher's is read otherwise when a rollout has written it
    end-token, truncated-teacher, filler, format, length, counts, texture, combined, ngrams: see `shortcut_rules`
    images-ignored       flag     images are missing from what the discriminator reads, or the perception score of
                                  the teacher's descriptions stays the same beside another prompt's images
    captions-unchecked   warning  it changes, but does not fall more often than it rises
    reasoning-ignored    flag     the reasoning score stays the same whatever is broken in the teacher's reasoning
    reasoning-unchecked  warning  it changes, but no kind of break makes it fall more often than rise
    length-correlated    warning  within groups, score and length of the rollouts have a rank correlation beyond ±½

"Stays the same" means that the mean change is below 1% of the scores' standard deviation. An accuracy, a
share or a correlation is beyond its limit where its 95% interval is, over at least `MIN_PROMPTS` prompts;
with fewer the verdict is "inconclusive". The first two, and images that are missing, are exact and need no such
number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prism.evals.probes import ProbeResult
from prism.evals.shortcut_rules import COUNTS, FORMAT, LENGTH, TEXTURE, Finding
from prism.evals.shortcuts import MIN_PROMPTS, ShortcutReport, ViewAudit
from prism.evals.statistics import Interval

Verdict = Literal["ok", "warning", "flag", "inconclusive"]

STILL = 0.01
"""Standard deviations of the scores below which a mean change counts as none."""
CORRELATED = 0.5

SWAPPED, BLANKED = "another prompt's images", "blank images"
MISDESCRIBED = "a number changed in the description"
SHUFFLED, MISCALCULATED = "the steps shuffled", "a number changed in the reasoning"

ADVICE = {
    "image-positions": "build prompts by PromptEncoder.encode: image tokens need their rows and columns as positions",
    "input-builder": "build both sides by models.response_branch, from the stripped text with one end token",
    "end-token": "build both sides by models.response_branch, which ends every text with the same token",
    "truncated-teacher": "raise the length limit that cuts the teacher's texts, or drop the rows it cuts",
    "filler": "remove the phrase from the teacher's texts, or ask the teacher to leave it out",
    "format": "bring the teacher's texts and the policy's to one format, by cleaning them or by a longer SFT",
    "length": "ask the teacher for shorter or longer texts, train SFT on its texts, or set align.length_correction",
    "counts": "ask the teacher for the structure that SFT teaches, or train SFT on the teacher's",
    "texture": "look at the texts: this is a shortcut unless poorer content explains it",
    "combined": "look at the texts: this is a shortcut unless poorer content explains it",
    "ngrams": "look at the texts: words alone tell nearly as much as the discriminator",
    "images-ignored": "see that images reach the discriminator, and warm it up for longer",
    "captions-unchecked": "start the discriminator from a model that can check a description, or warm it up for longer",
    "reasoning-ignored": "see that the reasoning reaches the discriminator, and warm it up for longer",
    "reasoning-unchecked": "start the discriminator from a stronger model, or warm it up for longer",
    "length-correlated": "set align.length_correction unless length is part of the quality",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict. `view` is a part of the response, or `prompt`; `advice` is empty where there is nothing to do."""

    name: str
    view: str
    verdict: Verdict
    measured: str
    limit: str
    advice: str


@dataclass(frozen=True, slots=True)
class InputMeasures:
    """Of what the discriminator reads: prompts with positions other than the model's own, images that should be
    and are there, and the texts of teachers that are read otherwise as a rollout's."""

    num_prompts: int
    num_wrong_positions: int
    num_images: int
    num_images_read: int
    num_texts: int
    num_read_otherwise: int


@dataclass(frozen=True, slots=True)
class AuditMeasures:
    """`accuracy`, `probes` (view → what was broken → its effect) and `length_correlation` are empty without a
    discriminator. `hides_images`: the discriminator's mode withholds them."""

    inputs: InputMeasures
    shortcuts: ShortcutReport
    accuracy: Mapping[str, Interval]
    probes: Mapping[str, Mapping[str, ProbeResult]]
    length_correlation: Mapping[str, Interval]
    hides_images: bool


def judge(measures: AuditMeasures) -> list[Check]:
    """Every check that could be made, whatever its verdict."""
    checks = list(_judge_inputs(measures.inputs))
    for audit in measures.shortcuts.views.values():
        checks += [_shortcut_check(finding) for finding in audit.findings]
    checks += [
        _check("shortcuts", view, "inconclusive", f"{audit.num_prompts} prompts", f"at least {MIN_PROMPTS}")
        for view, audit in measures.shortcuts.views.items()
        if not audit.is_conclusive
    ]
    for view, probes in measures.probes.items():
        if view != "reasoning" and not measures.hides_images and measures.inputs.num_images:
            checks += _judge_grounding(view, probes, measures.inputs)
        if view != "perception":
            checks += _judge_reasoning(view, probes)
    checks += [
        _judge_length(view, measured, measures.shortcuts.views[view].num_prompts)
        for view, measured in measures.length_correlation.items()
    ]
    return checks


def _check(name: str, view: str, verdict: Verdict, measured: str, limit: str) -> Check:
    advice = ADVICE[name] if verdict in ("warning", "flag") else ""
    return Check(name, view, verdict, measured, limit, advice)


def _judge_inputs(inputs: InputMeasures) -> Iterator[Check]:
    for name, view, count, total, what in (
        ("image-positions", "prompt", inputs.num_wrong_positions, inputs.num_prompts, "prompts differ"),
        ("input-builder", "response", inputs.num_read_otherwise, inputs.num_texts, "texts are read otherwise"),
    ):
        yield _check(name, view, "flag" if count else "ok", f"{count} of {total} {what}", "any")


def _shortcut_check(finding: Finding) -> Check:
    feature = finding.feature.replace("_", " ")
    measured = f"{share(finding.accuracy)} by {feature}"
    return _check(finding.name, finding.view, finding.severity, measured, f"lower limit above {finding.limit:.0%}")


def _judge_grounding(view: str, probes: Mapping[str, ProbeResult], inputs: InputMeasures) -> Iterator[Check]:
    if inputs.num_images_read < inputs.num_images:
        measured = f"{inputs.num_images_read} of {inputs.num_images} images are read"
        yield _check("images-ignored", view, "flag", measured, "fewer than all")
        return
    # Where few pictures share a size, too few can stand in for one another.
    name = SWAPPED if probes[SWAPPED].fallen.count >= MIN_PROMPTS else BLANKED
    yield from _judge_probes("images-ignored", "captions-unchecked", view, {name: probes[name]})


def _judge_reasoning(view: str, probes: Mapping[str, ProbeResult]) -> Iterator[Check]:
    chosen = {name: probes[name] for name in (SHUFFLED, MISCALCULATED) if probes[name].num_pairs}
    yield from _judge_probes("reasoning-ignored", "reasoning-unchecked", view, chosen)


def _judge_probes(ignored: str, unchecked: str, view: str, probes: Mapping[str, ProbeResult]) -> Iterator[Check]:
    """Whether the score changes at all, and whether it falls, under the probe that moves it most."""
    conclusive = {name: probe for name, probe in probes.items() if probe.fallen.count >= MIN_PROMPTS}
    if not conclusive or all(probe.shift is None for probe in conclusive.values()):
        count = max((probe.fallen.count for probe in probes.values()), default=0)
        measured = f"{count} prompts" if not conclusive else "all scores are equal"
        yield _check(ignored, view, "inconclusive", measured, f"at least {MIN_PROMPTS} prompts, scores that differ")
        return
    name, probe = max(conclusive.items(), key=lambda item: item[1].shift or 0.0)
    moved = {name: probe for name, probe in conclusive.items() if (probe.shift or 0.0) >= STILL}
    measured = f"{probe.shift or 0.0:.3f} sd change by {name}"
    yield _check(ignored, view, "ok" if moved else "flag", measured, f"below {STILL} sd")
    if moved:
        name, probe = max(moved.items(), key=lambda item: item[1].fallen.low or 0.0)
        measured = f"falls in {share(probe.fallen)} by {name}"
        yield _check(unchecked, view, "ok" if probe.is_noticed else "warning", measured, "lower limit not above 50%")


def _judge_length(view: str, measured: Interval, num_prompts: int) -> Check:
    """`measured` counts rollouts, of which those to one prompt are no independent ones."""
    name, limit = "length-correlated", f"beyond ±{CORRELATED}"
    if num_prompts < MIN_PROMPTS:
        return _check(name, view, "inconclusive", f"{num_prompts} prompts", f"at least {MIN_PROMPTS} prompts")
    mean, low, high = measured.mean, measured.low, measured.high
    if mean is not None and abs(mean) == 1:  # where Fisher's z is infinite: there are no limits
        return _check(name, view, "warning", f"{mean:+.2f}", limit)
    if mean is None or low is None or high is None:
        return _check(name, view, "inconclusive", "no spread", limit)
    is_beyond = low > CORRELATED or high < -CORRELATED
    return _check(name, view, "warning" if is_beyond else "ok", f"{mean:+.2f} ({low:+.2f} to {high:+.2f})", limit)


def share(interval: Interval) -> str:
    """`87% (83–90)`, `50%` without limits, `–` where nothing was measured."""
    if interval.mean is None:
        return "–"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.0%}"
    return f"{interval.mean:.0%} ({100 * interval.low:.0f}–{100 * interval.high:.0f})"


def named(checks: Sequence[Check], verdict: Verdict) -> list[str]:
    """The names of the checks that came out so, each once."""
    return sorted({check.name for check in checks if check.verdict == verdict})


def audit_document(measures: AuditMeasures, subject: Mapping[str, Any]) -> dict[str, Any]:
    """The content of audit.json: `subject` (what was audited), verdicts, then all numbers behind them."""
    checks = judge(measures)
    return {
        "subject": dict(subject),
        "flags": named(checks, "flag"),
        "warnings": named(checks, "warning"),
        "inconclusive": named(checks, "inconclusive"),
        "checks": [asdict(check) for check in checks],
        "accuracy": {
            view: _accuracies(audit, measures.accuracy.get(view)) for view, audit in measures.shortcuts.views.items()
        },
        "probes": {
            view: {name: probe.to_dict() for name, probe in probes.items()} for view, probes in measures.probes.items()
        },
        "length_correlation": {view: found.to_dict() for view, found in measures.length_correlation.items()},
        "inputs": asdict(measures.inputs),
        "shortcuts": measures.shortcuts.to_dict(),
    }


_GROUPS: Mapping[str, Sequence[str]] = {
    "end token": ("end_token",),
    "cut off": ("cut",),
    "common phrase": ("phrase",),
    "edges, format": FORMAT,
    "length": LENGTH,
    "counts": COUNTS,
    "texture": TEXTURE,
    "all of these": ("combined",),
    "n-grams": ("ngrams",),
}


def _accuracies(audit: ViewAudit, discriminator: Interval | None) -> dict[str, Any]:
    """How well the best feature of each group, and the discriminator, tell teacher from rollout."""
    rows: dict[str, Any] = {}
    for group, features in _GROUPS.items() if audit.features else ():
        best = max((audit.features[name].accuracy for name in features), key=lambda found: found.mean or 0.0)
        rows[group] = best.to_dict()
    return rows | {"discriminator": discriminator.to_dict() if discriminator else None}
