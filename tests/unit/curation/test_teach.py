"""What becomes of a teacher's replies, asked over real HTTP."""

import base64
from pathlib import Path
from typing import Any

import pytest

from curated_rows import Scripted, fill, made
from prism.config import TeachRecipe, build_config
from prism.curation import Outcome, Part, Row, Store, count_step, run_step
from prism.curation.rows import kept
from prism.curation.teach import Teach, judge_reply, run_teach
from prism.errors import BudgetError, ConfigError, RolloutError
from prism.records import ImageSource, Prompt
from prism.rollout.openai_messages import ChatReply
from servers.openai_stub import Received, Reply, Stub, completion, refusal, serving

GOOD = "<caption>A.</caption><think>1. B.</think><answer>C</answer>"
OPEN = "<caption>A.</caption><think>1. B.<answer>C</answer>"


def recipe(stub: Stub | None, **changes: Any) -> TeachRecipe:
    url = stub.base_url if stub else "http://127.0.0.1:9/v1"
    teacher = {"base_url": url, "model": "wise", "max_attempts": 3, "backoff_s": 0.01, "timeout_s": 2.0}
    table: dict[str, Any] = {"teacher": teacher, "num_samples": 1, "max_response_tokens": 50}
    return build_config(TeachRecipe, table | changes, (), source="test")


def teach(store: Store, stub: Stub, **changes: Any) -> dict[str, Outcome]:
    run_teach(store, recipe(stub, **changes), Part())
    return {outcome.row_id: outcome for outcome in store.outcomes("teach")}


@pytest.mark.parametrize(
    ("text", "ending", "failure"),
    [
        (GOOD, "stop", None),
        (f"\n{GOOD}\n", "stop", None),
        (GOOD, "length", "truncated"),
        (GOOD, "content_filter", "filtered by the server"),
        (GOOD, "tool_calls", "ended for another reason"),
        (OPEN, "stop", "malformed"),
        (GOOD.replace("A.", "Two dots in <image>."), "stop", "malformed"),
        (GOOD.replace("A.", "A.\x00"), "stop", "malformed"),
        (GOOD.replace("A.", "<img src=x onerror=f()>"), "stop", "malformed"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("I cannot assist with identifying people.", "stop", "refused"),
        ("As an AI, I must decline.", "stop", "refused"),
        ("", "stop", "refused"),
        ("The answer is 5, sorry for the brevity.", "stop", "malformed"),
        ("I can't see a fifth side. " + "So the area follows from four. " * 60, "stop", "malformed"),
        (GOOD.replace("1. B.", "1. I can't find a right angle, so I'm unable to use Pythagoras."), "stop", None),
    ],
)
def test_a_reply_is_a_sample_or_a_failure_of_a_kind(text: str, ending: str, failure: str | None) -> None:
    sample = judge_reply(ChatReply(text, None, ending), 3)
    assert (sample.draw, sample.failure, sample.text) == (3, failure, text.strip() if failure is None else None)


def test_the_teacher_gets_template_image_and_question(store: Store, noise: ImageSource) -> None:
    prompt = Prompt("a", "In <image> or not?", (noise,), answer="secret 42")
    fill(store, [Row("made/a", prompt)])
    with serving(lambda received: completion(GOOD)) as stub:
        outcomes = teach(store, stub, num_samples=3)
    bodies = [received.body for received in stub.received]
    [message] = bodies[0]["messages"]
    before, image, after = message["content"]
    assert image["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(noise.data or b"").decode()
    assert before["text"].startswith("Solve the problem below.") and before["text"].endswith("Problem:\nIn ")
    assert after == {"type": "text", "text": " or not?"} and "secret" not in str(bodies)
    assert len({body["seed"] for body in bodies}) == 3 and bodies[0]["max_tokens"] == 50
    assert outcomes["made/a"].findings == {
        "model": "wise",
        "samples": [{"text": GOOD, "draw": draw, "is_repaired": False} for draw in range(3)],
        "failures": {},
    }


def test_a_malformed_sample_is_repaired_by_one_further_request(store: Store) -> None:
    def answer(received: Received) -> Reply:
        is_first = len(received.body["messages"]) == 1
        number = received.body["messages"][0]["content"].split("What is ")[1].split()[0]
        return completion(OPEN if is_first or number == "1" else GOOD.replace("C", number))

    fill(store, made(3))
    with serving(answer) as stub:
        outcomes = teach(store, stub)
    assert len(stub.received) == 6
    second = next(r.body for r in stub.received if len(r.body["messages"]) == 3)
    assert second["messages"][1] == {"role": "assistant", "content": OPEN} and second["temperature"] == 0.0
    assert "(unbalanced_tag)" in second["messages"][2]["content"]
    [sample] = outcomes["made/2"].findings["samples"]
    assert sample == {"text": GOOD.replace("C", "2"), "draw": 0, "is_repaired": True}
    dropped = outcomes["made/1"]
    assert (dropped.reason, dropped.detail) == ("no sample is usable: malformed, also after repair", "unbalanced_tag")


def test_a_teacher_is_told_that_marks_of_images_stand_in_questions(store: Store) -> None:
    fill(store, made(1))
    replies = [GOOD.replace("A.", "<image> A."), GOOD]
    with serving(lambda received: completion(replies[len(received.body["messages"]) // 2])) as stub:
        outcomes = teach(store, stub)
    repair = stub.received[1].body["messages"][2]["content"]
    assert "(the response has an image mark outside the question (<image>))" in repair
    [sample] = outcomes["made/0"].findings["samples"]
    assert (sample["text"], sample["is_repaired"]) == (GOOD, True)


def test_each_failure_drops_its_row_only_and_is_counted(store: Store, noise: ImageSource) -> None:
    replies = {
        "0": completion(GOOD),
        "1": refusal(400, "no such image"),
        "2": refusal(500, "crash"),
        "3": completion("I'm sorry, I can't."),
        "4": completion(GOOD, "length"),
        "5": Reply(b"{}"),
    }

    def answer(received: Received) -> Reply:
        text = received.body["messages"][0]["content"]
        return replies[text.split("What is ")[1].split()[0]]

    broken = Row("made/broken", Prompt("broken", "<image>?", (ImageSource(data=b"%PDF-1.7"),), answer="1"))
    fill(store, [*made(6), broken])
    with serving(answer) as stub:
        # One at a time, so that others are answered while one keeps failing.
        teach(store, stub, num_samples=2)
    assert dict(count_step(store, "teach").dropped) == {
        "cannot be put to the teacher": 1,
        "no sample is usable: request failed: refused request": 1,
        "no sample is usable: request failed: server error": 1,
        "no sample is usable: refused": 1,
        "no sample is usable: truncated": 1,
        "no sample is usable: request failed: bad reply": 1,
    }
    assert count_step(store, "teach").num_kept == 1


def test_rows_whose_reply_was_lost_are_asked_again_if_that_is_allowed(store: Store) -> None:
    def answer(received: Received) -> Reply:
        is_lost = number_of(received) in "13" and received.body["seed"] not in seen
        seen.add(received.body["seed"])
        return Reply(completion(GOOD).body, cut=is_lost)

    def number_of(received: Received) -> str:
        return received.body["messages"][0]["content"].split("What is ")[1].split()[0]

    seen: set[int] = set()
    fill(store, made(5))
    with serving(answer) as stub:
        for _ in range(2):
            outcomes = teach(store, stub)
            run_step(store, Scripted("behind"))
            lost = "no sample is usable: may have been paid for, and no reply has arrived"
            assert {key: each.reason for key, each in outcomes.items() if each.status != "kept"} == {
                "made/1": lost,
                "made/3": lost,
            }
            assert len(stub.received) == 5
        assert teach(store, stub, ask_in_doubt=True)["made/1"].status == "kept"
        assert sorted(map(number_of, stub.received[5:])) == ["1", "3"]
        outcomes = teach(store, stub)
        assert all(outcome.status == "kept" for outcome in outcomes.values()) and len(stub.received) == 7
    assert count_step(store, "behind").num_pending == 2


def test_an_answer_in_doubt_of_a_kept_row_is_looked_at_again_with_what_followed(store: Store) -> None:
    fill(store, made(1))
    with serving(lambda received: Reply(completion(GOOD).body, cut=len(stub.received) == 1)) as stub:
        assert len(teach(store, stub, num_samples=2)["made/0"].findings["samples"]) == 1
        run_step(store, Scripted("behind"))
        assert len(teach(store, stub, num_samples=2, ask_in_doubt=True)["made/0"].findings["samples"]) == 2
    assert len(stub.received) == 3 and count_step(store, "behind").num_pending == 1


def test_rows_that_need_no_teaching_pass_and_cost_nothing(store: Store) -> None:
    rows = made(4)
    fill(store, [*rows[:3], Row(rows[3].id, rows[3].prompt, completion=GOOD)])
    run_step(store, Scripted("difficulty", lambda row: kept(row, set="hard" if row.prompt.id == "0" else "rl")))
    with serving(lambda received: completion(GOOD)) as stub:
        teach(store, stub)
        assert len(stub.received) == 1
        assert dict(count_step(store, "teach").passed) == {"has a demonstration": 1, "is not in the hard set": 2}
        assert len(list(store.rows())) == 4
        teach(store, stub, rows="all")
        assert len(stub.received) == 4  # the first is known from before


def test_what_concerns_everybody_ends_the_run_and_drops_nothing(store: Store) -> None:
    fill(store, made(5))
    with serving(lambda received: refusal(401, "who are you")) as stub, pytest.raises(RolloutError, match="key was"):
        teach(store, stub)
    with pytest.raises(RolloutError, match="still failing after 3 attempts: no connection"):
        run_teach(store, recipe(None), Part())
    with serving(lambda received: completion(GOOD)) as stub, pytest.raises(BudgetError, match="budget is spent"):
        teach(store, stub, budget={"max_tokens": 500})
    funnel = count_step(store, "teach")
    assert funnel.num_pending == funnel.num_in == 5


def test_settings_are_what_decides_the_outcome(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(**changes: Any) -> Any:
        return Teach(recipe(None, **changes), lambda: None).settings  # pyright: ignore[reportArgumentType]

    own = tmp_path / "own.txt"
    own.write_text("Q: {question}")
    assert settings() == settings(budget={"max_tokens": 5}, ask_in_doubt=True)
    for changes in ({"seed": 1}, {"template": str(own)}, {"temperature": 0.5}, {"rows": "all"}, {"num_samples": 2}):
        assert settings(**changes) != settings()
    own.write_text("no place for it")
    with pytest.raises(ConfigError, match="exactly once"):
        settings(template=str(own))
    with pytest.raises(ConfigError, match=r"budget.max_cost = 3.0: needs price"):
        recipe(None, budget={"max_cost": 3.0})
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="set the environment variable NO_SUCH_KEY"):
        settings(teacher={"base_url": "https://api.example.com/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"})
