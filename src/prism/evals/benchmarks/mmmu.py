"""MMMU validation: 900 college questions in 30 subjects, most with options, some open, with up to seven images.

Profile `prism`: the first answer tag, else the whole response, read by the paper's rule for option letters.
Where that finds none it draws an option at random, which is nothing a rule decided. Open questions always
come out wrong there, since the answers found are compared letter by letter, and go to a judge.

Profile `strict`: the verifier, with the options; an open question may list several right answers.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from prism.data.image_references import resolve_image
from prism.data.rejects import RowError
from prism.evals.benchmarks.accuracy import ACCURACY, accuracy, accuracy_by
from prism.evals.benchmarks.benchmark import ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import first_answer_tag, score_verified, without_reasoning
from prism.evals.benchmarks.option_letters import mmmu_letter
from prism.evals.benchmarks.rows import (
    answer_field,
    id_field,
    images_field,
    letter_field,
    lettered,
    optional_text,
    parsed_list,
    strings_field,
    text_field,
)
from prism.evals.statistics import Interval
from prism.records import IMAGE_MARK, ImageSource, Prompt

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
SUBJECTS = tuple(sorted(subject for subjects in DISCIPLINES.values() for subject in subjects))
LETTER_HINT = "Give the letter of the right option as the final answer."
_OPEN_HINT = "Give a word, a phrase or a number as the final answer."
_SUBJECT_OF_ID = re.compile(r"[^_]+_(.+)_\d+")
_MARK = re.compile(r"<image ([1-7])>")
_IMAGES = tuple(f"image_{number}" for number in range(1, 8))


class Mmmu:
    name = "mmmu"
    hub_id = "MMMU/MMMU"
    hub_configs: tuple[str, ...] = SUBJECTS
    """The subjects are configurations of their own; the benchmark is all of them."""
    hub_split = "validation"
    headline = ACCURACY
    limit_by: str | None = "subject"

    def item_id(self, row: Row) -> str:
        return id_field(row, "id")

    def cluster(self, row: Row) -> str:
        return self.item_id(row)

    def keys(self, row: Row) -> dict[str, str]:
        subject = _SUBJECT_OF_ID.fullmatch(self.item_id(row))
        if not subject:
            raise RowError("id", "names no subject, as validation_Math_1 does", self.item_id(row)[:80])
        return {**subject_keys(subject[1]), "question_type": "choice" if _is_choice(row) else "open"}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        options, (truth, *equivalents) = _options(row), _truths(row)
        lines = [
            text_field(row, "question"),
            lettered(options) if options else "",
            LETTER_HINT if options else _OPEN_HINT,
        ]
        question, images = place_images("\n".join(filter(None, lines)), row, image_root)
        return Prompt(
            id=self.item_id(row),
            question=question,
            images=images,
            answer=truth,
            kind=self.name,
            choices=options,
            equivalents=tuple(equivalents),
            metadata={"benchmark": self.name, **self.keys(row)},
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        options, (truth, *equivalents) = _options(row), _truths(row)
        if profile == "strict":
            return score_verified(response, truth, equivalents=equivalents, choices=options or None)
        if options:
            return score_published_choice(published_answer(response), truth, options)
        return Score(False, "open_question_never_matches", published_answer(response), needs_judge=True)

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        return {"accuracy": accuracy(scores), **accuracy_by(scores, "discipline"), **accuracy_by(scores, "subject")}


MMMU = Mmmu()


def subject_keys(subject: str) -> dict[str, str]:
    """The subject and its discipline; a subject that MMMU does not have belongs to none."""
    disciplines = [name for name, subjects in DISCIPLINES.items() if subject in subjects]
    return {"subject": subject, **({"discipline": disciplines[0]} if disciplines else {})}


def place_images(text: str, row: Row, image_root: Path) -> tuple[str, tuple[ImageSource, ...]]:
    """The text with the mark `<image 3>` of the column image_3 turned into `<image>`, and the images in that order.

    A second mention of an image becomes words, "image 2", counted as the reader sees them. A text without
    any mark gets all of the row's images in front. Raises RowError where a mark has no image.
    """
    fields: list[str] = []

    def place(mark: re.Match[str]) -> str:
        field = f"image_{mark[1]}"
        if field in fields:
            return f"image {fields.index(field) + 1}"
        fields.append(field)
        return IMAGE_MARK

    text = _MARK.sub(place, text)
    missing = next((field for field in fields if row.get(field) is None), None)
    if missing:
        raise RowError(missing, "is missing, but the question refers to it")
    if not fields:
        return text, images_field(row, _IMAGES, image_root)
    return text, tuple(resolve_image(row[field], image_root, field) for field in fields)


def published_answer(response: str) -> str:
    """What the paper's evaluation reads of a response: its first answer tag, else all but the reasoning."""
    text = without_reasoning(response)
    answer = first_answer_tag(text)
    return text if answer is None else answer


def score_published_choice(answer: str, truth: str, options: Sequence[str]) -> Score:
    letter = mmmu_letter(answer, options)
    if letter is None:
        return Score(None, "random_option", answer or None)
    return Score(letter == truth, "option_letter", answer)


def _is_choice(row: Row) -> bool:
    return optional_text(row, "question_type") != "open" and bool(strings_field(row, "options"))


def _options(row: Row) -> tuple[str, ...]:
    return strings_field(row, "options") if _is_choice(row) else ()


def _truths(row: Row) -> tuple[str, ...]:
    """The letter of the right option, or all right answers to an open question."""
    if _is_choice(row):
        return (letter_field(row, "answer", len(_options(row))),)
    value = row.get("answer")
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = parsed_list(value, "answer")
        except RowError:  # an answer in brackets, such as an interval
            return (value,)
    if not isinstance(value, list):
        return (answer_field(row),)
    truths = tuple(filter(str.strip, strings_field({"answer": value}, "answer")))
    if not truths:
        raise RowError("answer", "is empty")
    return truths
