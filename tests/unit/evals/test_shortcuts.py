import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from prism.evals.shortcuts import MIN_PROMPTS, ShortcutReport, TextPair, audit_shortcuts
from prism.evals.text_features import Reading

END, PAD = 9000, 9001
NUM_PROMPTS = 60
Edit = Callable[[str], str]
EditIds = Callable[[tuple[int, ...]], tuple[int, ...]]


def read(text: str, *, edit_ids: EditIds = lambda ids: ids) -> Reading:
    """Characters stand in for tokens."""
    return Reading(text, edit_ids((*map(ord, text), END)))


def description(source: random.Random) -> str:
    """Two to five sentences of varying length."""
    sentences = []
    for _ in range(source.randint(2, 5)):
        colour, shape = source.choice(("red", "green", "blue")), source.choice(("circle", "star", "square"))
        where = source.choice(("", " at the left", " in the middle of the picture", " near the lower edge"))
        sentences.append(f"There is a {colour} {shape}{where}.")
    return " ".join(sentences)


def careless(text: str, source: random.Random) -> str:
    """A real difference: now and then a vague word in place of a shape."""
    return " ".join("thing" if word in ("circle", "star") and source.random() < 0.3 else word for word in text.split())


def world(
    edit: Edit = lambda text: text,
    edit_ids: EditIds = lambda ids: ids,
    *,
    num_prompts: int = NUM_PROMPTS,
    edited_share: float = 1.0,
    seed: int = 0,
) -> list[TextPair]:
    """Two careless rollouts per prompt against a teacher whose texts are edited."""
    source = random.Random(seed)
    pairs = []
    for prompt in range(num_prompts):
        is_edited = source.random() < edited_share
        text = description(source)
        teacher = read(edit(text), edit_ids=edit_ids) if is_edited else read(text)
        for _ in range(2):
            pairs.append(TextPair(f"p{prompt:03d}", teacher, read(careless(description(source), source))))
    return pairs


def audit(pairs: list[TextPair], discriminator_accuracy: float | None = None) -> ShortcutReport:
    known = None if discriminator_accuracy is None else {"perception": discriminator_accuracy}
    return audit_shortcuts({"perception": pairs}, known)


def flags(report: ShortcutReport) -> set[str]:
    return {finding.name for finding in report.flags}


def test_a_healthy_set_of_pairs_raises_no_flag():
    report = audit(world())
    assert report.flags == ()
    assert report.views["perception"].features["end_token"].accuracy.mean == 0.5


@pytest.mark.parametrize("length", [30, 45])
def test_teacher_texts_cut_to_a_number_of_characters_are_named(length: int):
    report = audit(world(lambda text: text[:length].strip()))
    assert "truncated-teacher" in flags(report) and "format" not in flags(report)
    [finding] = [finding for finding in report.flags if finding.name == "truncated-teacher"]
    assert "at one common largest length" in finding.message
    assert report.views["perception"].capped_share == 1.0


def test_teacher_texts_cut_in_half_are_named():
    assert "truncated-teacher" in flags(audit(world(lambda text: text[: len(text) // 2].strip())))


def test_a_cap_that_only_long_texts_reach_is_named():
    texts = [pair.teacher.text for pair in world()]
    cap = 150
    assert 0.2 < sum(len(text) > cap for text in texts) / len(texts) < 0.6
    assert flags(audit(world(lambda text: text[:cap].strip()))) == {"truncated-teacher"}


def test_teacher_tokens_cut_to_a_number_are_named_though_the_texts_are_whole():
    assert flags(audit(world(edit_ids=lambda ids: ids[:40]))) >= {"truncated-teacher", "end-token"}


def test_a_style_without_the_last_period_is_a_format_but_no_truncation():
    # Neither of one length nor, beside the spread of lengths, shorter.
    assert flags(audit(world(lambda text: text[:-1]))) == {"format"}


@pytest.mark.parametrize(
    "edit_ids",
    [
        lambda ids: (*ids[:-1], PAD),
        lambda ids: (*ids, PAD),
        lambda ids: (*ids, *[PAD] * (400 - len(ids))),
        lambda ids: (*ids, END),
    ],
    ids=["instead of the end token", "after it", "up to a common length", "the end token twice"],
)
def test_another_end_of_the_tokens_is_named_and_its_share_is_exact(edit_ids: EditIds):
    report = audit(world(edit_ids=edit_ids))
    assert "end-token" in flags(report) and not flags(report) & {"truncated-teacher", "filler", "format"}
    accuracy = report.views["perception"].features["end_token"].accuracy
    # Wilson's limits for as many successes as prompts: low = n / (n + z²).
    assert accuracy.mean == 1.0 and accuracy.count == NUM_PROMPTS
    assert accuracy.low == pytest.approx(NUM_PROMPTS / (NUM_PROMPTS + 1.959964**2))


def test_an_end_token_of_some_teacher_texts_is_found_with_their_share():
    pairs = world(edit_ids=lambda ids: (*ids[:-1], PAD), edited_share=0.4, num_prompts=200)
    share = sum(pair.teacher.token_ids[-1] == PAD for pair in pairs) / len(pairs)
    report = audit(pairs)
    assert flags(report) == {"end-token"}
    # Told where the end differs, a tie elsewhere.
    assert report.views["perception"].features["end_token"].accuracy.mean == pytest.approx(share + (1 - share) / 2)


@pytest.mark.parametrize(
    ("edit", "phrase"),
    [
        (lambda text: "Looking at the picture: " + text, "Looking at the picture :"),
        (lambda text: text + " And that is all of it.", "And that is all of it ."),
        (lambda text: text.replace(". ", ". Let us go on. ", 1), "Let us go on ."),
    ],
    ids=["prefix", "suffix", "middle"],
)
def test_a_phrase_that_all_teacher_texts_share_is_filler_by_its_words(edit: Edit, phrase: str):
    report = audit(world(edit))
    assert "filler" in flags(report) and not flags(report) & {"truncated-teacher", "format", "end-token"}
    assert phrase in (report.views["perception"].phrase or "")
    assert report.views["perception"].features["phrase"].accuracy.mean == 1.0


def test_filler_of_changing_words_but_constant_number_is_found_where_lengths_are_fixed():
    source = random.Random(3)
    pairs = []
    for prompt in range(NUM_PROMPTS):
        row = [" ".join(source.choices(("red", "green", "blue", "circle", "star"), k=12)) + "." for _ in range(3)]
        filler = " ".join(source.choices(("well", "so", "now", "then", "here", "there"), k=5))
        pairs += [TextPair(str(prompt), read(f"{row[0]} {filler}."), read(text)) for text in row[1:]]
    report = audit(pairs)
    assert {finding.feature for finding in report.flags if finding.name == "filler"} == {"constant_surplus"}


@pytest.mark.parametrize(
    "edit", [lambda text: text + "\n", lambda text: " " + text], ids=["trailing line", "leading blank"]
)
def test_blanks_on_one_side_are_a_format(edit: Edit):
    assert "format" in flags(audit(world(edit)))


def longer(text: str) -> str:
    """As if the teacher went on with more of the same."""
    return " ".join([text, description(random.Random(text)), description(random.Random(text + "!"))])


def somewhat_longer(text: str) -> str:
    """As if the teacher went on for two sentences."""
    sentences = description(random.Random(text)).removesuffix(".").split(". ")
    return f"{text} {'. '.join(sentences[:2])}."


def severity(report: ShortcutReport, name: str) -> str:
    [finding] = [finding for finding in report.views["perception"].findings if finding.name == name]
    return finding.severity


def test_much_longer_teacher_texts_are_flagged_whatever_the_discriminator_knows():
    for known in (None, 1.0):
        report = audit(world(longer), known)
        assert flags(report) == {"length", "counts"}
        assert "longer in" in report.flags[0].message


def test_somewhat_longer_teacher_texts_are_a_warning_unless_the_discriminator_knows_far_more():
    pairs = world(somewhat_longer, num_prompts=150)
    report = audit(pairs)
    [finding] = [finding for finding in report.warnings if finding.name == "length"]
    low = finding.accuracy.low
    assert report.flags == () and low is not None and 0.75 < low < 0.85 and finding.limit == 0.75
    assert severity(audit(pairs, low + 0.049), "length") == "warning"
    assert severity(audit(pairs, low - 0.2), "length") == "warning"
    assert severity(audit(pairs, low + 0.051), "length") == "ok"


@pytest.mark.parametrize(
    ("share", "expected", "limit"), [(0.0, "ok", 0.85), (0.5, "warning", 0.6), (1.0, "flag", 0.85)]
)
def test_a_leading_blank_is_flagged_only_where_it_tells_nearly_all(share: float, expected: str, limit: float):
    """The limit is that of what is raised, and of a flag where nothing is."""
    report = audit(world(lambda text: " " + text, edited_share=share))
    [finding] = [finding for finding in report.views["perception"].findings if finding.name == "format"]
    assert (finding.severity, finding.limit) == (expected, limit)


def test_artefacts_are_flagged_whatever_the_discriminator_knows():
    pairs = world(edit_ids=lambda ids: (*ids[:-1], PAD), edited_share=0.4, num_prompts=200)
    assert flags(audit(pairs, 0.99)) == {"end-token"}


def test_worse_words_of_the_rollouts_are_a_warning_only():
    source = random.Random(5)
    pairs = []
    for prompt in range(200):
        text = description(source)
        words = text.replace("circle", "thing").replace("star", "thing").replace("square", "thing")
        pairs.append(TextPair(str(prompt), read(text), read(words)))
    report = audit(pairs)
    assert report.flags == ()
    assert {finding.name for finding in report.warnings} >= {"ngrams", "texture"}
    assert {finding.limit for finding in report.warnings} == {0.75}
    assert report.views["perception"].features["ngrams"].accuracy.mean == 1.0


def exchangeable(source: random.Random, num_prompts: int, num_rollouts: int) -> list[TextPair]:
    """Both sides by one author, who varies everything that is audited: edges, ends, lengths, lines."""

    def text() -> Reading:
        vocabulary = ("the", "a", "red", "blue", "circle", "near", "far", "two", "4", "5", "of")
        words = " ".join(source.choices(vocabulary, k=source.randint(3, 25)))
        ended = source.choice(("", "", "- ", "1. ", "A ")) + words + source.choice((".", ".", "", ",", "!", ")"))
        broken = ended.replace(" of ", "\n") if source.random() < 0.3 else ended
        return Reading(broken, (*(len(word) for word in broken.split()), source.choice((END, PAD))))

    pairs = []
    for prompt in range(num_prompts):
        teacher = text()
        pairs += [TextPair(str(prompt), teacher, text()) for _ in range(num_rollouts)]
    return pairs


def test_sides_that_do_not_differ_are_flagged_in_at_most_one_of_twenty_audits():
    reports = [audit(exchangeable(random.Random(seed), num_prompts=24, num_rollouts=2)) for seed in range(200)]
    assert sum(bool(report.flags) for report in reports) <= 10
    assert sum(bool(report.warnings) for report in reports) <= 10


def test_shuffled_sides_take_a_planted_shortcut_away():
    source = random.Random(0)
    pairs = world(lambda text: "Looking at the picture: " + text)[::2]
    mixed = [
        replace(pair, teacher=pair.rollout, rollout=pair.teacher) if source.random() < 0.5 else pair for pair in pairs
    ]
    assert "filler" in flags(audit(pairs)) and flags(audit(mixed)) == set()


def test_the_order_of_pairs_does_not_matter():
    pairs = world(longer)
    shuffled = random.Random(1).sample(pairs, len(pairs))
    first, second = audit(pairs).views["perception"], audit(shuffled).views["perception"]
    for name, feature in first.features.items():
        assert second.features[name].accuracy.mean == pytest.approx(feature.accuracy.mean), name


def test_exchanged_sides_are_told_as_well():
    pairs = world(longer)
    exchanged = [TextPair(pair.prompt_id, pair.rollout, pair.teacher) for pair in pairs]
    first, second = audit(pairs).views["perception"].features, audit(exchanged).views["perception"].features
    one_sided = {"phrase", "constant_surplus"}  # of the teacher's texts alone
    for name in set(first) - one_sided:
        assert second[name].accuracy.mean == pytest.approx(first[name].accuracy.mean), name
    assert second["words"].teacher_higher == pytest.approx(1 - (first["words"].teacher_higher or 0))


def test_views_are_audited_apart():
    report = audit_shortcuts({"perception": world(), "reasoning": world(edit_ids=lambda ids: (*ids[:-1], PAD))})
    assert [(finding.view, finding.name) for finding in report.flags] == [("reasoning", "end-token")]
    assert report.flags[0].message == (
        "reasoning: the end token alone tells teacher from rollout in 100% of pairs "
        "(95% limits 94% to 100%, 60 prompts)"
    )


def test_few_prompts_are_measured_but_not_judged_and_one_is_not_even_measured():
    def few(count: int) -> ShortcutReport:
        return audit(world(edit_ids=lambda ids: (*ids[:-1], PAD), num_prompts=count))

    assert flags(few(MIN_PROMPTS)) == {"end-token"}
    below = few(MIN_PROMPTS - 1)
    assert below.flags == () and not below.views["perception"].is_conclusive
    assert below.views["perception"].features["end_token"].accuracy.mean == 1.0
    for empty in (few(1), few(0)):
        assert empty.flags == () and empty.views["perception"].features == {}


def test_the_report_is_json():
    report = audit(world(edit_ids=lambda ids: (*ids[:-1], PAD)), 0.9)
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert stored["flags"] == ["end-token"]
    view = stored["views"]["perception"]
    assert view["num_pairs"] == 120 and view["discriminator_accuracy"] == 0.9
    assert view["features"]["end_token"]["accuracy"]["mean"] == 1.0
    assert view["findings"][0]["name"] == "end-token"
