"""MathVerse testmini: 788 problems in five versions that move more and more of the text into the figure.

Profile `prism`: the first answer tag against the ground truth, without case and a final full stop; whatever
differs, and every response without the tag, goes to a judge.

Profile `strict`: the verifier, with the options listed in the question.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from prism.data.rejects import RowError
from prism.evals.benchmarks.accuracy import ACCURACY, accuracy, accuracy_by
from prism.evals.benchmarks.benchmark import ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import first_answer_tag, score_verified, without_reasoning
from prism.evals.benchmarks.rows import (
    LETTERS,
    answer_field,
    id_field,
    mapping_field,
    one_image,
    optional_text,
    text_field,
)
from prism.evals.statistics import Interval
from prism.records import ImageSource, Prompt

_QUERIES = ("query_cot", "query_wo", "question")
"""From best to worst: the first two name the kind of answer asked for, and in the Vision Only version, whose
`question` is empty, send the reader to the figure."""
_TEXT_ONLY = "Text Only"
_OPTION = re.compile(r"^[ \t]*\(?([A-J])[ \t]*[:.)][ \t]*(.*\S)", re.MULTILINE)


class MathVerse:
    name = "mathverse"
    hub_id = "AI4Math/MathVerse"
    hub_configs: tuple[str, ...] = ("testmini",)
    hub_split = "testmini"
    headline = ACCURACY
    limit_by: str | None = None

    def item_id(self, row: Row) -> str:
        return id_field(row, "sample_index")

    def cluster(self, row: Row) -> str:
        """The versions of one problem."""
        return id_field(row, "problem_index")

    def keys(self, row: Row) -> dict[str, str]:
        metadata = mapping_field(row, "metadata")
        keys = {name: optional_text(metadata, name) for name in ("subject", "subfield", "source")}
        keys["problem_version"] = text_field(row, "problem_version")
        keys["question_type"] = optional_text(row, "question_type")
        return {name: value for name, value in keys.items() if value}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        return Prompt(
            id=self.item_id(row),
            question=_query(row),
            images=_images(row, image_root),
            answer=answer_field(row),
            kind=self.name,
            choices=_choices(row),
            metadata={"benchmark": self.name, "problem_index": self.cluster(row), **self.keys(row)},
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        truth = answer_field(row)
        if profile == "prism":
            return _score_as_published(truth, without_reasoning(response))
        return score_verified(response, truth, choices=_choices(row) or None)

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        metrics = {"accuracy": accuracy(scores)}
        for key in ("problem_version", "subject", "subfield"):
            metrics |= accuracy_by(scores, key)
        return metrics


MATHVERSE = MathVerse()


def _query(row: Row) -> str:
    for field in _QUERIES:
        query = optional_text(row, field).strip()
        if query:
            return query
    raise RowError(_QUERIES[0], f"is empty, and so are {' and '.join(_QUERIES[1:])}")


def _images(row: Row, image_root: Path) -> tuple[ImageSource, ...]:
    if text_field(row, "problem_version") == _TEXT_ONLY:
        return ()
    return (one_image(row, ("image", "decoded_image"), image_root),)


def _choices(row: Row) -> tuple[str, ...]:
    """The options that the question lists behind consecutive letters from A, one a line; none for the rest.

    The Vision Only version has them in `question_for_eval` alone.
    """
    if optional_text(row, "question_type") == "free-form":
        return ()
    for field in ("question_for_eval", *reversed(_QUERIES)):
        options = _OPTION.findall(optional_text(row, field).rpartition("Choices:")[2])
        if len(options) > 1 and "".join(letter for letter, _ in options) == LETTERS[: len(options)]:
            return tuple(text for _, text in options)
    return ()


def _score_as_published(truth: str, response: str) -> Score:
    tagged = first_answer_tag(response)
    if tagged is not None and _plain(tagged) == _plain(truth):
        return Score(True, "same_text", tagged)
    return Score(False, "no_answer_tag" if tagged is None else "other_text", tagged, needs_judge=True)


def _plain(text: str) -> str:
    return text.strip().rstrip(".").strip().lower()
