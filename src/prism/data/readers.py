"""Data files as records, one row at a time.

The format of a file is found by its suffix and columns. A bad row goes to the reject log with its reason;
without a log it raises DataError naming file, row and field. A file that is wrong as a whole, one with every
row rejected included, always raises DataError: nothing is ever made up to replace a row.

Records do not hold images that lie inside a parquet file, but their places in it (`records.StoredImage`).
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from prism.data.formats import sharegpt, trl, verl_parquet, warmup_pairs
from prism.data.formats.fields import ANSWER_FIELDS, Row, is_too_deep, read_id, read_visible_text, with_extra
from prism.data.formats.parsed import ParsedRow
from prism.data.formats.warmup_pairs import ParsedPair, ResponsePair
from prism.data.images import open_image
from prism.data.rejects import RejectLog, RowError
from prism.data.row_files import RawRow, open_rows
from prism.errors import DataError
from prism.records import Demonstration, Example, Prompt, Response

__all__ = [
    "CheckAll",
    "Outcome",
    "ReadRow",
    "Record",
    "ResponsePair",
    "check_images",
    "own_id",
    "prompt_of",
    "read_demonstrations",
    "read_examples",
    "read_pairs",
    "read_prompts",
    "read_rows",
]

Record = Prompt | Example | Demonstration | ResponsePair

UNDECODABLE = "has an image that cannot be decoded"

_FORMATS = (verl_parquet, sharegpt, trl)
_COMPLETION_COLUMNS = ("messages", "conversations", "completion", "teacher_response", "teacher_caption")
_ANSWER_COLUMNS = ("reward_model", *ANSWER_FIELDS)
_PAIR_COLUMNS = ("teacher_response", "teacher_caption")
_STUDENT_COLUMNS = ("student_response", "student_caption")


_Parsed = TypeVar("_Parsed", ParsedRow, ParsedPair)
_Record = TypeVar("_Record", bound=Record)


class Outcome(NamedTuple, Generic[_Record]):
    """What became of one row, counted as `RawRow` counts."""

    number: int
    content: _Record | RowError


class CheckAll(Protocol):
    """Checks all rows of a file at once."""

    def __call__(self, outcomes: Iterator[Outcome[_Record]]) -> Generator[Outcome[_Record]]:
        """The outcomes in their order, with an error in place of a record that cannot be used."""
        ...


@dataclass(frozen=True, slots=True)
class _Policy:
    """What a reader was told about images and bad rows."""

    image_root: Path
    rejects: RejectLog | None
    check_all: CheckAll | None


@dataclass(frozen=True, slots=True)
class ReadRow:
    """What became of one row, counted as `RawRow` counts: what it holds, or the error."""

    number: int
    content: ParsedRow | ParsedPair | RowError


def read_rows(
    path: Path | str,
    *,
    image_root: Path | str | None = None,
    prepare: Callable[[int, Row], Row | None] | None = None,
    is_wanted: Callable[[int], bool] | None = None,
) -> Iterator[ReadRow]:
    """Every row of a file of any format, the unusable ones included; texts and images are not looked at further.

    `prepare` changes the row of a number before it is parsed (renames columns, fetches images) and may raise RowError.
    Rows whose number is not wanted, and those of which `prepare` makes None, are passed over. Raises DataError for a
    file that is wrong as a whole.
    """
    file = open_rows(path)
    root = Path(path).parent if image_root is None else Path(image_root)
    wanted = (row for row in file.rows if is_wanted is None or is_wanted(row.number))
    contents = ((row.number, _content(row, root, prepare)) for row in wanted)
    return (ReadRow(number, content) for number, content in contents if content is not None)


def own_id(row: Row) -> str | None:
    """The id that a row of any format brings along; None where it would follow from what the row holds.

    Raises RowError.
    """
    if verl_parquet.recognises(_columns(row)):
        return verl_parquet.own_id(row)
    return read_id(with_extra(row).get("id"), "id")


def _content(
    row: RawRow, image_root: Path, prepare: Callable[[int, Row], Row | None] | None
) -> ParsedRow | ParsedPair | RowError | None:
    try:
        fields = _fields(row) if prepare is None else prepare(row.number, _fields(row))
        if fields is None:
            return None
        is_pair = any(fields.get(field) is not None for field in _STUDENT_COLUMNS)
        return (warmup_pairs.parse_row if is_pair else _parse_row)(fields, image_root)
    except RowError as error:
        return error


def read_examples(
    path: Path | str,
    *,
    image_root: Path | str | None = None,
    rejects: RejectLog | None = None,
    check_all: CheckAll | None = None,
) -> Iterator[Example]:
    """Prompts with the completion to imitate: ShareGPT, TRL, or verl with teacher columns.

    Relative image paths start at `image_root`, by default the data file's folder, and must stay inside it.
    `check_all` makes a record that training could not use a bad row here rather than an error there. Whole-file errors
    are raised at the call, not at the first row.
    """
    return _read(path, _parse_row, _example, _COMPLETION_COLUMNS, _policy(path, image_root, rejects, check_all))


def read_prompts(
    path: Path | str,
    *,
    image_root: Path | str | None = None,
    rejects: RejectLog | None = None,
    check_all: CheckAll | None = None,
) -> Iterator[Prompt]:
    """Prompts for RL: each with an answer to check against and an id no other row of the file has."""
    seen: set[str] = set()

    def unique_prompt(row: ParsedRow) -> Prompt:
        read_visible_text(row.prompt.answer, row.answer_field)
        if row.prompt.id in seen:
            raise RowError("id", "is that of an earlier row", row.prompt.id)
        seen.add(row.prompt.id)
        return row.prompt

    return _read(path, _parse_row, unique_prompt, _ANSWER_COLUMNS, _policy(path, image_root, rejects, check_all))


def read_demonstrations(
    path: Path | str,
    *,
    parse: Callable[[str], Response],
    image_root: Path | str | None = None,
    rejects: RejectLog | None = None,
    check_all: CheckAll | None = None,
) -> Iterator[Demonstration]:
    """Prompts with a teacher's response; one that `parse` finds invalid is a bad row."""

    def demonstration(row: ParsedRow) -> Demonstration:
        text = read_visible_text(row.completion, row.completion_field)
        return Demonstration(row.prompt, _valid(parse(text), row.completion_field))

    return _read(path, _parse_row, demonstration, _COMPLETION_COLUMNS, _policy(path, image_root, rejects, check_all))


def read_pairs(
    path: Path | str,
    *,
    parse: Callable[[str], Response],
    image_root: Path | str | None = None,
    rejects: RejectLog | None = None,
    check_all: CheckAll | None = None,
) -> Iterator[ResponsePair]:
    """Warm-up pairs; both responses must be valid."""

    def pair(row: ParsedPair) -> ResponsePair:
        teacher = _valid(parse(row.teacher), "teacher_response")
        return ResponsePair(row.prompt, teacher, _valid(parse(row.student), "student_response"))

    policy = _policy(path, image_root, rejects, check_all)
    return _read(path, warmup_pairs.parse_row, pair, _PAIR_COLUMNS, policy)


def prompt_of(record: Record) -> Prompt:
    return record if isinstance(record, Prompt) else record.prompt


def check_images(record: Record) -> None:
    """Raises RowError for an image that cannot be decoded."""
    for image in prompt_of(record).images:
        try:
            open_image(image)
        except DataError as error:
            raise RowError("images", UNDECODABLE, str(error)) from None


def _policy(
    path: Path | str,
    image_root: Path | str | None,
    rejects: RejectLog | None,
    check_all: CheckAll | None,
) -> _Policy:
    root = Path(path).parent if image_root is None else Path(image_root)
    return _Policy(root, rejects, check_all)


def _example(row: ParsedRow) -> Example:
    return Example(row.prompt, read_visible_text(row.completion, row.completion_field), row.loss_spans)


def _valid(response: Response, field: str) -> Response:
    if not response.is_valid:
        raise RowError(field, f"is an invalid response: {response.reason}")
    return response


def _columns(row: Row) -> frozenset[str]:
    return frozenset(key for key, value in row.items() if value is not None)


def _parse_row(row: Row, image_root: Path) -> ParsedRow:
    for data_format in _FORMATS:
        if data_format.recognises(_columns(row)):
            return data_format.parse_row(row, image_root)
    raise RowError("row", "has neither prompt, messages nor conversations", f"found {', '.join(sorted(row)) or 'none'}")


def _read(
    path: Path | str,
    parse_row: Callable[[Row, Path], _Parsed],
    build: Callable[[_Parsed], _Record],
    columns: tuple[str, ...],
    policy: _Policy,
) -> Iterator[_Record]:
    """Open now, so that a wrong file fails at the call; `columns` are those of which parquet must have one."""
    file = open_rows(path)
    if file.columns is not None and file.columns.isdisjoint(columns):
        found = ", ".join(sorted(file.columns))
        raise DataError(f"{file.path}: none of the columns {', '.join(columns)}; found {found}")

    def outcome(row: RawRow) -> Outcome[_Record]:
        try:
            return Outcome(row.number, build(_without_bytes(parse_row(_fields(row), policy.image_root), row)))
        except RowError as error:
            return Outcome(row.number, error)

    outcomes = (outcome(row) for row in file.rows)
    checked = outcomes if policy.check_all is None else policy.check_all(outcomes)
    return _records(file.path, checked, policy.rejects)


def _without_bytes(parsed: _Parsed, row: RawRow) -> _Parsed:
    """With the places of images inside the file instead of their bytes: whoever keeps all rows keeps texts only."""
    if row.place is None or not parsed.prompt.images:
        return parsed
    images = row.place.released(parsed.prompt.images, row.value)
    return replace(parsed, prompt=replace(parsed.prompt, images=images))


def _records(path: Path, outcomes: Generator[Outcome[_Record]], rejects: RejectLog | None) -> Iterator[_Record]:
    num_rows = num_kept = 0
    first_error = ""
    with closing(outcomes):
        for number, content in outcomes:
            num_rows += 1
            if isinstance(content, RowError):
                if rejects is None:
                    raise content.at(path, number) from None
                rejects.add(path, number, content)
                first_error = first_error or f"row {number}: {content}"
                continue
            num_kept += 1
            yield content
    if not num_rows:
        raise DataError(f"{path}: the file has no rows")
    if not num_kept:
        raise DataError(f"{path}: all {num_rows} rows were rejected; {first_error}")


def _fields(row: RawRow) -> Row:
    if isinstance(row.value, RowError):
        raise row.value
    if not isinstance(row.value, dict):
        raise RowError("row", "is not an object", type(row.value).__name__)
    if is_too_deep(row.value):
        raise RowError("row", "is nested too deeply")
    return row.value
