"""Which answer a response gives, by hand-read responses; the verifier's part is a two-line stand-in."""

import time

import pytest

from prism.evals.benchmarks.benchmark import Score
from prism.evals.benchmarks.extraction import (
    first_answer_tag,
    score_stated,
    stated_answers,
    verified,
    without_reasoning,
)


@pytest.mark.parametrize(
    ("response", "left"),
    [
        ("<think>a</think>\n<answer>B</answer>", "<answer>B</answer>"),
        ("x<think>a</think>y<analysis>b</analysis>z<think>c</think>", "xyz"),
        ("<think>a\nb", "<think>a\nb"),
        ("a</think>b", "a</think>b"),
        ("<think>a<think>b</think>c</think>d", "c</think>d"),
        ("<caption>c</caption> B", "<caption>c</caption> B"),
    ],
)
def test_complete_blocks_of_reasoning_go(response: str, left: str) -> None:
    assert without_reasoning(response) == left


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("<answer>\nB\n</answer>", "B"),
        ("<answer>A</answer><answer>B</answer>", "A"),
        ("</answer><answer>A</answer>", "A"),
        ("<answer></answer>", ""),
        ("<answer>B", None),
        ("B</answer>", None),
        ("<Answer>B</Answer>", None),
        ("B", None),
    ],
)
def test_the_first_pair_of_answer_tags(text: str, content: str | None) -> None:
    assert first_answer_tag(text) == content


@pytest.mark.parametrize(
    ("response", "answers"),
    [
        ("<caption>c</caption><think>t</think><answer>\n B \n</answer>", ["B"]),
        ("<think>t</think><answer>B", ["B"]),
        ("<think>it was cut off <answer>B</answer>", ["B"]),
        ("It began in the prompt.</think>\nB", ["B"]),
        ("<think><answer>A</answer>, no.</think><answer>B</answer>", ["B"]),
        ("< Answer >B</ANSWER>", ["B"]),
        ("<answer>A</answer> Wait. <answer>B</answer>", ["A", "B"]),
        ("<answer>A <answer>B</answer>", ["A", "B"]),
        ("<answer>B</answer><answer> B</answer><answer></answer>", ["B"]),
        ("<answer>The area is \\(\\boxed{12}\\).</answer>", ["12"]),
        ("<answer>It is not \\boxed{12}</answer>", ["It is not \\boxed{12}"]),
        ("<answer>\\boxed{12} m</answer>", ["\\boxed{12} m"]),
        ("We get \\boxed{3}. Then \\boxed{\\frac{1}{2}}, which is all.", ["\\frac{1}{2}"]),
        ("either \\boxed{A} or \\boxed{B}", ["A", "B"]),
        ("\\boxed{\\boxed{3}", ["3"]),
        ("Option A looks good.\nBut the correct answer is D.\nI hope this helps.", ["But the correct answer is D."]),
        ("**Final answer:**\n42", ["**Final answer:** 42"]),
        ("The sum is 3.5. So 7 apples remain.", ["So 7 apples remain."]),
        ("B. 45°", ["B. 45°"]),
        ("C</answer>", ["C"]),
    ],
)
def test_what_a_response_states(response: str, answers: list[str]) -> None:
    assert list(stated_answers(response)) == answers


@pytest.mark.parametrize(
    "response",
    [
        "",
        "<think>It could be B.</think>",
        "<think>It could be B",
        "<caption>The answer is B.</caption>",
        "<answer> </answer>",
        "\\boxed{}",
    ],
)
def test_responses_without_an_answer(response: str) -> None:
    assert stated_answers(response) == ()
    assert score_stated(response, lambda answer: Score(True, "never")) == Score(False, "no_answer")


def is_five(answer: str) -> Score:
    return Score({"5": True, "five": True, "?": None}.get(answer, False), "five", answer, needs_judge=answer == "?")


@pytest.mark.parametrize(
    ("answers", "is_correct", "rule"),
    [
        (["5"], True, "five"),
        (["5", "five"], True, "five"),
        (["6", "7"], False, "five"),
        (["6", "5"], None, "contradicting_answers"),
        (["5", "6"], None, "contradicting_answers"),
        (["5", "?"], None, "contradicting_answers"),
        ([str(number) for number in range(6, 40)], None, "contradicting_answers"),
    ],
)
def test_several_answers_count_only_if_they_agree(answers: list[str], is_correct: bool | None, rule: str) -> None:
    score = score_stated("".join(f"<answer>{answer}</answer>" for answer in answers), is_five)
    assert (score.is_correct, score.rule, score.needs_judge) == (is_correct, rule, False)


def test_a_judge_is_asked_where_the_verifier_cannot_decide() -> None:
    assert score_stated("<answer>?</answer>", is_five).needs_judge
    assert verified("B", "14 cm", choices=["7 cm", "14 cm"]).is_correct is True
    assert verified("13", "12").is_correct is False
    undecided = verified("3", "")
    assert (undecided.is_correct, undecided.needs_judge) == (None, True)


@pytest.mark.parametrize(
    "response",
    [
        "<answer>" * 20_000,
        "<think>" * 20_000,
        "<" + " " * 200_000,
        "a. " * 50_000,
        "\\boxed{" * 30_000,
        "answer " * 30_000,
    ],
    ids=["answers", "thoughts", "spaces", "sentences", "boxes", "commitments"],
)
def test_hostile_responses_are_read_in_linear_time(response: str) -> None:
    start = time.perf_counter()
    stated_answers(response)
    first_answer_tag(response)
    without_reasoning(response)
    assert time.perf_counter() - start < 5  # quadratic time would take minutes
