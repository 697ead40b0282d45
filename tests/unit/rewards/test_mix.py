import time

import pytest

from prism.records import Prompt
from prism.rewards import answer_of_free_text, mix_reward, parse_response, verdict_of

PROMPT = Prompt(id="p", question="How many?", answer="4", equivalents=("four apples",))


def respond(answer: str) -> str:
    return f"<caption>c</caption><think>t</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "total", "verdict"),
    [
        (respond("4"), 1.0, "correct"),
        (respond("four"), 1.0, "correct"),
        (respond("5"), 0.2, "wrong"),
        ("<answer>4</answer>", 0.0, "wrong"),
        (respond("4") + "<answer>4</answer>", 0.0, "wrong"),
    ],
)
def test_paper_weights(text: str, total: float, verdict: str):
    reward = mix_reward(parse_response(text), PROMPT)
    assert reward.total == pytest.approx(total)
    assert reward.verdict == verdict
    assert not reward.is_unverifiable


def test_weights_are_arguments():
    reward = mix_reward(parse_response(respond("4")), PROMPT, accuracy_weight=3.0, format_weight=0.5)
    assert (reward.total, reward.accuracy, reward.format) == (3.5, 1.0, 1.0)


def test_an_unverifiable_answer_earns_its_format_and_is_flagged():
    reward = mix_reward(parse_response(respond("4")), Prompt(id="p", question="q", answer=""))
    assert reward.verdict == "unverifiable" and reward.is_unverifiable
    assert (reward.accuracy, reward.total) == (0.0, 0.2)


def test_choices_of_the_prompt_are_used():
    prompt = Prompt(id="p", question="q", answer="B", choices=("red", "blue"))
    assert verdict_of(parse_response(respond("blue")), prompt) == "correct"
    assert verdict_of(parse_response(respond("red")), prompt) == "wrong"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>3</answer> no, <answer> 4 </answer>", "4"),
        ("<answer>3</answer> \\boxed{5}", "3"),
        ("I think\n<answer>4", "4"),
        (r"so \boxed{3}, or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"cut off \boxed{3", r"cut off \boxed{3"),
        ("First.\nThe answer is 4.\n\n", "The answer is 4."),
        ("4", "4"),
        ("", ""),
    ],
)
def test_answer_of_free_text(text: str, answer: str):
    assert answer_of_free_text(text) == answer


def test_answer_of_free_text_is_linear_on_hostile_text():
    for piece in ("<answer>", "</answer>", r"\boxed{", "<", "{"):
        started = time.process_time()
        answer_of_free_text(piece * 50_000)
        # Linear is a few hundredths of a second; quadratic would be minutes.
        assert time.process_time() - started < 5
