"""The response format: exactly `<caption>…</caption><think>…</think><answer>…</answer>`, in this order.

Only whitespace may stand outside and between the three blocks, each block must hold something a reader
can see, and no further tag of the three may stand anywhere, not even inside a block: a second answer
hidden in the reasoning is an invalid response, never a choice between two answers.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple

from prism.records import Response

TAG_NAMES = ("caption", "think", "answer")


class FormatFailure(StrEnum):
    """Why a response is invalid; the first that applies, in this order."""

    MALFORMED_TAG = "malformed_tag"
    """A look-alike such as `<Answer>`, `< think >` or `<caption/>`."""
    MISSING_CAPTION = "missing_caption"
    MISSING_THINK = "missing_think"
    MISSING_ANSWER = "missing_answer"
    DUPLICATE_TAG = "duplicate_tag"
    UNBALANCED_TAG = "unbalanced_tag"
    """An opening tag without its closing tag, or the other way round."""
    WRONG_ORDER = "wrong_order"
    """Out of order, nested or crossing."""
    TEXT_OUTSIDE_TAGS = "text_outside_tags"
    EMPTY_CAPTION = "empty_caption"
    EMPTY_THINK = "empty_think"
    EMPTY_ANSWER = "empty_answer"


# Each run of spaces is entered from one "<" only and read once, so the search is linear in the text.
_TAG = re.compile(rf"<\s*(?:/\s*)?({'|'.join(TAG_NAMES)})\s*(?:/\s*)?>", re.IGNORECASE)
_TAGS_IN_ORDER = tuple(tag for name in TAG_NAMES for tag in (f"<{name}>", f"</{name}>"))


def parse_response(text: str) -> Response:
    """Split `text` into its three parts; `reason` of an invalid response is a `FormatFailure`.

    Spans are those of the stripped contents in `text`. Linear in the length of the text.
    """
    tags = list(_TAG.finditer(text))
    spans: list[tuple[int, int]] = []
    failure = _tag_failure([tag.group() for tag in tags])
    if failure is None:
        spans = [_stripped_span(text, tags[i].end(), tags[i + 1].start()) for i in (0, 2, 4)]
        failure = _content_failure(text, tags, spans)
    if failure is not None:
        return Response(text=text, is_valid=False, reason=failure)
    caption, think, answer = (text[start:end] for start, end in spans)
    return Response(
        text=text,
        is_valid=True,
        caption=caption,
        think=think,
        answer=answer,
        caption_span=spans[0],
        think_span=spans[1],
        answer_span=spans[2],
    )


class TokenSpans(NamedTuple):
    """Half-open ranges of token indices."""

    caption: tuple[int, int]
    think: tuple[int, int]
    answer: tuple[int, int]


def token_spans(response: Response, offsets: Sequence[tuple[int, int]]) -> TokenSpans | None:
    """The tokens of the three parts, None for an invalid response.

    `offsets` are start and end in characters of the response's tokens, as a tokenizer's offset mapping
    gives them. See `token_span` for tokens that straddle a tag's edge.
    """
    spans = (response.caption_span, response.think_span, response.answer_span)
    caption, think, answer = (None if span is None else token_span(span, offsets) for span in spans)
    return None if caption is None or think is None or answer is None else TokenSpans(caption, think, answer)


def token_span(span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The tokens that have at least one character in `span`, found by bisection.

    So a token that straddles an edge, such as `>A` before an answer, belongs to the span, and to both of
    two spans that meet within it. Every token of a character written with several tokens (an emoji, say)
    stands for that character. Neither starts nor ends of `offsets` may decrease.
    """
    start, end = span
    first = bisect_right(offsets, start, key=itemgetter(1))
    return first, max(first, bisect_left(offsets, end, key=itemgetter(0))) if start < end else first


def _tag_failure(tags: list[str]) -> FormatFailure | None:
    """What is wrong with the sequence of tags alone; None says it is the six tags in order."""
    counts = Counter(tags)
    if any(tag not in _TAGS_IN_ORDER for tag in counts):
        return FormatFailure.MALFORMED_TAG
    for name in TAG_NAMES:
        if not counts[f"<{name}>"] and not counts[f"</{name}>"]:
            return FormatFailure(f"missing_{name}")
    if max(counts.values()) > 1:
        return FormatFailure.DUPLICATE_TAG
    if len(counts) < len(_TAGS_IN_ORDER):
        return FormatFailure.UNBALANCED_TAG
    if tuple(tags) != _TAGS_IN_ORDER:
        return FormatFailure.WRONG_ORDER
    return None


def _content_failure(text: str, tags: list[re.Match[str]], spans: list[tuple[int, int]]) -> FormatFailure | None:
    edges = [0, *(edge for tag in tags for edge in tag.span()), len(text)]
    # edges[0:2] lies before the caption, edges[4:6] and edges[8:10] between blocks, edges[12:14] after the answer.
    if any(text[edges[i] : edges[i + 1]].strip() for i in (0, 4, 8, 12)):
        return FormatFailure.TEXT_OUTSIDE_TAGS
    for name, (start, end) in zip(TAG_NAMES, spans, strict=True):
        if not _is_visible(text[start:end]):
            return FormatFailure(f"empty_{name}")
    return None


def _stripped_span(text: str, start: int, end: int) -> tuple[int, int]:
    content = text[start:end]
    left = len(content) - len(content.lstrip())
    return start + left, max(start + left, start + len(content.rstrip()))


def _is_visible(content: str) -> bool:
    """False also for zero-width and control characters, which str.strip leaves standing."""
    return any(character.isprintable() and not character.isspace() for character in content)
