"""The one demonstration of a row, whoever wrote it."""

from dataclasses import dataclass

from prism.curation.rows import Row
from prism.records import Example


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """`is_repaired`: the teacher's format was wrong at first; None where nobody knows. So with `is_verified`: some
    step has looked at the answer and kept it. `agreement` is the share of the teacher's samples that are right,
    `num_from_nowhere` the numbers in the reasoning that rest on nothing."""

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
    return Demonstrated(
        text,
        loss_spans=row.loss_spans if text == row.completion else None,
        is_verified=bool(verified),
        is_repaired=repaired.get(text),
        agreement=verdicts.get("correct", 0) / sum(verdicts.values()) if verdicts else None,
        num_from_nowhere=len(verified.get("from_nowhere", ())),
    )


def example(row: Row) -> Example | None:
    found = demonstration(row)
    return None if found is None else Example(row.prompt, found.text, found.loss_spans)
