"""How often models solve a problem, and which set that puts it into. Sampling may end when nothing can change that."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from prism.evals.statistics import wilson_interval
from prism.rewards import Verdict

ProblemSet = Literal["hard", "between", "rl", "easy"]
"""`hard`: no model ever solves it. `rl`: the first model's pass rate lies in the band; `easy`: above it; `between`:
below it, or another model solves what the first never does."""

_Class = Literal["never", "seldom", "band", "often"]
_SETS: dict[_Class, ProblemSet] = {"never": "hard", "seldom": "between", "band": "rl", "often": "easy"}
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Band:
    """Pass rates from `low` to `high`, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Tries:
    """One model's samples of one problem so far. Nobody knows whether an unverifiable one is right."""

    num_correct: int = 0
    num_wrong: int = 0
    num_unverifiable: int = 0
    num_in_doubt: int = 0
    """Of the unverifiable ones: replies that were lost, and may have been paid for."""
    num_unanswered: int = 0
    """Of the unverifiable ones: requests that nobody answered."""

    def add(self, verdict: Verdict, *, is_in_doubt: bool = False, is_unanswered: bool = False) -> "Tries":
        return Tries(
            self.num_correct + verdict.is_correct,
            self.num_wrong + (verdict == "wrong"),
            self.num_unverifiable + verdict.is_unverifiable,
            self.num_in_doubt + is_in_doubt,
            self.num_unanswered + is_unanswered,
        )

    @property
    def num_samples(self) -> int:
        """Those that were decided."""
        return self.num_correct + self.num_wrong

    def to_dict(self) -> dict[str, float | int | None]:
        """With the pass rate among decided samples and Wilson's 95% interval of it; None without any.

        Where sampling ended early, the rate leans to the side that it ended on.
        """
        interval = wilson_interval(self.num_correct, self.num_samples)
        return {
            "num_correct": self.num_correct,
            "num_samples": self.num_samples,
            "num_unverifiable": self.num_unverifiable,
            "pass_rate": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }


def set_of_first(tries: Tries, num_planned: int, band: Band) -> ProblemSet | None:
    """The set by the model to be trained, `hard` if it alone is asked; None while samples not yet drawn, or ones that
    cannot be verified, could put it into another.

    The same as after all `num_planned` samples, whenever it is not None.
    """
    classes = set(_possible_classes(tries, num_planned, band))
    return _SETS[classes.pop()] if len(classes) == 1 else None


def is_never_solved(tries: Tries, num_planned: int) -> bool | None:
    """Whether another model never solves the problem; None while that is open."""
    if tries.num_correct:
        return False
    return True if tries.num_wrong == num_planned else None


def _possible_classes(tries: Tries, num_planned: int, band: Band) -> Iterator[_Class]:
    """Those of every number of correct samples that there can be at the end."""
    for num_correct in range(tries.num_correct, num_planned - tries.num_wrong + 1):
        rate = num_correct / num_planned
        if num_correct == 0:
            yield "never"
        elif rate < band.low - _ROUNDING:
            yield "seldom"
        else:
            yield "band" if rate <= band.high + _ROUNDING else "often"
