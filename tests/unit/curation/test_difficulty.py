"""Problems rated by models behind real servers, and by an engine of this process."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from curated_rows import fill, made
from prism.config import DifficultyRecipe, build_config
from prism.curation import Outcome, Part, Row, Store, concurrency, count_step
from prism.curation.difficulty import check_sample, run_difficulty
from prism.curation.rows import kept
from prism.curation.sampling import LocalSampler, Sampled
from prism.curation.spending import count_spending
from prism.errors import ConfigError, DataError
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.sampling import Sampling
from servers.openai_stub import Answer, Received, Reply, Stub, completion, refusal, serving


def number(received: Received) -> int:
    """The n of the question "What is n + n?"."""
    return int(received.question.split("What is ")[1].split()[0])


def solving(*rates: float) -> Answer:
    """A model that solves problem n at the n-th rate, by its requests' seeds."""

    def answer(received: Received) -> Reply:
        n = number(received)
        luck = int(hashlib.sha256(str(received.body["seed"]).encode()).hexdigest()[:8], 16) / 2**32
        return completion(f"So be it. <answer>{2 * n if luck < rates[n] else 999}</answer>")

    return answer


def rate(store: Store, stubs: Sequence[Stub], **changes: Any) -> dict[str, Outcome]:
    models = [
        {"base_url": stub.base_url, "model": f"model-{n}", "backoff_s": 0.01, "max_attempts": 2}
        for n, stub in enumerate(stubs)
    ]
    recipe = build_config(DifficultyRecipe, {"models": models, "num_samples": 10} | changes, (), source="test")
    run_difficulty(store, recipe, Part())
    return {outcome.row_id: outcome for outcome in store.outcomes("difficulty")}


def test_problems_fall_into_sets_and_sampling_ends_when_they_are_certain(store: Store) -> None:
    fill(store, [*made(5), Row("made/open", Prompt("open", "What is 0 like?"))])
    with serving(solving(0.0, 1.0, 0.5, 0.0, 0.0)) as first, serving(solving(0.0, 0.0, 0.0, 0.4, 0.0)) as second:
        outcomes = rate(store, [first, second])
        asked = [Counter(number(received) for received in stub.received) for stub in (first, second)]
    sets = {row_id: outcome.findings.get("set") for row_id, outcome in outcomes.items()}
    assert sets == {
        "made/0": "hard",
        "made/1": "easy",
        "made/2": "rl",
        "made/3": "between",
        "made/4": "hard",
        "made/open": None,
    }
    assert outcomes["made/open"].reason == "has no answer to check"
    assert asked[0][0] == asked[0][3] == asked[0][4] == 10 and asked[0][1] == 10  # 9 of 10 are needed, by fours
    assert 4 <= asked[0][2] <= 8
    assert asked[1].keys() == {0, 3, 4} and asked[1][0] == 10 and asked[1][3] < 10
    found = outcomes["made/0"].findings
    assert (found["num_correct"], found["num_samples"], found["pass_rate"], found["low"]) == (0, 10, 0.0, 0.0)
    assert found["models"]["model-1"]["num_samples"] == 10
    spending = count_spending(store, "difficulty")
    assert spending.num_requests == sum(asked[0].values()) + sum(asked[1].values())


def test_samples_that_nobody_can_verify_leave_the_set_open(store: Store) -> None:
    unreadable = Row("made/odd", Prompt("odd", "What is 7 + 7?", answer=r"\frac{x"))
    fill(store, [*made(2), unreadable])

    def answer(received: Received) -> Reply:
        if number(received) == 1:
            return refusal(400, "this one is not allowed")
        return completion(r"<answer>\sqrt{y}</answer>")

    with serving(answer) as stub:
        outcomes = rate(store, [stub], num_samples=4)
    assert outcomes["made/0"].findings["set"] == "hard"
    assert {outcomes[row].reason for row in ("made/1", "made/odd")} == {"too many samples cannot be verified"}
    assert outcomes["made/1"].findings["models"]["model-0"]["num_unverifiable"] == 4


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<caption>c</caption><think>t</think><answer>14</answer>", "correct"),
        ("I think <answer>14</answer>", "correct"),
        (r"Thus \boxed{14}.", "correct"),
        ("so it is\n15", "wrong"),
        ("", "wrong"),
        (None, "unverifiable"),
    ],
)
def test_a_sample_counts_by_its_answer(text: str | None, verdict: str) -> None:
    assert check_sample(Sampled(text), Prompt("p", "What is 7 + 7?", answer="14")) == verdict


class Engine:
    """Answers with prompt and seed; refuses one prompt, as an engine does that is too long for the model."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        self.batches.append([prompt.id for prompt in prompts])
        if any(prompt.id == "made/3" for prompt in prompts):
            raise DataError("prompt 'made/3' is too long")
        if any(prompt.id == "made/99" for prompt in prompts):
            raise ZeroDivisionError
        return [
            RolloutGroup(p, tuple(Rollout(n, (), f"{p.id} {seed} {n}", True) for n in range(num_samples)))
            for p in prompts
        ]


def sample_all(engine: Engine, rows: list[Row]) -> dict[str, Outcome]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[concurrency.Work]:
        sampler = LocalSampler(engine, Sampling(1.0, 10), seed=1)

        async def work(row: Row) -> Outcome:
            try:
                prompt = Prompt(row.id, "q")
                texts = [s.text for draws in ((0, 1), (2, 3)) for s in await sampler.sample(prompt, draws)]
            except DataError as error:
                return Outcome(row.id, "dropped", str(error))
            return kept(row, texts=texts)

        yield work

    return {outcome.row_id: outcome for outcome in concurrency.concurrently(iter(rows), opened, 16)}


def test_an_engine_samples_in_batches_and_a_bad_prompt_is_alone_to_suffer() -> None:
    engine = Engine()
    outcomes = sample_all(engine, made(6))
    assert [row_id for row_id, outcome in outcomes.items() if outcome.status == "dropped"] == ["made/3"]
    texts = outcomes["made/0"].findings["texts"]
    assert len(set(texts)) == 4 and all(text.startswith("made/0 ") for text in texts)
    assert len(engine.batches[0]) == 6  # together first, then one by one
    fine = sample_all(engine := Engine(), [row for row in made(6) if row.id != "made/3"])
    assert len(engine.batches) == 2 and fine["made/0"].findings["texts"] == texts  # whoever is beside it


def test_a_defect_of_an_engine_ends_the_run() -> None:
    with pytest.raises(ZeroDivisionError):
        sample_all(Engine(), [*made(2), Row("made/99", Prompt("99", "q"))])


def test_contradictions(store: Store) -> None:
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    for table, message in (
        ({"models": []}, "models"),
        ({"models": [model, model]}, "must name each model once"),
        ({"models": [model], "rl_low": 0.0}, r"rl_low = 0.0: must be above 0"),
        ({"models": [model], "rl_low": 0.9}, "not above rl_high"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_config(DifficultyRecipe, table, (), source="test")
    with pytest.raises(DataError, match="has not run"):
        count_step(store, "difficulty")
