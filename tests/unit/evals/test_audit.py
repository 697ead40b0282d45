"""Verdicts from made-up measures, each rule at and beyond its limit."""

import json
from dataclasses import replace

import pytest

from prism.evals.audit import (
    ADVICE,
    BLANKED,
    MISCALCULATED,
    MISDESCRIBED,
    SHUFFLED,
    SWAPPED,
    AuditMeasures,
    InputMeasures,
    audit_document,
    judge,
    named,
    share,
)
from prism.evals.audit_text import format_audit
from prism.evals.probes import ProbeResult, probe_result, rank_correlation
from prism.evals.shortcuts import ShortcutReport, TextPair, audit_shortcuts
from prism.evals.statistics import NOTHING_MEASURED, Interval
from prism.evals.text_features import Reading

INPUTS = InputMeasures(
    num_prompts=32, num_wrong_positions=0, num_images=32, num_images_read=32, num_texts=64, num_read_otherwise=0
)
SUBJECT = {
    "seed": 3,
    "policy": "sft",
    "discriminator": "warmup",
    "num_prompts": 40,
    "num_seen": 0,
    "num_rollouts": 80,
    "num_valid": 79,
}


def probe(fallen: int, *, count: int = 40, by: float = 0.5) -> ProbeResult:
    """`fallen` of `count` scores fall and the others rise by as much; the original scores are spread by 1."""
    original = [float(2 * (row % 2)) for row in range(count)]
    broken = [score - (by if row < fallen else -by) for row, score in enumerate(original)]
    return probe_result(original, broken)


NOTICED, UNNOTICED, STILL, FEW = probe(36), probe(20), probe(40, by=0.009), probe(19, count=19)
NOTHING = probe_result([], [])


def healthy_pairs(num_prompts: int = 40) -> ShortcutReport:
    """Both sides vary in the same way, and both views."""
    pairs = [
        TextPair(str(prompt), *(Reading("a red star. " * (1 + (prompt + side) % 3), (5, 6, 7)) for side in (0, 1)))
        for prompt in range(num_prompts)
    ]
    return audit_shortcuts({"perception": pairs, "reasoning": pairs})


def measures(**changes: object) -> AuditMeasures:
    found = AuditMeasures(
        inputs=INPUTS,
        shortcuts=healthy_pairs(),
        accuracy={"perception": Interval(0.8, 0.7, 0.9, 40), "reasoning": Interval(0.7, 0.6, 0.8, 40)},
        probes={
            "perception": {SWAPPED: NOTICED, BLANKED: NOTICED, MISDESCRIBED: NOTICED},
            "reasoning": {SHUFFLED: NOTICED, MISCALCULATED: NOTICED},
        },
        length_correlation={"perception": Interval(0.2, 0.0, 0.4, 80)},
        hides_images=False,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def verdicts(found: AuditMeasures) -> dict[str, str]:
    return {check.name: check.verdict for check in judge(found)}


def test_a_healthy_audit_has_every_check_and_raises_none() -> None:
    checks = judge(measures())
    assert {check.verdict for check in checks} == {"ok"} and not any(check.advice for check in checks)
    assert {check.name for check in checks} == set(ADVICE)


def test_inputs_are_judged_however_few_the_prompts_are() -> None:
    broken = replace(INPUTS, num_prompts=2, num_wrong_positions=1, num_texts=4, num_read_otherwise=2)
    found = {check.name: check for check in judge(measures(inputs=broken)) if check.verdict == "flag"}
    assert set(found) == {"image-positions", "input-builder"}
    assert found["image-positions"].measured == "1 of 2 prompts differ"
    assert found["input-builder"].measured == "2 of 4 texts are read otherwise"
    assert found["input-builder"].advice == ADVICE["input-builder"]


@pytest.mark.parametrize(
    ("swapped", "ignored", "unchecked"),
    [(NOTICED, "ok", "ok"), (UNNOTICED, "ok", "warning"), (STILL, "flag", None)],
    ids=["falls", "changes", "stays"],
)
def test_other_images_must_make_the_perception_score_fall(
    swapped: ProbeResult, ignored: str, unchecked: str | None
) -> None:
    """A fall every time by less than 1% of the spread is none. Blank images, which look like nothing the
    discriminator has seen, do not count where there are other ones."""
    probes = {"perception": {SWAPPED: swapped, BLANKED: NOTICED, MISDESCRIBED: NOTICED}}
    found = verdicts(measures(probes=probes))
    assert (found["images-ignored"], found.get("captions-unchecked")) == (ignored, unchecked)


@pytest.mark.parametrize("swapped", [NOTHING, FEW], ids=["none", "too few"])
def test_blank_images_serve_where_other_ones_do_not_fit(swapped: ProbeResult) -> None:
    probes = {"perception": {SWAPPED: swapped, BLANKED: STILL, MISDESCRIBED: NOTICED}}
    [check] = [check for check in judge(measures(probes=probes)) if check.name == "images-ignored"]
    assert check.verdict == "flag" and BLANKED in check.measured
    few = {"perception": {SWAPPED: swapped, BLANKED: FEW, MISDESCRIBED: NOTICED}}
    assert verdicts(measures(probes=few))["images-ignored"] == "inconclusive"


def test_missing_images_are_ignored_whatever_the_scores_do() -> None:
    found = measures(inputs=replace(INPUTS, num_images_read=0))
    [check] = [check for check in judge(found) if check.name == "images-ignored"]
    assert check.verdict == "flag" and check.measured == "0 of 32 images are read"
    assert check.limit == "fewer than all"
    assert "captions-unchecked" not in verdicts(found)


def test_grounding_is_no_question_without_images_or_in_a_mode_that_hides_them() -> None:
    for found in (measures(hides_images=True), measures(inputs=replace(INPUTS, num_images=0, num_images_read=0))):
        assert not {"images-ignored", "captions-unchecked"} & set(verdicts(found))


@pytest.mark.parametrize(
    ("shuffled", "miscalculated", "ignored", "unchecked"),
    [
        (NOTICED, STILL, "ok", "ok"),
        (UNNOTICED, NOTICED, "ok", "ok"),
        (UNNOTICED, STILL, "ok", "warning"),
        (STILL, STILL, "flag", None),
        (NOTHING, NOTICED, "ok", "ok"),
        (FEW, NOTICED, "ok", "ok"),
        (FEW, NOTHING, "inconclusive", None),
    ],
)
def test_one_kind_of_broken_reasoning_must_be_noticed(
    shuffled: ProbeResult, miscalculated: ProbeResult, ignored: str, unchecked: str | None
) -> None:
    found = verdicts(measures(probes={"reasoning": {SHUFFLED: shuffled, MISCALCULATED: miscalculated}}))
    assert (found["reasoning-ignored"], found.get("reasoning-unchecked")) == (ignored, unchecked)


def test_the_one_score_of_a_whole_response_must_do_both() -> None:
    probes = {"response": {SWAPPED: STILL, BLANKED: STILL, MISDESCRIBED: STILL, SHUFFLED: STILL, MISCALCULATED: STILL}}
    assert named(judge(measures(probes=probes)), "flag") == ["images-ignored", "reasoning-ignored"]


def test_a_discriminator_that_scores_everything_alike_proves_nothing() -> None:
    flat = probe_result([1.0] * 30, [1.0] * 30)
    assert flat.shift is None
    found = verdicts(measures(probes={"reasoning": {SHUFFLED: flat, MISCALCULATED: flat}}))
    assert found["reasoning-ignored"] == "inconclusive"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(0.6, 0.51, 0.7, 80), "warning"),
        (Interval(-0.6, -0.7, -0.51, 80), "warning"),
        (Interval(0.6, 0.49, 0.7, 80), "ok"),
        (NOTHING_MEASURED, "inconclusive"),
        (Interval(1.0, None, None, 80), "warning"),
        (Interval(-1.0, None, None, 80), "warning"),
    ],
)
def test_length_is_a_warning_where_it_surely_explains_much(interval: Interval, verdict: str) -> None:
    assert verdicts(measures(length_correlation={"reasoning": interval}))["length-correlated"] == verdict


def test_a_score_that_is_the_length_is_beyond_though_it_has_no_limits() -> None:
    prompts = [str(row // 2) for row in range(80)]
    found = rank_correlation([0.1 * row for row in range(80)], list(range(80)), prompts)
    assert (found.mean, found.low) == (1.0, None)
    [check] = [check for check in judge(measures(length_correlation={"reasoning": found})) if check.verdict != "ok"]
    assert (check.name, check.verdict, check.measured) == ("length-correlated", "warning", "+1.00")


@pytest.mark.parametrize(("num_prompts", "verdict"), [(19, "inconclusive"), (20, "warning")])
def test_many_rollouts_to_few_prompts_say_nothing_of_length(num_prompts: int, verdict: str) -> None:
    interval = Interval(0.8, 0.7, 0.9, 8 * num_prompts)
    found = measures(shortcuts=healthy_pairs(num_prompts), length_correlation={"reasoning": interval})
    [check] = [check for check in judge(found) if check.name == "length-correlated"]
    assert check.verdict == verdict
    if verdict == "inconclusive":
        assert (check.measured, check.limit) == ("19 prompts", "at least 20 prompts")


def test_a_shortcut_of_the_texts_becomes_a_check() -> None:
    pairs = [
        TextPair(str(prompt), Reading("Well then. A star.", (1, 2, 9)), Reading("A star.", (1, 2, 9)))
        for prompt in range(40)
    ]
    [check] = [
        check for check in judge(measures(shortcuts=audit_shortcuts({"perception": pairs}))) if check.name == "filler"
    ]
    assert (check.view, check.verdict, check.limit) == ("perception", "flag", "lower limit above 85%")
    assert check.measured == "100% (91–100) by phrase"


def test_too_few_pairs_are_inconclusive_and_never_a_flag() -> None:
    found = verdicts(measures(shortcuts=healthy_pairs(19)))
    assert found["shortcuts"] == "inconclusive" and "filler" not in found


def test_shares_as_they_are_shown() -> None:
    assert share(Interval(0.874, 0.83, 0.914, 9)) == "87% (83–91)"
    assert share(Interval(0.5, None, None, 9)) == "50%"
    assert share(NOTHING_MEASURED) == "–"


def test_the_document_is_json_and_reads_as_tables() -> None:
    broken = measures(
        inputs=replace(INPUTS, num_wrong_positions=7),
        length_correlation={"reasoning": Interval(0.8, 0.7, 0.9, 80)},
    )
    document = json.loads(json.dumps(audit_document(broken, SUBJECT), allow_nan=False))
    assert (document["flags"], document["warnings"]) == (["image-positions"], ["length-correlated"])
    assert document["accuracy"]["perception"]["discriminator"]["mean"] == 0.8
    assert document["probes"]["reasoning"][SHUFFLED]["fallen"]["mean"] == 0.9
    text = format_audit(document)
    assert text.startswith(
        "audit of seed 3: rollouts of sft, discriminator warmup; 40 prompts, 79 of 80 rollouts valid"
    )
    assert "\nFLAG image-positions (prompt): 7 of 32 prompts differ, raised where any\n" in text
    assert "\nWARNING length-correlated (reasoning): +0.80 (+0.70 to +0.90), raised where beyond ±0.5\n" in text
    assert "no flags" not in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("  discriminator")] == ["(60–80)"]


def test_a_document_without_a_discriminator() -> None:
    found = measures(accuracy={}, probes={}, length_correlation={})
    text = format_audit(json.loads(json.dumps(audit_document(found, SUBJECT | {"discriminator": None, "num_seen": 4}))))
    assert "discriminator none yet; 40 prompts, 4 of them trained on" in text
    assert text.endswith("no flags") and "falls in" not in text
