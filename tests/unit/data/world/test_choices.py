"""Choices hold the answer once, and the reasoning goes through them up to the one that fits."""

import random
import re

import pytest

from prism.data.world.choices import choose, draw_choices, letter_of, write_choices
from prism.data.world.questions import KINDS, Question, Solution, draw_question, solve
from prism.data.world.scene import COLOURS, SHAPES, draw_scene

CHOICES = ("4", "7", "2", "9")


def test_letters_name_choices() -> None:
    assert [letter_of(choice, ("4", "7", "2")) for choice in ("4", "7", "2", "9")] == ["A", "B", "C", None]
    assert write_choices(("4", "7")) == " (A) 4 (B) 7"


def test_reasoning_stops_at_the_choice_that_fits() -> None:
    solution = choose(Solution(("the sum is 7",), "7"), CHOICES, random.Random(0))
    assert solution == Solution(("the sum is 7", "choices: (A) 4 no, (B) 7 yes"), "B")


def test_where_no_choice_fits_every_letter_is_guessed_alike() -> None:
    guesses = [choose(Solution((), "5"), CHOICES, random.Random(seed)) for seed in range(400)]
    assert {guess.steps for guess in guesses} == {("choices: (A) 4 no, (B) 7 no, (C) 2 no, (D) 9 no",)}
    counts = [sum(guess.answer == letter for guess in guesses) for letter in "ABCD"]
    assert sum(counts) == 400 and min(counts) > 70  # 100 expected, standard deviation 8.7


@pytest.mark.parametrize("kind", KINDS)
def test_one_choice_is_right_and_all_are_of_its_sort(kind: str) -> None:
    random_source = random.Random(f"choices/{kind}")
    places = set()
    for _ in range(150):
        scene = draw_scene(random_source, layout=(3, 3), split="train")
        question: Question | None = draw_question(random_source, scene, kind)
        if question is None:
            continue
        answer = solve(question, scene).answer
        choices = draw_choices(random_source, question, answer)
        assert choices.count(answer) == 1 and len(set(choices)) == len(choices) == (2 if kind == "compare" else 4)
        sorts = [COLOURS, SHAPES, tuple(choice for choice in choices if re.fullmatch(r"\d+", choice))]
        assert any(set(choices) <= set(sort) for sort in sorts)
        places.add(choices.index(answer))
    assert len(places) == (2 if kind == "compare" else 4)
