r"""MathVision testmini: 304 competition problems in 16 subjects and five levels, with options or free answers.

Profile `prism`: the first answer tag, else the whole response, is cut down to its answer (a letter at the
end, a number after "is", what follows "the answer is", the last `\boxed`), stripped of LaTeX and a few units,
and compared with the letter and with the text of the right option: as text, as tuple, or as numbers rounded
to two decimals. What differs goes to a judge.

Profile `strict`: the verifier, with the options.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from prism.evals.benchmarks.accuracy import ACCURACY, accuracy, accuracy_by
from prism.evals.benchmarks.benchmark import ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import first_answer_tag, score_verified, without_reasoning
from prism.evals.benchmarks.latex_answer import is_same_answer, plain_answer
from prism.evals.benchmarks.rows import (
    answer_field,
    id_field,
    letter_field,
    lettered,
    one_image,
    optional_text,
    strings_field,
    text_field,
)
from prism.evals.statistics import Interval
from prism.records import IMAGE_MARK, Prompt

_LETTERS = "ABCDE"
_MARK = re.compile(r"<image\s?\d+>")
_ANNOUNCEMENTS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")


class MathVision:
    name = "mathvision"
    hub_id = "MathLLMs/MathVision"
    hub_configs: tuple[str, ...] = ()
    hub_split = "testmini"
    headline = ACCURACY
    limit_by: str | None = None

    def item_id(self, row: Row) -> str:
        return id_field(row, "id")

    def cluster(self, row: Row) -> str:
        return self.item_id(row)

    def keys(self, row: Row) -> dict[str, str]:
        keys = {name: optional_text(row, name) for name in ("level", "subject")}
        return {name: value for name, value in keys.items() if value}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        # A row has one picture, even where its question numbers several parts of it.
        question, choices = _MARK.sub(IMAGE_MARK, text_field(row, "question"), count=1), strings_field(row, "options")
        lines = [question, "Choices:", lettered(choices)] if choices else [question]
        hint = "Give the letter of the right option" if choices else "Give a number or an expression"
        return Prompt(
            id=self.item_id(row),
            question="\n".join([*lines, f"Hint: {hint} as the final answer."]),
            images=(one_image(row, ("decoded_image", "image"), image_root),),
            answer=_truths(row)[0],
            kind=self.name,
            choices=choices,
            metadata={"benchmark": self.name, **self.keys(row)},
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        truths = _truths(row)
        if profile == "prism":
            return _score_as_published(truths, without_reasoning(response))
        return score_verified(response, truths[0], choices=strings_field(row, "options") or None)

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        return {"accuracy": accuracy(scores)} | accuracy_by(scores, "level") | accuracy_by(scores, "subject")


MATHVISION = MathVision()


def _truths(row: Row) -> tuple[str, ...]:
    """The ground truth, and the text of the option it names where there are options."""
    choices = strings_field(row, "options")
    if not choices:
        return (answer_field(row),)
    letter = letter_field(row, "answer", len(choices))
    return letter, choices[ord(letter) - ord("A")]


def _score_as_published(truths: Sequence[str], response: str) -> Score:
    answer = plain_answer(_announced(first_answer_tag(response) or response))
    if any(is_same_answer(answer, truth) for truth in truths):
        return Score(True, "same_answer", answer)
    return Score(False, "other_answer", answer, needs_judge=True)


def _announced(text: str) -> str:
    """The part of a text that the published rules take for its answer."""
    text = text.strip()
    for letter in _LETTERS:
        endings = (f" {letter}.", f" ({letter}).")
        beginnings = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.endswith(endings) or text.startswith(beginnings):
            text = letter
    number = text.rpartition("is ")[2].rstrip(".")
    if _is_number(number):
        text = number
    if "oxed{" in text:
        return "\\boxed{" + text.rpartition("oxed{")[2] if text.count("oxed{") > 1 else text
    for announcement in _ANNOUNCEMENTS:
        for spelling in (announcement, announcement.replace("the", "The")):
            _, found, rest = text.rpartition(spelling)
            text = rest.strip().split("\n")[0].split(". ")[0] if found else text.strip()
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
