r"""Which answer a response gives: the paper's rules, and stricter ones for the profile `strict`.

The strict rules read, in this order: every answer tag outside the reasoning (a tag that was cut off counts
up to the end), the last `\boxed{…}` with its neighbours in the same sentence, what a text without either
states (see `statements`). Tags and boxes that differ are each checked: where they do not get the same verdict
the response contradicts itself, and no rule and no judge can say which of them it means.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from prism.evals.benchmarks.answer_kinds import ANY_ANSWER, kind_of
from prism.evals.benchmarks.benchmark import Score
from prism.evals.benchmarks.statements import NO_ANSWER, AnswerKind, score_statements, statements
from prism.rewards import verify_answer

_HIDDEN_BLOCKS = ("think", "analysis")
_MAX_ANSWERS = 8
"""A response with more different answers than this contradicts itself, whatever they are."""
_ANSWER_EDGE = re.compile(r"<\s*(/\s*)?answer\s*>", re.IGNORECASE)
_END_OF_REASONING = re.compile(r"</(?:think|analysis|caption)>")
_START_OF_REASONING = re.compile(r"<(?:think|analysis|caption)>")
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BETWEEN_SENTENCES = re.compile(r"\n|[.;]\s")
_DOUBT = re.compile(r"\b(?:not|or|neither|either)\b|n't\b", re.IGNORECASE)


def without_reasoning(response: str) -> str:
    """The response without its complete think and analysis blocks, stripped; an unclosed block stays."""
    for name in _HIDDEN_BLOCKS:
        response = _without_blocks(response, f"<{name}>", f"</{name}>")
    return response.strip()


def _without_blocks(text: str, opening: str, closing: str) -> str:
    kept, position = [], 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def first_answer_tag(text: str) -> str | None:
    """What stands between the first pair of answer tags, stripped; None where there is no such pair."""
    start = text.find("<answer>")
    end = text.find("</answer>", start)
    return text[start + len("<answer>") : end].strip() if 0 <= start < end else None


def stated_answers(response: str) -> tuple[str, ...]:
    """The distinct answers a response states outside its reasoning; several where answer tags or boxes differ.

    Empty where it states none: nothing but reasoning, or only empty tags.
    """
    text = _outside_reasoning(response)
    marked = _marked(text)
    return tuple(statements(_ANSWER_EDGE.sub("\n", text), ANY_ANSWER)[0]) if marked is None else marked


def score_stated(response: str, check: Callable[[str], Score], kind: AnswerKind = ANY_ANSWER) -> Score:
    """What `check` makes of the answer a response states; of several, what it makes of all of them alike.

    `kind` tells how an answer without tags and boxes is stated.
    """
    text = _outside_reasoning(response)
    answers = _marked(text)
    if answers is None:
        return score_statements(_ANSWER_EDGE.sub("\n", text), check, kind)
    if not answers:
        return NO_ANSWER
    scores = [check(answer) for answer in answers[:_MAX_ANSWERS]]
    if len({(score.is_correct, score.needs_judge) for score in scores}) > 1 or len(answers) > _MAX_ANSWERS:
        return Score(None, "contradicting_answers", " | ".join(answers[:_MAX_ANSWERS]))
    return scores[-1]


def score_verified(
    response: str, ground_truth: str, *, equivalents: Sequence[str] = (), choices: Sequence[str] | None = None
) -> Score:
    """The verifier's verdict on the answer a response states."""

    def check(answer: str) -> Score:
        return verified(answer, ground_truth, equivalents=equivalents, choices=choices)

    return score_stated(response, check, kind_of([ground_truth, *equivalents], choices))


def verified(
    answer: str, ground_truth: str, *, equivalents: Sequence[str] = (), choices: Sequence[str] | None = None
) -> Score:
    """The verifier's verdict as a score; what it cannot decide is left to a judge."""
    verdict = verify_answer(answer, ground_truth, equivalents=equivalents, choices=choices)
    if verdict.is_unverifiable:
        return Score(None, verdict.rule, answer, needs_judge=True)
    return Score(verdict.is_correct, verdict.rule, answer)


def _outside_reasoning(response: str) -> str:
    """The text outside caption, think and analysis blocks.

    An end without a beginning closes a block that began in the prompt. A beginning without an end hides
    what follows, up to an answer tag.
    """
    for name in (*_HIDDEN_BLOCKS, "caption"):
        response = _without_blocks(response, f"<{name}>", f"</{name}>")
    text = _END_OF_REASONING.split(response)[-1]
    opened = _START_OF_REASONING.search(text)
    if opened:
        answer = _ANSWER_EDGE.search(text, opened.end())
        text = text[: opened.start()] + "\n" + (text[answer.start() :] if answer else "")
    return text.strip()


def _tagged(text: str) -> list[str] | None:
    """The contents of all answer tags, each up to the next tag or the end of the text; None where no tag opens."""
    edges = list(_ANSWER_EDGE.finditer(text))
    if all(edge[1] for edge in edges):
        return None
    ends = [*(edge.start() for edge in edges[1:]), len(text)]
    return [text[edge.end() : end].strip() for edge, end in zip(edges, ends, strict=True) if not edge[1]]


def _marked(text: str) -> tuple[str, ...] | None:
    """The distinct answers in tags, else in the last boxes; None where there are neither."""
    tagged = _tagged(text)
    if tagged is not None:
        return _distinct(_unboxed(answer) for answer in tagged)
    boxes = _boxes(text)
    return _distinct(_last_boxes(text, boxes)) if boxes else None


def _distinct(answers: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(answer for answer in answers if answer))


def _boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Start, end and content of every complete `\boxed{…}` that stands in no other; linear in the text."""
    opened: list[re.Match[str]] = []
    boxes: list[tuple[int, int, str]] = []
    for brace in _BRACE.finditer(text):
        if brace.group().endswith("{") and brace.group() != r"\{":
            opened.append(brace)
        elif brace.group() == "}" and opened:
            opening = opened.pop()
            if opening.group() != "{":
                while boxes and boxes[-1][0] > opening.start():
                    boxes.pop()
                boxes.append((opening.start(), brace.end(), text[opening.end() : brace.start()].strip()))
    return boxes


def _last_boxes(text: str, boxes: Sequence[tuple[int, int, str]]) -> list[str]:
    """The last box and those before it in the same sentence."""
    first = len(boxes) - 1
    while first and not _BETWEEN_SENTENCES.search(text, boxes[first - 1][1], boxes[first][0]):
        first -= 1
    return [content for _, _, content in boxes[first:]]


def _unboxed(answer: str) -> str:
    """The box that a sentence inside an answer tag ends with; any other content as it is."""
    boxes = _boxes(answer)
    if len(boxes) == 1:
        start, end, content = boxes[0]
        if not answer[end:].strip(" \n.$*)]\\") and not _DOUBT.search(answer, 0, start):
            return content
    return answer
