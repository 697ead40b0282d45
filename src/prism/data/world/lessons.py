"""What the tiny base is pretrained on: the skills that real pretrained models bring along.

Describing an image, repeating a text, answering briefly, reasoning over a description that is given
as text, and judging statements: single ones, and how many of a description are wrong. Reasoning comes
in think and answer tags, as real models know them; the description in tags before it is for
supervised fine-tuning to teach.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from prism.data.world.choices import choose, draw_choices, write_choices
from prism.data.world.datasets import PUBLIC, demonstrations
from prism.data.world.oracle import Fidelity, describe, perceive, write_reasoning
from prism.data.world.questions import (
    ATTRIBUTES,
    KINDS,
    Question,
    Solution,
    draw_question,
    solve,
)
from prism.data.world.render import render_scene
from prism.data.world.scene import Scene, draw_scene
from prism.records import Example, ImageSource, Prompt

LAYOUTS = ((3, 3), (2, 4), (3, 4), (4, 3), (2, 3), (3, 2))
MISTAKEN = Fidelity(wrong=0.12, vague=0.03)
CARELESS = Fidelity(wrong=0.2, vague=0.2, terse=0.3)
BRIEF = " Answer briefly."
CHOICE_RATE = 0.2
"""Share of the questions to reason about that offer choices."""


@dataclass(frozen=True, slots=True)
class Lesson(Example):
    """`verdict` is a judgement of the completion. It follows the end token, on which a discriminator reads its score;
    where there is one, the loss is on it alone."""

    verdict: str = ""


def ask(random_source: random.Random, scene: Scene, kinds: tuple[str, ...] = KINDS) -> Question:
    """A question about `scene` of one of `kinds`."""
    while True:
        question = draw_question(random_source, scene, random_source.choice(kinds))
        if question is not None:
            return question


def draw_lesson(random_source: random.Random, part: int = -1) -> Example:
    """One pretraining example about a scene of the training split, from this part of the `CURRICULUM`."""
    scene = draw_scene(random_source, layout=random_source.choice(LAYOUTS), split="train")
    lessons = CURRICULUM[part].lessons
    [(_, lesson)] = random_source.choices(lessons, weights=[weight for weight, _ in lessons])
    return lesson(random_source, scene)


def tokenizer_texts() -> Iterator[str]:
    """Enough of the world's language to hold every word of it; always the same, whatever a run's seed."""
    random_source = random.Random("tokenizer")
    lessons = (draw_lesson(random_source) for _ in range(1500))
    for example in itertools.chain(lessons, demonstrations("tokenizer", PUBLIC, CARELESS, 1500, 0)):
        yield from (example.prompt.question, example.completion)


def _with_image(random_source: random.Random, scene: Scene, text: str) -> Prompt:
    return Prompt("", text, (ImageSource(data=render_scene(scene, random_source)),))


def describe_lesson(random_source: random.Random, scene: Scene) -> Example:
    return Example(_with_image(random_source, scene, "Describe the image."), describe(scene))


def _repeat(random_source: random.Random, scene: Scene) -> Example:
    """Copying a description that was given as text."""
    caption = describe(perceive(scene, MISTAKEN, random_source))
    return Example(Prompt("", f"{caption} Repeat."), caption)


def _brief(random_source: random.Random, scene: Scene) -> Example:
    question = ask(random_source, scene)
    answer = solve(question, scene).answer
    return Example(_with_image(random_source, scene, question.text + BRIEF), answer)


def _reasoned(solution: Solution) -> str:
    return f"<think>{write_reasoning(solution)}</think><answer>{solution.answer}</answer>"


def _asked(random_source: random.Random, scene: Scene, question: Question) -> tuple[str, tuple[str, ...]]:
    """The question's text, and the choices that it offers, if any."""
    if random_source.random() >= CHOICE_RATE:
        return question.text, ()
    choices = draw_choices(random_source, question, solve(question, scene).answer)
    return question.text + write_choices(choices), choices


def _solved(random_source: random.Random, described: Scene, question: Question, choices: tuple[str, ...]) -> Solution:
    solution = solve(question, described)
    return choose(solution, choices, random_source) if choices else solution


def read_lesson(random_source: random.Random, scene: Scene, question: Question | None = None) -> Example:
    """Reasoning and answer from a description that is given as text, to `question` or any other."""
    question = question or ask(random_source, scene)
    text, choices = _asked(random_source, scene, question)
    return Example(Prompt("", f"{describe(scene)} {text}"), _reasoned(_solved(random_source, scene, question, choices)))


def _follow(random_source: random.Random, scene: Scene) -> Example:
    """Reasoning from a description that is partly wrong: what was written counts, not the image."""
    question = ask(random_source, scene)
    text, choices = _asked(random_source, scene, question)
    perceived = perceive(scene, MISTAKEN, random_source)
    caption, solution = describe(perceived), _solved(random_source, perceived, question, choices)
    completion = f"{caption}\n{_reasoned(solution)}"
    prompt = _with_image(random_source, scene, f"{text} Describe roughly and reason.")
    return Example(prompt, completion, ((len(caption), len(completion)),))


class _Marked:
    """A text with marks in it, each of which judges what was stated since the last one, and the spans of the marks."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[tuple[int, int]] = []
        self._num_wrong = 0

    def state(self, text: str, *, is_right: bool = True) -> None:
        self.text += text
        self._num_wrong += not is_right

    def mark(self, correction: str = "") -> None:
        """Whether all of it is right."""
        self._judge(correction + (" wrong" if self._num_wrong else " right"))

    def count(self) -> None:
        """How many statements are wrong."""
        self._judge(self._count())

    def example(self, prompt: Prompt) -> Lesson:
        return Lesson(prompt, self.text, tuple(self.spans))

    def judged_as_a_whole(self, prompt: Prompt) -> Lesson:
        return Lesson(prompt, self.text, verdict=self._count())

    def _count(self) -> str:
        return f" {self._num_wrong} wrong"

    def _judge(self, text: str) -> None:
        self.spans.append((len(self.text), len(self.text) + len(text)))
        self.text += text
        self._num_wrong = 0


Unit = Literal["word", "corrected word", "cell", "row", "whole"]
_WRONG_RATES: dict[Unit, tuple[float, ...]] = {
    "word": (0.1, 0.3, 0.5),
    "corrected word": (0.1, 0.3, 0.5),
    "cell": (0.05, 0.1, 0.3),
    "row": (0.0, 0.05, 0.1, 0.3),
    "whole": (0.0, 0.02, 0.05, 0.1, 0.3),
}
"""Chances of a wrong word such that units with and without one are both frequent: of rare cases little is learned."""


def check_description(random_source: random.Random, scene: Scene, unit: Unit = "word") -> Lesson:
    """A description, partly wrong, judged unit by unit, after the bare question: what a discriminator reads.

    Words are marked right or wrong, a corrected word with the right one before its mark, which teaches where to look
    (`benchmarks/checking.py`). Of larger units the wrong words are counted: cells and rows teach how to gather what
    was found. Half of the descriptions that are judged as a whole stop after any of their cells: short ones are the
    first that a model can count.
    """
    question = ask(random_source, scene)
    fidelity = Fidelity(wrong=random_source.choice(_WRONG_RATES[unit]), vague=random_source.choice((0.0, 0.05)))
    perceived, marked = perceive(scene, fidelity, random_source), _Marked()
    is_cut = unit == "whole" and random_source.random() < 0.5
    end = random_source.randint(1, scene.rows * scene.columns) if is_cut else scene.rows * scene.columns
    for row in range(1, scene.rows + 1):
        for column in range(1, scene.columns + 1):
            if (row - 1) * scene.columns + column > end:
                break
            marked.state(("" if row == column == 1 else " ") + scene.name(row, column))
            item, seen = perceived.at(row, column), scene.at(row, column)
            for attribute in ATTRIBUTES:
                word, true = getattr(item, attribute), getattr(seen, attribute)
                marked.state(f" {word}", is_right=word == true)
                if unit in ("word", "corrected word"):
                    marked.mark(f" {true}" if unit == "corrected word" else "")
            marked.state("." if column == scene.columns else ",")
            if unit == "cell" or (unit == "row" and column == scene.columns):
                marked.count()
    task = " Correct the description." if unit == "corrected word" else ""
    prompt = _with_image(random_source, scene, question.text + task)
    return marked.judged_as_a_whole(prompt) if unit == "whole" else marked.example(prompt)


def check_reasoning(random_source: random.Random, scene: Scene, *, by_step: bool = True) -> Lesson:
    """Reasoning and answer with a mark behind each step, or the count of the wrong ones as verdict; partly from what
    is not in the image, and partly without its last step."""
    question = ask(random_source, scene)
    fidelity = Fidelity(wrong=random_source.choice((0.0, 0.1)), vague=random_source.choice((0.0, 0.05)))
    truth, claimed = solve(question, scene), solve(question, perceive(scene, fidelity, random_source))
    if random_source.random() < 0.3:
        claimed = Solution(claimed.steps[:-1] or claimed.steps, claimed.answer)
    marked = _Marked()
    for index, step in enumerate(claimed.steps):
        is_right = index < len(truth.steps) and step == truth.steps[index]
        marked.state(f"{index + 1}. {step}.", is_right=is_right)
        if by_step:
            marked.mark()
        marked.state("\n")
    is_complete = len(claimed.steps) == len(truth.steps)
    marked.state(f"<answer>{claimed.answer}</answer>", is_right=claimed.answer == truth.answer and is_complete)
    prompt = _with_image(random_source, scene, question.text)
    if not by_step:
        return marked.judged_as_a_whole(prompt)
    marked.mark()
    return marked.example(prompt)


_Lessons = tuple[tuple[float, Callable[[random.Random, Scene], Example]], ...]
"""What can be drawn, each with its weight."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of pretraining, over when the running mean of its loss is below `mastered_at` (nats per token).

    With an early exit what the model would say after half of its layers counts as well.
    """

    lessons: _Lessons
    mastered_at: float
    has_early_exit: bool = False


_check_words, _correct_words, _check_cells, _check_rows, _check_whole = (
    partial(check_description, unit=unit) for unit in get_args(Unit)
)

_SEEING: _Lessons = ((0.5, describe_lesson), (0.5, _repeat))
_COMPARING: _Lessons = ((0.5, _correct_words), (0.5, _check_words))
_JUDGING: _Lessons = (
    (0.15, _correct_words),
    (0.15, _check_words),
    (0.2, _check_cells),
    (0.2, _check_rows),
    (0.3, _check_whole),
)
_EVERYTHING: _Lessons = (
    (0.04, describe_lesson),
    (0.02, _repeat),
    (0.04, _brief),
    (0.44, read_lesson),
    (0.15, _follow),
    (0.02, _correct_words),
    (0.03, _check_words),
    (0.03, _check_cells),
    (0.04, _check_rows),
    (0.08, _check_whole),
    (0.07, check_reasoning),
    (0.04, partial(check_reasoning, by_step=False)),
)
CURRICULUM = (
    Part(_SEEING, mastered_at=0.03, has_early_exit=True),
    Part(_COMPARING, mastered_at=0.05, has_early_exit=True),
    Part(_JUDGING, mastered_at=0.06),
    Part(_EVERYTHING, mastered_at=0.0),
)
"""Perception and copying, on which everything else builds, emerge several times faster alone than among other lessons,
and so does comparing a word with the image: among others it is learned late and suddenly, and not from every seed. How
long each takes differs from seed to seed, so that a part ends when it is mastered.
"""
