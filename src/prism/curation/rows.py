"""What a step of curation sees and says: rows in, one outcome per row out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from prism.records import Prompt

Status = Literal["kept", "dropped", "passed"]

STUDENT = "student_response"
"""Where the metadata of a row that was imported as a pair has the student's text."""

NUM_IN_DOUBT = "in_doubt"
"""Among findings: how many requests for the row may have been paid for without a reply. Only where there are any."""

NUM_UNANSWERED = "unanswered"
"""Among findings: how many requests for the row were sent as often as the recipe allows and neither answered nor
refused. Only where there are any. The outcome holds until the step runs again, which sends them again."""


@dataclass(frozen=True, slots=True)
class Row:
    """A problem on its way through the steps.

    `id` is unique in the store: the name of the row's source, a slash, and `prompt.id`. `completion` is the
    demonstration the row was imported with, if it had one. `findings` holds what each step before said of
    the row, by the step's name.
    """

    id: str
    prompt: Prompt
    completion: str | None = None
    loss_spans: tuple[tuple[int, int], ...] | None = None
    findings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step says of one row; made by `kept`, `dropped` or `passed`.

    `reason` is a fixed phrase that can be counted, `detail` this row's case of it. `findings` (JSON) is what
    the steps after read under this step's name; of a dropped row it is the evidence.
    """

    row_id: str
    status: Status
    reason: str | None = None
    detail: str | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)


def kept(row: Row, **findings: Any) -> Outcome:
    """The row goes on, with `findings`."""
    return Outcome(row.id, "kept", findings=findings)


def dropped(row: Row, reason: str, detail: str | None = None, **evidence: Any) -> Outcome:
    """The row ends here."""
    return Outcome(row.id, "dropped", reason, detail, evidence)


def passed(row: Row, reason: str, **findings: Any) -> Outcome:
    """The row goes on, but is none of this step's business; `reason` says why."""
    return Outcome(row.id, "passed", reason, findings=findings)


def doubts(num_in_doubt: int, num_unanswered: int = 0) -> dict[str, int]:
    """The findings `NUM_IN_DOUBT` and `NUM_UNANSWERED`, as far as there are such requests."""
    counts = {NUM_IN_DOUBT: num_in_doubt, NUM_UNANSWERED: num_unanswered}
    return {name: count for name, count in counts.items() if count}


class Step(Protocol):
    """Looks at each row by itself and knows nothing of files or processes.

    `settings` (JSON) is everything that decides the outcomes: rows that have an outcome under the same settings
    are not looked at again, but for those with requests that nobody answered (`NUM_UNANSWERED`).
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        """One outcome for each row, in any order. `rows` is lazy: take no more of them than are being worked on."""
        ...


class WholeStep(Protocol):
    """Has to see all rows before it can decide on any: first a feature of each row, then the outcomes of all.

    Only features are held together, so they should be small: hashes, not texts.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def describe(self, rows: Iterator[Row]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The id of each row with its feature (JSON), in any order; spread over processes."""
        ...

    def decide(self, features: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Outcome]:
        """One outcome for each of all rows, which may be read more than once; in one process.

        The features come in an order that does not depend on how the rows were spread: that of their ids' hashes
        within fixed shards, then of import.
        """
        ...
