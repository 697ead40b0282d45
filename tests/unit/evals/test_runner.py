"""What one answer is judged to be, and in which order prompts are asked."""

from collections.abc import Sequence

import pytest

from prism.evals.runner import evaluate, judge
from prism.evals.summary import summarize
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout import Sampling

GOOD = "<caption>a, b</caption><think>1. x\n2. y</think><answer>5</answer>"
PROMPT = Prompt("p", "How many?", answer="5", kind="count", metadata={"benchmark": "counting", "group": "g"})


def rollout(text: str, *, is_finished: bool = True, sample: int = 0) -> Rollout:
    return Rollout(sample, (7, 8, 9), text, is_finished)


def half(prompt: Prompt, caption: str) -> float:
    return 0.5


def test_a_valid_answer() -> None:
    assert judge(PROMPT, rollout(GOOD), half) == {
        "benchmark": "counting",
        "group": "g",
        "item_id": "p",
        "sample": 0,
        "verdict": "correct",
        "is_valid": True,
        "num_tokens": 3,
        "response": GOOD,
        "caption_fraction": 0.5,
        "is_caption_exact": False,
        "num_steps": 2,
        "num_items": 2,
    }


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (GOOD.replace("5", "6"), "wrong"),
        ("The answer is:\n5", "correct"),
        (r"so \boxed{5} it is", "correct"),
        ("<caption>a</caption><answer>5</answer>", "correct"),
        ("6", "wrong"),
        ("", "wrong"),
    ],
)
def test_an_answer_without_the_format_is_judged_by_its_text(text: str, verdict: str) -> None:
    assert judge(PROMPT, rollout(text), half)["verdict"] == verdict


def test_without_the_format_nothing_is_said_of_the_content() -> None:
    row = judge(PROMPT, rollout("5"), half)
    assert (row["is_valid"], row["caption_fraction"], row["is_caption_exact"]) == (False, None, None)
    assert (row["num_steps"], row["num_items"]) == (None, None)


def test_a_response_without_its_end_is_not_valid() -> None:
    assert judge(PROMPT, rollout(GOOD, is_finished=False), half)["is_valid"] is False


def test_where_nobody_knows_the_picture_the_fraction_is_missing() -> None:
    row = judge(PROMPT, rollout(GOOD), lambda prompt, caption: None)
    assert row["caption_fraction"] is None and row["is_caption_exact"] is None
    assert judge(PROMPT, rollout(GOOD), lambda prompt, caption: 1.0)["is_caption_exact"] is True


def test_letters_are_judged_against_choices() -> None:
    prompt = Prompt("p", "Which? (A) 4 (B) 5", answer="B", choices=("4", "5"))
    for answer, verdict in (("B", "correct"), ("(B)", "correct"), ("5", "correct"), ("A", "wrong"), ("4", "wrong")):
        text = GOOD.replace("<answer>5", f"<answer>{answer}")
        assert judge(prompt, rollout(text), half)["verdict"] == verdict


class Recorder:
    """Answers every prompt well and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], int, Sampling, int]] = []

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        self.calls.append(([prompt.id for prompt in prompts], num_samples, sampling, seed))
        return [
            RolloutGroup(prompt, tuple(rollout(GOOD, sample=sample) for sample in range(num_samples)))
            for prompt in prompts
        ]


def make_prompts(count: int) -> list[Prompt]:
    return [
        Prompt(str(index), "q", answer="5", metadata={"benchmark": "b", "group": "in-distribution"})
        for index in range(count)
    ]


def test_each_prompt_is_answered_greedily_once_and_then_sampled() -> None:
    engine = Recorder()
    rows = list(
        evaluate(
            engine,
            make_prompts(5),
            num_samples=3,
            temperature=0.7,
            max_tokens=9,
            seed=4,
            described_fraction=half,
            batch_size=2,
        )
    )
    greedy, sampled = Sampling(0.0, 9), Sampling(0.7, 9)
    batches = [["0", "1"], ["2", "3"], ["4"]]
    assert engine.calls == [(ids, 1, greedy, 4) for ids in batches] + [(ids, 3, sampled, 4) for ids in batches]
    assert [(row["mode"], row["item_id"], row["sample"]) for row in rows] == [
        *(("greedy", str(index), 0) for index in range(5)),
        *(("sampled", str(index), sample) for index in range(5) for sample in range(3)),
    ]


def test_rows_are_what_the_summary_reads() -> None:
    arguments = {"temperature": 1.0, "max_tokens": 9, "seed": 0, "described_fraction": half}
    rows = list(evaluate(Recorder(), make_prompts(4), num_samples=0, **arguments))
    summary = summarize(rows, checkpoint="sft", checkpoint_sha256="0" * 64)
    assert summary["num_items"] == 4
    assert summary["benchmarks"]["b"]["greedy"]["accuracy"]["mean"] == 1
    assert summary["benchmarks"]["b"]["sampled"]["accuracy"]["count"] == 0
