"""Which demonstrations hold, and which one is taken."""

from collections.abc import Mapping
from typing import Any

import pytest

from curated_rows import Scripted, fill
from prism.config import VerifyRecipe, build_config
from prism.curation import Part, Store, count_step, run_step
from prism.curation.agreement import count_same, verdicts_by_majority
from prism.curation.demonstration import demonstration
from prism.curation.rows import Outcome, Row, kept
from prism.curation.spending import count_spending
from prism.curation.verify import STEP, run_verify
from prism.errors import RolloutError
from prism.records import Prompt
from servers.openai_stub import Received, Reply, completion, refusal, serving

CAPTION = "A rectangle, labelled 6 at the top. Its right side, labelled 7."


def text(answer: str, think: str = "1. 6 * 7 = 42.", caption: str = CAPTION) -> str:
    return f"<caption>{caption}</caption><think>{think}</think><answer>{answer}</answer>"


def verify(store: Store, taught: Mapping[str, list[str]], answer: str = "42", **changes: Any) -> dict[str, Outcome]:
    """Samples by row; a text that begins with ! was repaired."""
    fill(store, [Row(f"made/{name}", Prompt(name, "What is the area?", answer=answer)) for name in taught])

    def teach(row: Row) -> Outcome:
        samples = [
            {"text": sample.lstrip("!"), "draw": draw, "is_repaired": sample[0] == "!"}
            for draw, sample in enumerate(taught[row.prompt.id])
        ]
        return kept(row, samples=samples)

    run_step(store, Scripted("teach", teach))
    run_verify(store, build_config(VerifyRecipe, changes, (), source="test"), Part())
    return {outcome.row_id.removeprefix("made/"): outcome for outcome in store.outcomes(STEP)}


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (text("42"), None),
        (text("42.0 "), None),
        (text("43"), "no demonstration's answer is right"),
        ("The answer is 42.", "no demonstration is in the format"),
        (text("42") + text("42"), "no demonstration is in the format"),
        (text("42", caption="A figure."), "description is too short"),
        (text("42", caption="there is one rectangle in it"), "description has too few items"),
        (text("42", think="1. The diagonal is 19.5.\n2. So 42."), "numbers in the reasoning are in no evidence"),
    ],
)
def test_a_demonstration_holds_or_one_reason_says_why_not(store: Store, sample: str, reason: str | None) -> None:
    assert verify(store, {"a": [sample]})["a"].reason == reason


def test_of_several_the_one_with_most_behind_it_is_taken(store: Store) -> None:
    outcomes = verify(
        store,
        {
            "wrong first": [text("41"), text("42"), text("42", "1. 7 * 6 = 42.")],
            "repaired": ["!" + text("42"), text("42", "1. 7 * 6 = 42.")],
            "shaky": [text("42", "1. The diagonal is 19.5.\n2. 42."), "!" + text("42")],
            "outvoted": [text("40"), text("40"), text("42")],
        },
    )
    found = {name: outcome.findings for name, outcome in outcomes.items()}
    assert {name: values["draw"] for name, values in found.items()} == {
        "wrong first": 1,
        "repaired": 1,
        "shaky": 1,
        "outvoted": 2,
    }
    assert found["wrong first"]["agreement"] == pytest.approx(2 / 3)
    assert found["wrong first"]["verdicts"] == {"wrong": 1, "correct": 2} and found["wrong first"]["num_sound"] == 2
    assert found["repaired"]["text"] == text("42", "1. 7 * 6 = 42.")
    assert "agreement (1)" in found["outvoted"]["why"] and found["outvoted"]["decided_by"].startswith("rules")


def test_without_an_answer_the_samples_must_agree(store: Store) -> None:
    taught = {"two": [text("42"), text("42.0"), text("5")], "none": [text("1"), text("2")], "one": [text("42")]}
    outcomes = verify(store, taught, answer="")
    assert outcomes["two"].findings["decided_by"] == "agreement" and outcomes["two"].findings["draw"] == 0
    assert {outcomes[name].reason for name in ("none", "one")} == {"has no answer, and its demonstrations do not agree"}


def test_without_an_answer_only_one_can_be_right(store: Store) -> None:
    shaky = "1. The diagonal is 19.5.\n2. So it is that."
    taught = {
        "tied": [text("42"), text("42"), text("13"), text("13")],
        "minority": [*(text("42", shaky) for _ in range(3)), text("13"), text("13")],
        "majority": [*(text("42") for _ in range(3)), text("13"), text("13")],
    }
    outcomes = verify(store, taught, answer="", min_agreement=0.4)
    assert outcomes["tied"].reason == "has no answer, and its demonstrations agree on several"
    assert outcomes["tied"].findings["verdicts"] == {"unverifiable": 4}
    assert outcomes["minority"].reason == "numbers in the reasoning are in no evidence"
    assert outcomes["minority"].findings["verdicts"] == {"correct": 3, "wrong": 2}
    assert "42" in outcomes["majority"].findings["text"] and outcomes["majority"].findings["num_sound"] == 3


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("42 42 13 13", "????"),
        ("42 42 13", "++-"),
        ("42 42.0 42 13 13", "+++--"),
        ("1 2 3", "???"),
        # Each is within rounding of its neighbour only: the one in the middle has most behind it.
        ("1/3 0.33 0.334", "?+?"),
    ],
)
def test_the_most_frequent_answer_is_right_and_contradicted_by_none_that_is(answers: str, verdicts: str) -> None:
    given = answers.split()
    signs = {"correct": "+", "wrong": "-", "unverifiable": "?"}
    assert "".join(signs[v] for v in verdicts_by_majority(given, count_same(given), 0.5)) == verdicts


@pytest.mark.parametrize(
    ("answers", "failures", "right", "agreement"),
    [
        ("42", {"truncated": 7}, 1 / 8, 1 / 8),
        ("42 42 41", {"refused": 1, "malformed, also after repair": 2, "filtered by the server": 2}, 2 / 8, 2 / 8),
        ("42 41 41", {"ended for another reason": 1}, 1 / 4, 2 / 4),
        # Where no answer arrived there is no sample.
        ("42 42", {"may have been paid for, and no reply has arrived": 1, "request failed: server error": 1}, 1.0, 1.0),
    ],
)
def test_samples_that_came_to_nothing_agree_with_none(
    store: Store, answers: str, failures: dict[str, int], right: float, agreement: float
) -> None:
    samples = [{"text": text(each), "draw": n, "is_repaired": False} for n, each in enumerate(answers.split())]
    fill(store, [Row("made/a", Prompt("a", "What is the area?", answer="42"))])
    run_step(store, Scripted("teach", lambda row: kept(row, samples=samples, failures=failures)))
    run_verify(store, VerifyRecipe(), Part())
    [row] = store.rows()
    shown = demonstration(row)
    assert shown and shown.agreement == right and row.findings[STEP]["agreement"] == agreement


@pytest.mark.parametrize(("num_failed", "num_tied", "verdict"), [(0, 0, "+"), (2, 0, "+"), (3, 0, "?"), (0, 2, "?")])
def test_a_majority_is_one_of_all_samples(store: Store, num_failed: int, num_tied: int, verdict: str) -> None:
    """Two of the same answer are half of four samples, and not of five."""
    texts = [text("42")] * 2 + [text("13")] * num_tied
    samples = [{"text": each, "draw": n, "is_repaired": False} for n, each in enumerate(texts)]
    fill(store, [Row("made/a", Prompt("a", "What is the area?"))])
    run_step(store, Scripted("teach", lambda row: kept(row, samples=samples, failures={"truncated": num_failed})))
    run_verify(store, VerifyRecipe(), Part())
    [outcome] = store.outcomes(STEP)
    reason = {
        0: "has no answer, and its demonstrations do not agree",
        2: "has no answer, and its demonstrations agree on",
    }
    assert (outcome.reason or "").startswith("" if verdict == "+" else reason[num_tied])
    assert (outcome.status == "kept") is (verdict == "+")


def test_rows_bring_their_own_demonstration_or_pass(store: Store) -> None:
    prompt = Prompt("a", "What is the area?", answer="42")
    fill(store, [Row("made/a", prompt, completion=text("42")), Row("made/b", prompt)])
    run_verify(store, VerifyRecipe(), Part())
    assert count_step(store, STEP).num_kept == 1
    assert dict(count_step(store, STEP).passed) == {"has no demonstration": 1}


UNREADABLE = r"\begin{tikzpicture}\draw (0,0) -- (1,1);\end{tikzpicture} + \frac{"
"""An answer with which the rules can do nothing."""


def judge_of(base_url: str, **changes: Any) -> dict[str, Any]:
    judge = {"base_url": base_url, "model": "wise", "max_attempts": 2, "backoff_s": 0.01, "timeout_s": 5.0}
    return {"judge": judge | changes}


def test_the_judge_is_asked_only_where_rules_cannot_decide(store: Store) -> None:
    replies = {"yes": "correct", "no": "incorrect", "dunno": "unclear", "babble": "I think so"}

    def answer(received: Any) -> Any:
        content = received.body["messages"][0]["content"]
        assert received.body["temperature"] == 0.0
        name = next((name for name in replies if f"word {name}" in content), None)
        return refusal(400, "no") if name is None else completion(replies[name])

    fill(store, [Row("made/sure", Prompt("sure", "?", answer="42"), completion=text("42"))])
    for name in (*replies, "refused"):
        prompt = Prompt(name, f"word {name}?", answer=UNREADABLE)
        fill(store, [Row(f"made/{name}", prompt, completion=text("x^2 + 1"))], source=name)
    with serving(answer) as stub:
        run_verify(store, build_config(VerifyRecipe, judge_of(stub.base_url), (), source="test"), Part())
        num_asked = len(stub.received)
    outcomes = {o.row_id.removeprefix("made/"): o for o in store.outcomes(STEP)}
    assert num_asked == 5
    assert outcomes["yes"].findings["decided_by"] == "judge"
    assert outcomes["sure"].findings["decided_by"].startswith("rules")
    assert outcomes["no"].reason == "no demonstration's answer is right"
    assert outcomes["refused"].reason == "judge failed: refused request"
    assert outcomes["refused"].findings["judge_failures"] == {"refused request": 1}
    for name in ("dunno", "babble"):
        assert outcomes[name].reason == "no demonstration's answer can be verified as right"
        assert "judge_failures" not in outcomes[name].findings


def test_the_judge_is_told_every_right_answer(store: Store) -> None:
    prompt = Prompt("a", "What?", answer=UNREADABLE, equivalents=("seven plus \\frac{", "an answer in words"))
    fill(store, [Row("made/a", prompt, completion=text("x^2 + 1"))])
    with serving(lambda received: completion("correct")) as stub:
        run_verify(store, build_config(VerifyRecipe, judge_of(stub.base_url), (), source="test"), Part())
        [content] = stub.questions
    reference = content.split("BEGIN REFERENCE")[1].split("END REFERENCE")[0]
    assert all(answer in reference for answer in (prompt.answer, *prompt.equivalents))


def test_a_reply_of_the_judge_that_is_lost_is_told_of_every_row_and_drops_those_that_hang_on_it(store: Store) -> None:
    def answer(received: Received) -> Reply:
        content = received.body["messages"][0]["content"]
        if "p^2" in content:
            return Reply(completion("correct").body, cut=True)
        return refusal(400, "no") if "q^2" in content else completion("correct" if "r^2" in content else "incorrect")

    taught = {
        "hangs": [text("p^2"), text("s^2")],
        "thin": [text("p^2", caption="A figure."), text("s^2")],
        "kept": [text("p^2"), text("r^2"), text("q^2")],
        "shaky": [text("p^2"), text("q^2"), text("r^2", caption="A figure.")],
    }
    with serving(answer) as stub:
        outcomes = verify(store, taught, answer=UNREADABLE, **judge_of(stub.base_url))
    assert {name: outcome.reason for name, outcome in outcomes.items()} == {
        "hangs": "judge failed: in doubt",
        "thin": "no demonstration's answer can be verified as right",
        "kept": None,
        "shaky": "judge failed: in doubt",
    }
    assert {outcome.findings["in_doubt"] for outcome in outcomes.values()} == {1}
    assert outcomes["kept"].findings["judge_failures"] == {"in doubt": 1, "refused request": 1}
    assert outcomes["kept"].findings["decided_by"] == "judge" and outcomes["kept"].findings["draw"] == 1
    assert count_step(store, STEP).dropped["judge failed: in doubt"] == 2


def test_where_the_judge_refuses_everybody_what_was_sent_is_waited_for_and_booked(store: Store) -> None:
    def answer(received: Received) -> Reply:
        if "p^2" in received.body["messages"][0]["content"]:
            return refusal(401, "who are you")
        return Reply(completion("correct").body, delay_s=0.5)

    with serving(answer) as stub, pytest.raises(RolloutError, match="key was"):
        verify(store, {"a": [text("r^2"), text("p^2"), text("s^2")]}, answer=UNREADABLE, **judge_of(stub.base_url))
    assert dict(count_spending(store, STEP).attempts) == {"answered": 2, "refused request": 1}
