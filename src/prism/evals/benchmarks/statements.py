"""Which sentence of a text without tags and boxes states its answer.

In this order: the last sentence that announces an answer ("the answer is", "so we choose B"), as long as nothing
behind it takes it back; what is nothing but an answer, such as a first line "C. 30" with an explanation behind it,
together with what the text concludes. What these are depends on the kind of answer (see `answer_kinds`). A text that
states none of them, or several that do not get the same verdict, is left to a judge.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, Protocol

from prism.evals.benchmarks.benchmark import Score
from prism.rewards.answer import MAX_ANSWER_CHARS

Trust = Literal["clear", "doubtful", "taken_back"]

NO_ANSWER = Score(False, "no_answer")


class Sentence(NamedTuple):
    """`is_line` says that nothing else stands on its line."""

    text: str
    is_line: bool


class AnswerKind(Protocol):
    """How answers of one kind are stated: an option, yes or no, a value, words."""

    credits_doubtful: bool
    """Whether a last sentence that may be no answer at all counts as right where the rules call it so."""

    def announces(self, sentence: str) -> re.Match[str] | None:
        """How a sentence announces an answer in the manner of this kind, without the word "answer"."""
        ...

    def names(self, statement: str) -> bool:
        """Whether an announcement names an answer, right or wrong."""
        ...

    def stated(self, sentences: Sequence[Sentence]) -> list[str]:
        """What states the answer of a text without an announcement; empty where that is unclear."""
        ...


_MAX_SENTENCES = 500
_DECORATION = re.compile(r"(?:[\s>#•●▪◦✅✔☑✓👉➡🎯⭐🔹🔸💡📌️‍]|[-–—+*](?=\s))+")
_COURTESY = re.compile(
    r"(?:i )?hope (?:this|that|it)|(?:please )?(?:let me know|feel free)|if you (?:have|need) (?:any|more|further)",
    re.IGNORECASE,
)
_RULER = re.compile(r"[\s*#$_=~-]*|\\[\[\]]")
# "B. 45°" and "**B. 45°**" stay one sentence: a label is not the end of one. Nor is an abbreviation.
_SENTENCE_END = re.compile(
    r"(?<!^\w\.)(?<!^\(\w\)\.)(?<!\*\w\.)(?<!\*\(\w\)\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bapprox\.)(?<!\bvs\.)(?<!\b[Ff]ig\.)"
    r"(?:(?<=[.!?])[*_\"”]*\s+(?![a-z])|(?<=。))"
)
_ANNOUNCES = re.compile(
    r"\banswer\b(?! (?:choices|options)\b)(?:,[^,.]{0,40},)?[^,.]{0,40}?"
    r"(?:\b(?:is|must be|should be|would be)\b|[:=]| [-–—] )|答案|(?<!不)选(?!项(?![是为:：]))",
    re.IGNORECASE,
)
_HEADING = re.compile(r"[*_]*(?:the |my )?(?:final |correct |right |best )?answer[*_]*", re.IGNORECASE)
# Looked for up to the end of the announcement: what its own clause begins with.
_NO_ANNOUNCEMENT = re.compile(
    r"\b(?:if|whether|unless|suppose|assuming)\b[^,.]{0,40}\b(?:answer|option|choice)\b[^,;.]*$"
    r"|\b(?:to|for|before|by) \w+ (?:the|our|my|this|an) (?:\w+ )?answer\b[^,;.]*$"
    r"|\b(?:one|you|someone|some|many|people|students?) (?:might|may|could|would|will|often)\b[^,;.]*$"
    r"|\b(?:might|first|initially|originally) (?:think|thought|assume|guess|expect)[^,;.]*$"
    r"|\b(?:mistake|error|wrong|incorrect|tempting|trap|another)\b[^,;.]*$",
    re.IGNORECASE,
)
_IS_QUESTION = re.compile(r"\?\W*$")
_REMARK_ON_ANSWER = re.compile(
    r"\banswer\b[^.\n]{0,40}?\b(?:is|must be|should be|would be)\s+(?:(?:therefore|thus|indeed|also|then|clearly)\s+)?"
    r"(?:not|correct|right|clear|reasonable|consistent|verified|confirmed|valid|obvious|unique|based|found|given|derived"
    r"|supported|because|among|one of|wrong|incorrect|false|too|impossible|invalid|excluded)\b"
    r"|\banswer (?:isn't|cannot|can't)",
    re.IGNORECASE,
)
_DENIES = re.compile(r"\b(?:not|never|cannot)\b|n't\b|不")
_IS_CONTINUED = re.compile(r"(?:[:=]|\b(?:is|be))[\s*_]*$", re.IGNORECASE)
_TAKES_BACK = re.compile(
    r"\W*(?:wait|hold on|oops|sorry|correction|on second thoughts?|(?:i|we) made an? (?:mistake|error)|actually, no"
    r"|(?:no, )?(?:that|this|(?:my|the|that|this) (?:\w+ )?answer)(?:'s| is| was)"
    r" (?:wrong|incorrect|not right|a mistake))\b",
    re.IGNORECASE,
)


def statements(text: str, kind: AnswerKind) -> tuple[list[str], Trust]:
    """The sentences that state the answer of `text`, none where it is empty, and how far they do."""
    sentences = _sentences(text)
    announced = _announced([sentence.text for sentence in sentences], kind)
    if announced:
        return announced
    stated = kind.stated(sentences)
    if not stated:
        return [sentence.text for sentence in sentences[-1:]], "doubtful"
    is_taken_back = stated != [sentences[-1].text] and any(_TAKES_BACK.match(text) for text, _ in sentences)
    return stated, "taken_back" if is_taken_back else "clear"


def score_statements(text: str, check: Callable[[str], Score], kind: AnswerKind) -> Score:
    """What `check` makes of the statements; unclear or contradicting ones are for a judge."""
    found, trust = statements(text, kind)
    if not found:
        return NO_ANSWER
    scores = [check(statement) for statement in found]
    if len({(score.is_correct, score.needs_judge) for score in scores}) > 1:
        return Score(None, "contradicting_answers", " | ".join(found), needs_judge=True)
    score = scores[-1]
    if trust == "clear" or (trust == "doubtful" and score.is_correct and kind.credits_doubtful):
        return score
    return replace(score, is_correct=False, rule="no_clear_answer", needs_judge=True)


def _sentences(text: str) -> list[Sentence]:
    """Without courtesies at the end; of runaway text the first sentence and the end."""
    found: list[Sentence] = []
    for line in text.splitlines():
        decoration = _DECORATION.match(line)
        bare = line[decoration.end() :] if decoration else line
        line = bare if any(map(str.isalnum, bare)) else line
        parts = [part.strip()[-MAX_ANSWER_CHARS:] for part in _SENTENCE_END.split(line.strip())]
        parts = [part for part in parts if not _RULER.fullmatch(part) and not (found and _COURTESY.match(part))]
        found += [Sentence(part, len(parts) == 1) for part in parts]
    return found if len(found) <= _MAX_SENTENCES else [found[0], *found[-_MAX_SENTENCES:]]


def _announced(sentences: Sequence[str], kind: AnswerKind) -> tuple[list[str], Trust] | None:
    """The last announcement, with what follows its colon or heading; doubtful where it names no answer.
    None where there is none."""
    for index in range(len(sentences) - 1, -1, -1):
        sentence = sentences[index]
        is_heading = _HEADING.fullmatch(sentence) is not None
        announcement = _ANNOUNCES.search(sentence) or kind.announces(sentence)
        if not (is_heading or announcement) or _IS_QUESTION.search(sentence):
            continue
        if announcement and _NO_ANNOUNCEMENT.search(sentence, 0, announcement.end()):
            continue
        end = index + 1 + bool(is_heading or _IS_CONTINUED.search(sentence))
        statement = (": " if is_heading else " ").join(sentences[index:end])
        if announcement and not kind.names(statement) and not _DENIES.search(statement, 0, announcement.end()):
            statement = statement[announcement.end() :].strip() or statement
        names = kind.names(statement)
        if names or not _REMARK_ON_ANSWER.search(sentence):
            is_taken_back = any(map(_TAKES_BACK.match, sentences[end:]))
            return [statement], "taken_back" if is_taken_back else "clear" if names else "doubtful"
    return None
