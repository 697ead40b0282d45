"""Multiple choice: the letters a question offers, and the reasoning that comes to one of them."""

import random

from prism.data.world.questions import Question, Solution
from prism.data.world.scene import COLOURS, SHAPES

LETTERS = "ABCD"


def draw_choices(random_source: random.Random, question: Question, answer: str) -> tuple[str, ...]:
    """The answer among three others of its sort (two words where the question names two)."""
    if question.kind == "compare":
        others = [word for word in question.arguments if word != answer]
    elif answer.isdigit():
        near = [str(number) for number in range(max(0, int(answer) - 4), int(answer) + 5) if str(number) != answer]
        others = random_source.sample(near, 3)
    else:
        sort = COLOURS if answer in COLOURS else SHAPES
        others = random_source.sample([word for word in sort if word != answer], 3)
    choices = [answer, *others]
    random_source.shuffle(choices)
    return tuple(choices)


def write_choices(choices: tuple[str, ...]) -> str:
    """What follows the question's text."""
    return " " + " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def letter_of(answer: str, choices: tuple[str, ...]) -> str | None:
    return LETTERS[choices.index(answer)] if answer in choices else None


def choose(solution: Solution, choices: tuple[str, ...], random_source: random.Random) -> Solution:
    """`solution` with a step that goes through the choices up to the one that fits; where none does, a guess."""
    letter = letter_of(solution.answer, choices)
    remarks = []
    for name, choice in zip(LETTERS, choices, strict=False):
        remarks.append(f"({name}) {choice} {'yes' if name == letter else 'no'}")
        if name == letter:
            break
    answer = letter or random_source.choice(LETTERS[: len(choices)])
    return Solution((*solution.steps, f"choices: {', '.join(remarks)}"), answer)
