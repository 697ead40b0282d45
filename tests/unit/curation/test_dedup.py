"""Copies are found in every disguise, and nothing else is dropped."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from curated_rows import Scripted, fill
from labelled_copies import DISGUISES, disguise, originals, row
from prism.curation import Store, count_step, run_step, run_whole_step
from prism.curation.dedup import CONTRADICTED, EXACT, NEAR, STEP, UNREADABLE, Dedup, answers_agree
from prism.curation.rows import Outcome, Row
from prism.records import Prompt


def dedup(store: Store, rows: list[Row]) -> dict[str, Outcome]:
    fill(store, rows)
    run_whole_step(store, Dedup(store.images.root, num_threads=2))
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
