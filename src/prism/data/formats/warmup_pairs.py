"""Teacher and student responses to one prompt, JSON lines: what the discriminator is warmed up on.

A row has `prompt` or `question`, `image` or `images`, and for each author (`teacher`, `student`) either
`{author}_response` or `{author}_caption` with `{author}_cot`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.data.files import replaced_when_complete
from prism.data.formats.conversation import Conversation, read_conversation
from prism.data.formats.fields import Row, first_present, read_visible_text, with_extra
from prism.data.formats.parsed import read_prompt
from prism.data.formats.storing import prompt_columns, write_json_rows
from prism.data.formats.tagged import read_response
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.records import Prompt, Response

_AUTHORS = ("teacher", "student")
_PARTS = ("response", "caption", "cot", "answer")
_QUESTION_FIELDS = ("prompt", "question")
_OWN_FIELDS = (*_QUESTION_FIELDS, *(f"{author}_{part}" for author in _AUTHORS for part in _PARTS))


@dataclass(frozen=True, slots=True)
class ResponsePair:
    """A teacher's and a student's response to one prompt, both valid."""

    prompt: Prompt
    teacher: Response
    student: Response


@dataclass(frozen=True, slots=True)
class ParsedPair:
    """A pair before its texts are parsed."""

    prompt: Prompt
    teacher: str
    student: str


def parse_row(row: Row, image_root: Path) -> ParsedPair:
    """Raises RowError. A student's answer is never filled in from the ground truth; a teacher's is."""
    is_complete, row = row.get("choices") is None, with_extra(row)
    field, question = first_present(row, _QUESTION_FIELDS)
    conversation = _conversation(question, field)
    prompt = read_prompt(row, conversation, image_root, _OWN_FIELDS, is_complete=is_complete)
    answers = {"teacher": prompt.answer, "student": ""}
    texts = {author: read_response(row, author, answers[author]) for author in _AUTHORS}
    for author, text in texts.items():
        if text is None:
            raise RowError(f"{author}_response", f"is missing, and so are {author}_caption and {author}_cot")
    return ParsedPair(prompt, texts["teacher"] or "", texts["student"] or "")


def _conversation(question: object, field: str) -> Conversation:
    if not isinstance(question, list):
        return Conversation(read_visible_text(question, field))
    conversation = read_conversation(question, field)
    if conversation.completion is not None:
        raise RowError(field, "ends with an answer; it belongs into the responses")
    return conversation


def write_pairs(path: Path | str, pairs: Iterable[ResponsePair], image_dir: Path | str) -> int:
    """Write JSON lines; returns the number of rows. Images are stored as by `write_sharegpt`."""
    file = Path(path)
    if file.suffix != ".jsonl":
        raise DataError(f"{file}: warm-up pairs are written as .jsonl")
    with replaced_when_complete(file) as stream:
        return write_json_rows(stream, file, (_pair_row(pair, file, Path(image_dir)) for pair in pairs))


def _pair_row(pair: ResponsePair, file: Path, image_dir: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"question": pair.prompt.question} | prompt_columns(pair.prompt, file, image_dir)
    for author, response in (("teacher", pair.teacher), ("student", pair.student)):
        row[f"{author}_response"] = response.text
        row[f"{author}_caption"] = response.caption
        row[f"{author}_cot"] = f"<think>{response.think}</think><answer>{response.answer}</answer>"
    return row
