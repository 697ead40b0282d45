"""MathVista testmini: 1000 questions about figures, with an option, an integer, a decimal number or a list as answer.

Profile `prism`: a response (or its first answer tag) that is one of the options, or that Python reads as a
number, is compared as it stands. Everything else goes to an extraction model; without one the empty text
takes its place, which is no number, and among options counts as the shortest. Decimals never count as right,
because the published rows keep their number of decimals as 1.0 or 2.0 and Python rounds to whole digits only.

Profile `strict`: the verifier, with the row's unit; decimals are rounded to the row's precision, and a
question for an integer wants one.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from prism.data.rejects import RowError
from prism.evals.benchmarks.accuracy import ACCURACY, SEPARATOR, accuracy, accuracy_by, accuracy_by_each
from prism.evals.benchmarks.answer_kinds import kind_of
from prism.evals.benchmarks.benchmark import ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import first_answer_tag, score_stated, verified, without_reasoning
from prism.evals.benchmarks.rows import (
    answer_field,
    id_field,
    lettered,
    mapping_field,
    number_field,
    one_image,
    optional_text,
    strings_field,
    text_field,
)
from prism.evals.statistics import Interval
from prism.records import Prompt

_ANSWER_TYPES = ("text", "integer", "float", "list")
_GROUPS = ("task", "category", "context", "grade", "language", "source")
_LETTER_IN_PARENTHESES = re.compile(r"\(([A-Za-z])\)")
_PLAIN_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


class MathVista:
    name = "mathvista"
    hub_id = "AI4Math/MathVista"
    hub_configs: tuple[str, ...] = ()
    hub_split = "testmini"
    headline = ACCURACY
    limit_by: str | None = None

    def item_id(self, row: Row) -> str:
        return id_field(row, "pid")

    def cluster(self, row: Row) -> str:
        return self.item_id(row)

    def keys(self, row: Row) -> dict[str, str]:
        metadata = mapping_field(row, "metadata")
        keys = {name: optional_text(metadata, name) for name in _GROUPS}
        keys["skills"] = SEPARATOR.join(strings_field(metadata, "skills"))
        keys["question_type"], keys["answer_type"] = text_field(row, "question_type"), _answer_type(row)
        return {name: value for name, value in keys.items() if value}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        unit, choices = optional_text(row, "unit"), _choices(row)
        lines = ["Question: " + text_field(row, "question") + (f" (Unit: {unit})" if unit else "")]
        if choices:
            lines += ["Choices:", lettered(choices, "({letter}) {text}")]
        return Prompt(
            id=self.item_id(row),
            question="\n".join([*lines, _hint(row)]),
            images=(one_image(row, ("decoded_image", "image"), image_root),),
            answer=answer_field(row),
            kind=self.name,
            choices=choices,
            metadata={"benchmark": self.name, **self.keys(row)},
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        if profile == "prism":
            return _score_as_published(row, without_reasoning(response))
        kind = kind_of([answer_field(row)], _choices(row))
        return score_stated(response, lambda answer: _verify(row, answer), kind)

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        metrics = {"accuracy": accuracy(scores)} | accuracy_by_each(scores, "skills", "skill")
        for key in ("question_type", "answer_type", *_GROUPS):
            metrics |= accuracy_by(scores, key)
        return metrics


MATHVISTA = MathVista()


def _answer_type(row: Row) -> str:
    kind = text_field(row, "answer_type")
    if kind not in _ANSWER_TYPES:
        raise RowError("answer_type", f"is none of {', '.join(_ANSWER_TYPES)}", kind[:80])
    return kind


def _choices(row: Row) -> tuple[str, ...]:
    """The options of a multiple choice question; none for the others, whatever their column holds."""
    if text_field(row, "question_type") != "multi_choice":
        return ()
    choices = strings_field(row, "choices")
    if not choices:
        raise RowError("choices", "is empty in a multiple choice question")
    return choices


def _precision(row: Row) -> int:
    precision = number_field(row, "precision")
    if precision is None or not 0 <= precision <= 15:
        raise RowError("precision", "is not a number of decimals from 0 to 15", str(precision))
    return int(precision)


def _hint(row: Row) -> str:
    if _choices(row):
        return "Hint: Give the letter of the right option as the final answer, e.g. A."
    match _answer_type(row):
        case "integer":
            return "Hint: Give an integer as the final answer, e.g. 3."
        case "float":
            decimals = _precision(row)
            noun = "decimal" if decimals == 1 else "decimals"
            return f"Hint: Give a number with {decimals} {noun} as the final answer, e.g. {1.234:.{decimals}f}."
        case "list":
            return "Hint: Give a Python list as the final answer, e.g. [1, 2, 3]."
    return "Hint: Give a word or a short phrase as the final answer."


def _score_as_published(row: Row, response: str) -> Score:
    choices, kind = _choices(row), _answer_type(row)
    text = first_answer_tag(response) or response
    found = _read_directly(text, choices, kind)
    extracted = found or ""
    normalised = _nearest_option(extracted, choices) if choices else _normalised(extracted, kind, row.get("precision"))
    is_correct = normalised is not None and normalised.strip() == answer_field(row).strip()
    rule = "needs_extraction" if found is None else "option_text" if choices else kind
    return Score(is_correct, rule, normalised, needs_judge=found is None and bool(text))


def _read_directly(text: str, choices: Sequence[str], kind: str) -> str | None:
    """What the published rules read without an extraction model; None where they need one."""
    if choices:
        return text if text in choices else None
    try:
        if kind == "integer":
            return str(int(text))
        if kind == "float":
            return str(float(text))
    except ValueError:
        pass
    return None


def _nearest_option(text: str, choices: Sequence[str]) -> str:
    """The option that a letter names, else the first of those with the smallest edit distance."""
    text = text.strip()
    letter = _LETTER_IN_PARENTHESES.search(text)
    if letter:
        text = letter[1].upper()
    if len(text) == 1 and 0 <= ord(text) - ord("A") < len(choices):
        return choices[ord(text) - ord("A")]
    if text in choices:
        return text
    # What is left has at most one character, which is found in an option or replaces one of its characters.
    return min(choices, key=lambda choice: max(len(choice), len(text)) - (text in choice if text else 0))


def _normalised(text: str, kind: str, precision: object) -> str | None:
    try:
        if kind == "integer":
            return str(int(float(text)))
        if kind == "float":
            return str(round(float(text), precision))  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (ValueError, TypeError, OverflowError):
        return None
    return text


def _verify(row: Row, answer: str) -> Score:
    truth, kind, choices = answer_field(row), _answer_type(row), _choices(row)
    if choices:
        return verified(answer, truth, choices=choices)
    if kind in ("integer", "float"):
        is_close = _is_close(answer.strip().rstrip("."), truth.strip(), _precision(row) if kind == "float" else None)
        if is_close is not None:
            return Score(is_close, kind, answer)
    if kind == "list" and answer.startswith("(") and answer.endswith(")"):
        answer = f"[{answer[1:-1]}]"
    return verified(answer, _with_unit(truth, optional_text(row, "unit").strip()))


def _is_close(number: str, truth: str, decimals: int | None) -> bool | None:
    """Equality, or agreement to `decimals` places with halves either way; None where either is no plain number."""
    if not (_PLAIN_NUMBER.fullmatch(number) and _PLAIN_NUMBER.fullmatch(truth)):
        return None
    difference = abs(Decimal(number) - Decimal(truth))
    return difference == 0 if decimals is None else difference <= Decimal(5).scaleb(-decimals - 1)


def _with_unit(truth: str, unit: str) -> str:
    if not unit or unit in truth:
        return truth
    return f"{unit}{truth}" if unit == "$" else f"{truth} {unit}"
