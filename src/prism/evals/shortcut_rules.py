"""What the accuracies of trivial features mean: artefacts, which are flags, and differences that may be real.

Every rule gives a finding. A *flag* names an artefact: something at the edges of the texts, constant, or
nearly perfect, that is there however well a text describes or reasons. A *warning* says that a statistic
tells the sides apart which a real difference moves as well, such as the words of poorer descriptions: to
repair that difference is what the game is for.

    name               flag where                                                           warning where
    end-token          the token the score is read on, or how often it is repeated,
                       tells 55% of pairs
    truncated-teacher  whether a text is cut tells 55%, more of the teacher's being cut,
                       and these have one common largest length or the teacher's texts
                       are the shorter ones
    filler             a phrase that 90% of the teacher's texts hold tells 85%, or half
                       of the pairs show one and the same surplus of words on the
                       teacher's side
    format             blanks at the edges, validity, the first or last character or        60%
                       token tells 85%
    length             characters, words or tokens tell 85%                                 75% (*)
    counts             lines, bullets or items tell 85%                                     75% (*)
    texture            never: digits or variety of words                                    75% (*)
    combined, ngrams   never: a linear model of all features, or of n-grams                 75% (*)

"Tells" means that the lower 95% limit lies above the share. Where the discriminator's accuracy is known,
a warning with a (*) must also explain it: its lower limit is higher, or less than five points lower. Flags
need not: an artefact that the discriminator has not found yet it finds once the game has repaired what it
looks at now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prism.evals.statistics import Interval

EDGE_SHARE, PERFECT_SHARE = 0.55, 0.85
"""An accuracy whose lower limit is above these raises a flag: at the edges, and of anything that could also be real."""
FORMAT_SHARE, SHORTCUT_SHARE = 0.6, 0.75
"""The same for warnings."""
NEVER = 1.0
SURPLUS_SHARE = 0.5
CAPPED_SHARE = 0.5
NEAR_DISCRIMINATOR = 0.05

Severity = Literal["ok", "warning", "flag"]
LENGTH = ("characters", "words", "tokens")
FORMAT = ("outer_blanks", "valid_format", "first_character", "last_character", "first_token", "last_token")
COUNTS = ("lines", "bullets", "items")
TEXTURE = ("digits", "distinct_words")


@dataclass(frozen=True, slots=True)
class FeatureResult:
    """`accuracy` as above. Of all pairs, for numbers only: the share in which the teacher's value is the
    higher one, ties counting half, and both sides' means."""

    accuracy: Interval
    teacher_higher: float | None = None
    teacher_mean: float | None = None
    rollout_mean: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found: `feature` is the one that tells the most. `limit` is the share above which its lower limit
    raises what `severity` says; of an "ok", a flag, or a warning where no flag can be raised."""

    name: str
    view: str
    severity: Severity
    feature: str
    accuracy: Interval
    limit: float
    message: str


class Rules:
    """The rules of this module's table, applied to the features of one view, all of which must be there."""

    def __init__(self, view: str, features: Mapping[str, FeatureResult], discriminator_accuracy: float | None) -> None:
        self._view = view
        self._features = features
        self._explained_from = None if discriminator_accuracy is None else discriminator_accuracy - NEAR_DISCRIMINATOR

    def findings(self, phrase: str | None, capped_share: float | None) -> list[Finding]:
        end_token = self._finding("end-token", "end_token", EDGE_SHARE, "the end token")
        truncated, filler = self._truncated(capped_share), self._filler(phrase)
        # A cut changes the last character too, a stock phrase perhaps the first: one artefact has one name.
        named = ("last_token",) if end_token.severity == "flag" else ()
        if "flag" in (truncated.severity, filler.severity):
            named = FORMAT
        edge = self._best([name for name in FORMAT if name not in named] or FORMAT)
        form = self._finding("format", edge, PERFECT_SHARE, f"the {edge.replace('_', ' ')}", warn_from=FORMAT_SHARE)
        return [
            end_token,
            truncated,
            filler,
            replace(form, severity="ok") if named == FORMAT else form,
            self._amount("length", LENGTH, "longer in {}", "shorter in {}"),
            self._amount("counts", COUNTS, "richer in {}", "poorer in {}"),
            self._amount("texture", TEXTURE, "richer in {}", "poorer in {}", flag_from=NEVER),
            self._model("combined", "all features together"),
            self._model("ngrams", "n-grams"),
        ]

    def _truncated(self, capped_share: float | None) -> Finding:
        what = f"that the teacher's texts are cut{_cap(capped_share)}"
        found = self._finding("truncated-teacher", "cut", EDGE_SHARE, what)
        is_shorter = self._tells("characters", EDGE_SHARE) and not self._teacher_has_more("characters")
        is_cut = self._teacher_has_more("cut") and (is_shorter or (capped_share or 0.0) >= CAPPED_SHARE)
        return found if is_cut else replace(found, severity="ok")

    def _filler(self, phrase: str | None) -> Finding:
        surplus = self._finding(
            "filler", "constant_surplus", SURPLUS_SHARE, "a constant surplus of words in the teacher's texts"
        )
        by_phrase = self._finding("filler", "phrase", PERFECT_SHARE, f"the teacher's phrase {phrase!r}")
        return surplus if surplus.severity == "flag" and by_phrase.severity == "ok" else by_phrase

    def _amount(
        self, name: str, features: Sequence[str], more: str, less: str, *, flag_from: float = PERFECT_SHARE
    ) -> Finding:
        feature = self._best(features)
        how = (more if self._teacher_has_more(feature) else less).format(feature.replace("_", " "))
        what = f"that the teacher's texts are {how}"
        return self._finding(name, feature, flag_from, what, warn_from=SHORTCUT_SHARE, must_explain=True)

    def _model(self, name: str, what: str) -> Finding:
        return self._finding(name, name, NEVER, what, warn_from=SHORTCUT_SHARE, must_explain=True)

    def _tells(self, feature: str, share: float) -> bool:
        return (self._features[feature].accuracy.low or 0.0) > share

    def _best(self, features: Sequence[str]) -> str:
        return max(features, key=lambda feature: self._features[feature].accuracy.low or 0.0)

    def _teacher_has_more(self, feature: str) -> bool:
        return (self._features[feature].teacher_higher or 0.0) > 0.5

    def _explains(self, feature: str) -> bool:
        return self._explained_from is None or (self._features[feature].accuracy.low or 0.0) >= self._explained_from

    def _finding(
        self,
        name: str,
        feature: str,
        flag_from: float,
        what: str,
        *,
        warn_from: float | None = None,
        must_explain: bool = False,
    ) -> Finding:
        severity: Severity = "ok"
        if self._tells(feature, flag_from):
            severity = "flag"
        elif (
            warn_from is not None and self._tells(feature, warn_from) and (not must_explain or self._explains(feature))
        ):
            severity = "warning"
        accuracy = self._features[feature].accuracy
        told = "is found" if feature == "constant_surplus" else "alone tells teacher from rollout"
        message = f"{self._view}: {what} {told} in {accuracy.mean or 0.0:.0%} of pairs ({_limits(accuracy)})"
        limit = flag_from
        if warn_from is not None and (severity == "warning" or flag_from >= NEVER):
            limit = warn_from
        return Finding(name, self._view, severity, feature, accuracy, limit, message)


def _limits(accuracy: Interval) -> str:
    prompts = f"{accuracy.count} prompts"
    if accuracy.low is None or accuracy.high is None:
        return prompts
    return f"95% limits {accuracy.low:.0%} to {accuracy.high:.0%}, {prompts}"


def _cap(capped_share: float | None) -> str:
    share = capped_share or 0.0
    return f" ({share:.0%} of these at one common largest length)" if share >= CAPPED_SHARE else ""
