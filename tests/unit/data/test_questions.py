"""Which questions show their options, and what becomes of those that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.data.questions import shows_choices, with_choices, without_choices
from prism.data.world.datasets import FAITHFUL, PUBLIC, demonstrations
from prism.evals.benchmarks.rows import lettered

THREE = ("10 cm", "20 cm", "30 cm")


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        # As benchmarks and this project's own writers list them.
        (f"How long is it?\n{lettered(THREE)}", THREE),
        (f"How long is it?\n{lettered(THREE)}\nGive the letter of the right option as the final answer.", THREE),
        (f"Question: How long?\nChoices:\n{lettered(THREE, '({letter}) {text}')}\nHint: give the letter.", THREE),
        ("How long is it?\nChoices:\nA:10 cm\nB:20 cm\nC:30 cm", THREE),
        ("How long is it? A. 10 cm; B. 20 cm; C. 30 cm", THREE),
        ("How long is it? (A)10  cm (B)20\ncm (C)30 cm", THREE),
        ("多长？A、10 cm B、20 cm C、30 cm", THREE),
        # The letters are there, and the texts in another layout.
        ("How long is it?\n(A) $10\\,cm$\n(B) $20\\,cm$\n(C) $30\\,cm$", THREE),
        ("How long is it?\n**A.** ten\n**B.** twenty\n**C.** thirty", THREE),
        ("Which graph? (A) <image> (B) <image>", ("first", "second")),
        # Nobody needs letters to read these.
        ("Is it 10 cm, 20 cm or 30 cm long?", THREE),
        ("Yes or No: is it red?", ("Yes", "No")),
        ("Which is larger, 3.5 or 3?", ("3.5", "3")),
        # There is nothing to show.
        ("How long is it?", ()),
        ("The options are in the picture.", ("", " ")),
        # Options that bring their letters along.
        ("How long is it?\nA. 10 cm\nB. 20 cm", ("A. 10 cm", "B. 20 cm")),
    ],
)
def test_a_question_that_shows_its_options_stays_as_it_is(question: str, choices: tuple[str, ...]) -> None:
    assert with_choices(question, choices) == question


@pytest.mark.parametrize(
    ("question", "choices", "shown"),
    [
        ("What is the area?", ("10", "20"), "What is the area?\nA. 10\nB. 20"),
        ("What is the area?", ("10",), "What is the area?\nA. 10"),
        # Parts of longer words and numbers, or some of the options, are no options.
        ("Of 120 and 3.5, what is half?", ("12", "3"), "Of 120 and 3.5, what is half?\nA. 12\nB. 3"),
        ("A cat or what?", ("cat", "dog"), "A cat or what?\nA. cat\nB. dog"),
        ("Are B and A equal?", ("A", "B"), "Are B and A equal?\nA. A\nB. B"),
        # Points of a figure, sentences that end with one, and parts of a task are no options either.
        ("Lines meet at A. They end at B. How long is AB?", ("5", "7"),
         "Lines meet at A. They end at B. How long is AB?\nA. 5\nB. 7"),
        ("(a) Find x. (b) Find y.", ("1, 2", "2, 1"), "(a) Find x. (b) Find y.\nA. 1, 2\nB. 2, 1"),
        ("Which?", ("(A) cat", "(B) dog"), "Which?\n(A) cat\n(B) dog"),
        ("Which?", ("<image>", "<image>"), "Which?\nA. <image>\nB. <image>"),
    ],
)  # fmt: skip
def test_options_are_put_behind_the_question(question: str, choices: tuple[str, ...], shown: str) -> None:
    assert with_choices(question, choices) == shown
    assert without_choices(shown, choices) == question


def test_more_options_than_letters() -> None:
    shown = with_choices("Which?", [f"option {n}" for n in range(28)])
    assert shown.splitlines()[-3:] == ["Z. option 25", "option 26", "option 27"] and len(shown.splitlines()) == 29


TEXT = st.text(max_size=12)
OPTION = TEXT | st.sampled_from(["A. x", "(B) y", "B", "\nA. ", "A", "5", "5.5", "<image>"])


@given(question=TEXT, choices=st.lists(OPTION, max_size=5).map(tuple))
def test_whatever_the_options_they_are_shown_once(question: str, choices: tuple[str, ...]) -> None:
    shown = with_choices(question, choices)
    assert with_choices(shown, choices) == shown and shows_choices(shown, choices)
    assert shown == question or without_choices(shown, choices) == question


def test_the_worlds_questions_show_theirs() -> None:
    prompts = [example.prompt for example in demonstrations("p", PUBLIC, FAITHFUL, 400, seed=3)]
    assert sum(bool(prompt.choices) for prompt in prompts) > 50
    assert all(with_choices(prompt.question, prompt.choices) == prompt.question for prompt in prompts)
