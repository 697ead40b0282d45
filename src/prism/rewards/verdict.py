"""Verdicts on answers, the rules that decide them, and their counts."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from prism.rewards.symbolic import SymbolicCounts

VerdictName = Literal["correct", "wrong", "unverifiable"]
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)


class Rule(StrEnum):
    """What decided. The last five never decide between correct and wrong: they make an answer unverifiable,
    but for `too long`, where equal texts are still correct."""

    FORMAT = "format"
    """The response has not the format, so it gives no answer: wrong."""
    NO_PREDICTION = "no prediction"
    """Nothing to compare: an empty answer is wrong."""
    EXTRA_TAG = "extra tag"
    """The answer holds a further caption, think or answer tag: wrong."""
    TEXT = "text"
    """The same words up to case, article, plural and typesetting; or different words, and no other rule applies."""
    CHOICE = "choice"
    """The option that the answer commits to, by letter or by the option's text."""
    YES_NO = "yes-no"
    QUANTITY = "quantity"
    """Two numbers, with or without units."""
    TIME = "time"
    """Two clock times or two calendar dates."""
    STRUCTURE = "structure"
    """Lists, tuples, sets, intervals, ratios and parts, member by member."""
    ALGEBRA = "algebra"
    """Formulas, by exact arithmetic here or by computer algebra in the worker process."""
    NO_GROUND_TRUTH = "no ground truth"
    UNREADABLE = "unreadable"
    """The ground truth is a formula that nobody here can read."""
    TOO_LONG = "too long"
    TIMEOUT = "timeout"
    CHECKER_ERROR = "checker error"
    """The worker process raised or died."""


class Verdict(str):
    """One of "correct", "wrong" and "unverifiable", and equal to that string; `rule` says what decided."""

    __slots__ = ("rule",)
    rule: Rule

    def __new__(cls, name: VerdictName, rule: Rule) -> "Verdict":
        verdict = super().__new__(cls, name)
        verdict.rule = rule
        return verdict

    def __getnewargs__(self) -> tuple[str, Rule]:
        return str(self), self.rule

    @property
    def is_correct(self) -> bool:
        return self == "correct"

    @property
    def is_unverifiable(self) -> bool:
        return self == "unverifiable"


@dataclass(frozen=True, slots=True)
class VerifierCounts:
    """Counts since the process began: verdicts, the rules that decided, and what the slow path met."""

    correct: int
    wrong: int
    unverifiable: int
    by_rule: Mapping[str, int]
    symbolic: SymbolicCounts


class Tally:
    """Counts verdicts; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: dict[str, int] = dict.fromkeys(VERDICTS, 0)
        self._rules: dict[str, int] = dict.fromkeys(map(str, Rule), 0)

    def add(self, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[verdict] += 1
            self._rules[verdict.rule] += 1

    def counts(self, symbolic: SymbolicCounts) -> VerifierCounts:
        with self._lock:
            return VerifierCounts(**self._verdicts, by_rule=dict(self._rules), symbolic=symbolic)
