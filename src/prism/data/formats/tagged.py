"""Whole responses from their separate parts, for files that keep description and reasoning apart."""

from prism.data.formats.fields import Row, read_answer, read_response_text, read_visible_text
from prism.data.rejects import RowError


def read_response(row: Row, author: str, answer: str) -> str | None:
    """`{author}_response`, or the text composed of `{author}_caption` and `{author}_cot`; None without either.

    The answer is the one in the reasoning, else `{author}_answer`, else `answer`. Raises RowError where a part
    is empty or has an image mark, or no answer is known.
    """
    field = f"{author}_response"
    if row.get(field) is not None:
        return read_response_text(row[field], field)
    caption_field, cot_field = f"{author}_caption", f"{author}_cot"
    if row.get(caption_field) is None and row.get(cot_field) is None:
        return None
    caption = read_visible_text(row.get(caption_field), caption_field)
    cot = read_visible_text(row.get(cot_field), cot_field)
    own_answer = read_answer(row.get(f"{author}_answer"), f"{author}_answer")
    return read_response_text(compose_response(caption, cot, own_answer or answer, cot_field), field)


def compose_response(caption: str, cot: str, answer: str, cot_field: str = "cot") -> str:
    """Tags are added where the parts do not have them already."""
    if "<caption>" not in caption:
        caption = f"<caption>{caption.strip()}</caption>"
    if "<think>" not in cot:
        reasoning, tag, rest = cot.partition("<answer>")
        cot = f"<think>{reasoning.strip()}</think>{tag}{rest}"
    if "<answer>" not in cot:
        if not answer:
            raise RowError(cot_field, "has no answer, nor has the row")
        cot = f"{cot}<answer>{answer}</answer>"
    return caption + cot
