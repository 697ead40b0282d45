"""Copies are found in every disguise, and nothing else is dropped."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curated_rows import Scripted, fill
from labelled_copies import DISGUISES, disguise, line_drawings, originals, row
from prism.curation import Store, candidates, count_step, fingerprints, run_step, run_whole_step
from prism.curation.dedup import CONTRADICTED, EXACT, NEAR, STEP, UNREADABLE, Dedup, answers_agree
from prism.curation.rows import Outcome, Row
from prism.data import image_likeness
from prism.records import Prompt


def dedup(store: Store, rows: list[Row]) -> dict[str, Outcome]:
    fill(store, rows)
    run_whole_step(store, Dedup(store.images.root))
    return {outcome.row_id: outcome for outcome in store.outcomes(STEP)}


def text_row(name: str, question: str, answer: str = "5", **changes: Any) -> Row:
    return Row(f"made/{name}", replace(Prompt(name, question, answer=answer), **changes))


def test_copies_are_found_in_every_disguise_and_nothing_else_is_dropped(store: Store) -> None:
    source = random.Random(11)
    problems = originals(source, 100)
    rows = [row(f"o{number}", problem) for number, problem in enumerate(problems)]
    kinds: dict[frozenset[str], str] = {}
    for number in source.sample(range(len(problems)), 70):
        kind = DISGUISES[len(kinds) % len(DISGUISES)]
        rows.append(row(f"c{number}", disguise(source, problems[number], kind)))
        kinds[frozenset((f"made/c{number}", f"made/o{number}"))] = kind
    source.shuffle(rows)
    outcomes = dedup(store, rows)
    dropped = {frozenset((o.row_id, o.findings["duplicate_of"])) for o in outcomes.values() if o.status == "dropped"}
    false_drops, missed = dropped - set(kinds), set(kinds) - dropped
    assert len(missed) <= 0.05 * len(kinds), Counter(kinds[pair] for pair in missed)
    assert len(false_drops) <= 0.01 * len(problems), false_drops
    assert len(outcomes) == len(rows)
    for outcome in outcomes.values():
        if outcome.status == "dropped":
            assert outcomes[outcome.findings["duplicate_of"]].status == "kept"


def count_alignments(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each pair of pictures that is laid over one another from now on."""
    counted: list[None] = []

    def same_picture(first: Image.Image, second: Image.Image) -> float | None:
        counted.append(None)
        return image_likeness.same_picture(first, second)

    monkeypatch.setattr(fingerprints, "same_picture", same_picture)
    return counted


def test_of_many_line_drawings_few_are_laid_over_one_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    alignments = count_alignments(monkeypatch)
    source = random.Random(2)
    problems = line_drawings(source, 300)
    rows = [row(f"o{number}", problem) for number, problem in enumerate(problems)]
    planted = {}
    for count, number in enumerate(source.sample(range(len(problems)), 32)):
        kind = DISGUISES[1 + count % 4]
        rows.append(row(f"c{number}", disguise(source, problems[number], kind)))
        planted[frozenset((f"made/c{number}", f"made/o{number}"))] = kind
    outcomes = dedup(store, rows)
    dropped = {frozenset((o.row_id, o.findings["duplicate_of"])) for o in outcomes.values() if o.status == "dropped"}
    assert len(set(planted) - dropped) <= 0.05 * len(planted), Counter(planted[pair] for pair in set(planted) - dropped)
    assert not dropped - set(planted)
    assert len(alignments) < len(rows)


def test_of_many_copies_one_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More encodings of a picture than a row is compared with, and more rows with the same file."""
    alignments = count_alignments(monkeypatch)
    monkeypatch.setattr(candidates, "MAX_LIKEST", 3)
    monkeypatch.setattr(candidates, "MAX_BEST", 1)
    source = random.Random(3)
    [problem] = line_drawings(source, 1)
    assert problem.picture is not None
    sizes = range(300, 400, 3)
    resized = [replace(problem, picture=problem.picture.resize((s, s), Image.Resampling.LANCZOS)) for s in sizes]
    # With a demonstration, and so better than the others with the same file.
    rows = [replace(row(f"r{number}", copy), completion="5") for number, copy in enumerate(resized)]
    rows += [row(f"same{number}", resized[0]) for number in range(100)]
    rows += [row(f"wrong{number}", replace(resized[1], answer="6")) for number in range(20)]
    outcomes = dedup(store, [*rows, replace(row("best", problem), completion="5")])
    assert {name for name, outcome in outcomes.items() if outcome.status == "kept"} == {"made/best"}
    assert {outcome.detail for outcome in outcomes.values() if outcome.status == "dropped"} == {"of made/best"}
    assert Counter(outcome.reason for outcome in outcomes.values())[CONTRADICTED] == 20
    assert len(alignments) <= len(resized) * 4


def test_the_best_of_the_same_stays(store: Store) -> None:
    question = "How long is the side AB?"
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    large = Image.fromarray(noise).resize((300, 300), Image.Resampling.BICUBIC)
    [problem] = [p for p in originals(random.Random(1), 9) if p.question.startswith("Which texture")][:1]
    rows = [
        row("small", replace(problem, question=question, picture=large.resize((200, 200)))),
        row("large", replace(problem, question=question, picture=large)),
        row("unanswered", replace(problem, question=question, answer="", picture=large.resize((400, 400)))),
        text_row("first", "What is 17 + 4?", "21"),
        text_row("second", "Compute 17 + 4.", "21"),
        replace(text_row("shown", "Please find 17 + 4.", "21"), completion="It is 21."),
    ]
    outcomes = dedup(store, rows)
    assert {name for name, outcome in outcomes.items() if outcome.status == "kept"} == {"made/large", "made/shown"}
    assert outcomes["made/second"].detail == "of made/shown" and outcomes["made/small"].reason == NEAR


def test_answers_and_options_tell_problems_apart(store: Store) -> None:
    rows = [
        text_row("a", "Which one is it?", "B", choices=("cat", "dog")),
        text_row("shuffled", "Which one is it?", "A", choices=("dog", "cat")),
        text_row("others", "Which one is it?", "B", choices=("cat", "cow")),
        text_row("b", "What is 17 + 4?", "21"),
        text_row("wrong", "What is 17 + 4?", "22"),
        text_row("reworded", "Compute 17 + 4.", "23"),
        text_row("equal", "Compute 17 + 4.", "21.0"),
    ]
    fill(store, rows)
    run_whole_step(store, Dedup(store.images.root))
    reasons = {o.row_id: o.reason for o in store.outcomes(STEP) if o.status == "dropped"}
    assert set(reasons.values()) == {EXACT, CONTRADICTED} and "made/others" not in reasons
    assert sum(name in reasons for name in ("made/a", "made/shuffled")) == 1
    assert sum(f"made/{name}" in reasons for name in ("b", "wrong", "reworded", "equal")) == 3
    assert answers_agree("1/2", "0.5") and answers_agree("", "3") and not answers_agree("3", "4")


def test_an_image_that_is_gone_drops_its_row_only(store: Store) -> None:
    problems = [p for p in originals(random.Random(1), 9) if p.picture is not None][:2]
    fill(store, [row(str(number), problem) for number, problem in enumerate(problems)])
    [first] = [each for each in store.rows() if each.prompt.id == "0"]
    path = first.prompt.images[0].path
    assert path is not None
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    run_whole_step(store, Dedup(store.images.root))
    assert dict(count_step(store, STEP).dropped) == {UNREADABLE: 1} and count_step(store, STEP).num_kept == 1


def test_only_rows_that_got_as_far_are_compared(store: Store) -> None:
    fill(store, [text_row(name, "What is 17 + 4?") for name in "abc"])
    run_step(store, Scripted("verify", lambda row: Outcome(row.id, "dropped" if row.prompt.id == "a" else "kept", "x")))
    run_whole_step(store, Dedup(store.images.root))
    assert {o.row_id for o in store.outcomes(STEP)} == {"made/b", "made/c"}
    assert count_step(store, STEP).num_kept == 1
