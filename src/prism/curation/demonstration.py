"""The one demonstration of a row, whoever wrote it."""

from dataclasses import dataclass

from prism.curation.rows import Row
from prism.records import Example

NO_REPLY = "may have been paid for, and no reply has arrived"
REQUEST_FAILED = "request failed"
"""How `teach` names the failures that are not the teacher's; behind the latter it says of which kind."""


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """`is_repaired`: the teacher's format was wrong at first; None where nobody knows. So with `is_verified`: some
    step has looked at the answer and kept it. `agreement` is the share of the teacher's samples that are right, those
    without an answer included; `num_from_nowhere` the numbers in the reasoning that rest on nothing."""

    text: str
    loss_spans: tuple[tuple[int, int], ...] | None = None
    is_verified: bool = False
    is_repaired: bool | None = None
    agreement: float | None = None
    num_from_nowhere: int = 0


def demonstration(row: Row) -> Demonstrated | None:
    """What `verify` has chosen, else the demonstration that the row came with, else the teacher's first sample."""
    verified = row.findings.get("verify", {})
    samples = row.findings.get("teach", {}).get("samples", ())
    repaired = {sample["text"]: bool(sample["is_repaired"]) for sample in samples}
    text = verified.get("text") or row.completion or next(iter(repaired), None)
    if text is None:
        return None
    verdicts = verified.get("verdicts", {})
    num_samples = sum(verdicts.values()) + num_failed_samples(row)
    return Demonstrated(
        text,
        loss_spans=row.loss_spans if text == row.completion else None,
        is_verified=bool(verified),
        is_repaired=repaired.get(text),
        agreement=verdicts.get("correct", 0) / num_samples if verdicts else None,
        num_from_nowhere=len(verified.get("from_nowhere", ())),
    )


def num_failed_samples(row: Row) -> int:
    """How many of the teacher's samples came to nothing: truncated, refused, malformed or ended otherwise. Where no
    answer arrived, there is no sample."""
    failures = row.findings.get("teach", {}).get("failures", {})
    return sum(count for failure, count in failures.items() if not failure.startswith((NO_REPLY, REQUEST_FAILED)))


def example(row: Row) -> Example | None:
    found = demonstration(row)
    return None if found is None else Example(row.prompt, found.text, found.loss_spans)
