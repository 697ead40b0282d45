"""Which demonstrations hold, and which one is taken."""

from collections.abc import Mapping
from typing import Any

import pytest

from curated_rows import Scripted, fill
from prism.config import VerifyRecipe, build_config
from prism.curation import Part, Store, count_step, run_step
from prism.curation.rows import Outcome, Row, kept
from prism.curation.verify import STEP, run_verify
from prism.records import Prompt
from servers.openai_stub import completion, refusal, serving

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


def test_rows_bring_their_own_demonstration_or_pass(store: Store) -> None:
    prompt = Prompt("a", "What is the area?", answer="42")
    fill(store, [Row("made/a", prompt, completion=text("42")), Row("made/b", prompt)])
    run_verify(store, VerifyRecipe(), Part())
    assert count_step(store, STEP).num_kept == 1
    assert dict(count_step(store, STEP).passed) == {"has no demonstration": 1}


def test_the_judge_is_asked_only_where_rules_cannot_decide(store: Store) -> None:
    unreadable = r"\begin{tikzpicture}\draw (0,0) -- (1,1);\end{tikzpicture} + \frac{"
    replies = {"yes": "correct", "no": "incorrect", "dunno": "unclear", "babble": "I think so"}

    def answer(received: Any) -> Any:
        content = received.body["messages"][0]["content"]
        assert received.body["temperature"] == 0.0
        name = next((name for name in replies if f"word {name}" in content), None)
        return refusal(400, "no") if name is None else completion(replies[name])

    fill(store, [Row("made/sure", Prompt("sure", "?", answer="42"), completion=text("42"))])
    for name in (*replies, "refused"):
        prompt = Prompt(name, f"word {name}?", answer=unreadable)
        fill(store, [Row(f"made/{name}", prompt, completion=text("x^2 + 1"))], source=name)
    with serving(answer) as stub:
        judge = {"base_url": stub.base_url, "model": "wise", "max_attempts": 2, "backoff_s": 0.01, "timeout_s": 5.0}
        run_verify(store, build_config(VerifyRecipe, {"judge": judge}, (), source="test"), Part())
        num_asked = len(stub.received)
    outcomes = {o.row_id.removeprefix("made/"): o for o in store.outcomes(STEP)}
    assert num_asked == 5
    assert outcomes["yes"].findings["decided_by"] == "judge"
    assert outcomes["sure"].findings["decided_by"].startswith("rules")
    assert outcomes["no"].reason == "no demonstration's answer is right"
    for name in ("dunno", "babble", "refused"):
        assert outcomes[name].reason == "no demonstration's answer can be verified as right"
