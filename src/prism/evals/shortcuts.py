"""What trivial features alone tell of who wrote a text: the teacher, or the policy in a rollout.

A discriminator that wins by an end token, a cut or a stock phrase teaches the policy that token, cut or
phrase. So each feature that needs no understanding plays the discriminator's game by itself, on the same
pairs. Its accuracy is the share of pairs in which it points to the teacher's text, ties counting half: ½
says that it knows nothing. What there is to learn (a direction, a model's weights) is learned on other
prompts than it is tested on, and intervals are over prompts, since a prompt's rollouts share their teacher.

A *flag* names an artefact: something at the edges of the texts, or constant, that is there however well a
text describes or reasons. A *warning* says that a statistic tells the sides apart which a real difference
moves as well, such as the words of poorer descriptions: to repair that difference is what the game is for.

    name               raised where
    end_token          the token the score is read on, or how often it is repeated, tells 55% of pairs
    truncated_teacher  whether a text is cut tells 55%, more of the teacher's being cut, and these have one
                       common largest length or the teacher's texts are the shorter ones
    filler             a phrase that 90% of the teacher's texts hold tells 75%, or half of the pairs show one
                       and the same surplus of words on the teacher's side
    format             blanks at the edges, validity, the first or last character or token tells 60%
    length             (*) characters, words or tokens tell 75%
    structure          (*) warning: lines, bullets, items, digits or variety of words tell 75%
    combined, ngrams   (*) warning: a linear model of all features, or of n-grams, tells 75%

"Tells" means that the lower 95% limit lies above the share. Where the discriminator's accuracy is known,
what has a (*) must also explain it: its lower limit is higher, or less than five points lower. The others
need not: an artefact that the discriminator has not found yet it finds once the game has repaired what it
looks at now.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prism.evals.pair_game import Fit, Margins, PairGame, by_best_column, by_direction, by_linear, by_odds, by_weights
from prism.evals.statistics import Interval
from prism.evals.text_features import Measures, Reading, common_phrases, holds, ngram_matrix

EDGE_SHARE, FORMAT_SHARE, SHORTCUT_SHARE = 0.55, 0.6, 0.75
NEAR_DISCRIMINATOR = 0.05
MIN_PROMPTS = 20
"""With fewer, chance finds something in more than one of 20 audits of texts that do not differ."""
CONSTANT_SHARE = 0.9
SURPLUS_SHARE = 0.5
CAPPED_SHARE = 0.5
CAP_TOLERANCE = 2
"""Tokens or characters by which texts cut at one length may differ: they are stripped and tokenised afresh."""

LENGTH = ("characters", "words", "tokens")
FORMAT = ("outer_blanks", "valid_format", "first_character", "last_character", "first_token", "last_token")
STRUCTURE = ("lines", "bullets", "items", "digits", "distinct_words")


@dataclass(frozen=True, slots=True)
class TextPair:
    prompt_id: str
    teacher: Reading
    rollout: Reading


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
    name: str
    view: str
    feature: str
    accuracy: Interval
    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class ViewAudit:
    """Not conclusive with fewer than `MIN_PROMPTS` prompts: then no findings mean nothing.

    `phrase` is the longest of the teacher's common phrases that tell the most; `capped_share` the share of
    the teacher's cut texts that have the largest length. None without any.
    """

    num_pairs: int
    num_prompts: int
    is_conclusive: bool
    discriminator_accuracy: float | None
    features: Mapping[str, FeatureResult]
    phrase: str | None
    capped_share: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ShortcutReport:
    views: Mapping[str, ViewAudit]

    @property
    def flags(self) -> tuple[Finding, ...]:
        return tuple(found for audit in self.views.values() for found in audit.findings if not found.is_warning)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(found for audit in self.views.values() for found in audit.findings if found.is_warning)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `flags` and `warnings` are the names of what was found in any view."""
        names = {kind: sorted({found.name for found in getattr(self, kind)}) for kind in ("flags", "warnings")}
        return names | asdict(self)


def audit_shortcuts(
    pairs: Mapping[str, Sequence[TextPair]], discriminator_accuracy: Mapping[str, float] | None = None
) -> ShortcutReport:
    """Audits the pairs of each view; `discriminator_accuracy` is the discriminator's on pairs like these.

    A few hundred prompts with one or two rollouts each are plenty; with fewer than two nothing can be
    measured. Where whole responses are scored, give their parts as views of their own as well: the closing
    tag of a whole response hides a part that was cut.
    """
    known = discriminator_accuracy or {}
    return ShortcutReport({view: _audit(view, rows, known.get(view)) for view, rows in pairs.items()})


def _audit(view: str, rows: Sequence[TextPair], discriminator_accuracy: float | None) -> ViewAudit:
    game = PairGame([row.prompt_id for row in rows])
    if game.num_prompts < 2:
        return ViewAudit(len(rows), game.num_prompts, False, discriminator_accuracy, {}, None, None, ())
    table = _Table(rows)
    features = {name: _number_result(game, *values) for name, values in table.numbers.items()}
    features |= {name: FeatureResult(game.play(by_odds(*codes))) for name, codes in table.categories.items()}
    phrases = common_phrases([row.teacher.text for row in rows], CONSTANT_SHARE)
    surplus = table.differences(np.array([holds(reading.text, phrases) for reading in table.readings]))
    features["phrase"] = FeatureResult(game.play(by_best_column(surplus)))
    features["constant_surplus"] = FeatureResult(_constant_surplus(game, *table.numbers["words"]))
    features["combined"] = FeatureResult(game.play(_by_all_features(table)))
    ngrams = ngram_matrix([reading.text for reading in table.readings])
    features["ngrams"] = FeatureResult(game.play(by_linear(table.differences(ngrams))))
    phrase, capped_share = _most_telling(phrases, surplus), table.capped_share()
    is_conclusive = game.num_prompts >= MIN_PROMPTS
    rules = _Rules(view, features, discriminator_accuracy)
    return ViewAudit(
        num_pairs=len(rows),
        num_prompts=game.num_prompts,
        is_conclusive=is_conclusive,
        discriminator_accuracy=discriminator_accuracy,
        features=features,
        phrase=phrase,
        capped_share=capped_share,
        findings=tuple(rules.findings(phrase, capped_share)) if is_conclusive else (),
    )


class _Rules:
    """The rules of this module's table, applied to the features of one view."""

    def __init__(self, view: str, features: Mapping[str, FeatureResult], discriminator_accuracy: float | None) -> None:
        self._view = view
        self._features = features
        self._explained_from = None if discriminator_accuracy is None else discriminator_accuracy - NEAR_DISCRIMINATOR

    def findings(self, phrase: str | None, capped_share: float | None) -> Iterator[Finding]:
        has_end_token = self._tells("end_token", EDGE_SHARE)
        if has_end_token:
            yield self._finding("end_token", "end_token", "the end token")
        is_truncated = self._is_truncated(capped_share)
        if is_truncated:
            yield self._finding("truncated_teacher", "cut", f"that the teacher's texts are cut{_cap(capped_share)}")
        is_filled = self._tells("phrase", SHORTCUT_SHARE)
        if is_filled:
            yield self._finding("filler", "phrase", f"the teacher's phrase {phrase!r}")
        elif self._tells("constant_surplus", SURPLUS_SHARE):
            yield self._finding("filler", "constant_surplus", "a constant surplus of words in the teacher's texts")
        # A cut changes the last character too, a stock phrase perhaps the first: one artefact has one name.
        named = FORMAT if is_truncated or is_filled else ("last_token",) if has_end_token else ()
        feature = self._best([name for name in FORMAT if name not in named], FORMAT_SHARE)
        if feature:
            yield self._finding("format", feature, f"the {feature.replace('_', ' ')}")
        feature = self._best(LENGTH, SHORTCUT_SHARE, must_explain=True)
        if feature:
            longer = "longer" if self._teacher_has_more(feature) else "shorter"
            yield self._finding("length", feature, f"that the teacher's texts are {longer} in {feature}")
        feature = self._best(STRUCTURE, SHORTCUT_SHARE, must_explain=True)
        if feature:
            more = "more" if self._teacher_has_more(feature) else "fewer"
            what = f"that the teacher's texts have {more} {feature.replace('_', ' ')}"
            yield self._finding("structure", feature, what, is_warning=True)
        for name, what in (("combined", "all features together"), ("ngrams", "n-grams")):
            if self._tells(name, SHORTCUT_SHARE, must_explain=True):
                yield self._finding(name, name, what, is_warning=True)

    def _tells(self, feature: str, share: float, *, must_explain: bool = False) -> bool:
        low = self._features[feature].accuracy.low
        if low is None or low <= share:
            return False
        return not must_explain or self._explained_from is None or low >= self._explained_from

    def _best(self, features: Sequence[str], share: float, *, must_explain: bool = False) -> str | None:
        telling = [feature for feature in features if self._tells(feature, share, must_explain=must_explain)]
        return max(telling, key=lambda feature: self._features[feature].accuracy.low or 0.0, default=None)

    def _is_truncated(self, capped_share: float | None) -> bool:
        if not (self._tells("cut", EDGE_SHARE) and self._teacher_has_more("cut")):
            return False
        is_shorter = self._tells("characters", EDGE_SHARE) and not self._teacher_has_more("characters")
        return is_shorter or (capped_share or 0.0) >= CAPPED_SHARE

    def _teacher_has_more(self, feature: str) -> bool:
        return (self._features[feature].teacher_higher or 0.0) > 0.5

    def _finding(self, name: str, feature: str, what: str, *, is_warning: bool = False) -> Finding:
        accuracy = self._features[feature].accuracy
        told = "is found" if feature == "constant_surplus" else "alone tells teacher from rollout"
        shares = [0.0 if value is None else value for value in (accuracy.mean, accuracy.low, accuracy.high)]
        message = "{}: {} {} in {:.0%} of pairs (95% limits {:.0%} to {:.0%}, {} prompts)".format(
            self._view, what, told, *shares, accuracy.count
        )
        return Finding(name, self._view, feature, accuracy, message, is_warning)


def _cap(capped_share: float | None) -> str:
    share = capped_share or 0.0
    return f" ({share:.0%} of these at one common largest length)" if share >= CAPPED_SHARE else ""


class _Table:
    """What was measured of the pairs: each reading once, however many pairs it is in."""

    def __init__(self, rows: Sequence[TextPair]) -> None:
        self.readings = list(dict.fromkeys(side for row in rows for side in (row.teacher, row.rollout)))
        index = {reading: place for place, reading in enumerate(self.readings)}
        self._teacher = np.array([index[row.teacher] for row in rows])
        self._rollout = np.array([index[row.rollout] for row in rows])
        measures = Measures(self.readings)
        numbers = [measures.numbers(reading) for reading in self.readings]
        categories = [measures.categories(reading) for reading in self.readings]
        self.numbers = {name: self._sides(np.array([row[name] for row in numbers])) for name in numbers[0]}
        self.categories = {name: self._sides(_codes([row[name] for row in categories])) for name in categories[0]}

    def _sides(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values[self._teacher], values[self._rollout]

    def differences(self, values: Float[np.ndarray, "reading column"]) -> Float[np.ndarray, "pair column"]:
        return values[self._teacher] - values[self._rollout]

    def number_differences(self) -> Float[np.ndarray, "pair column"]:
        return np.stack([teacher - rollout for teacher, rollout in self.numbers.values()], axis=1)

    def capped_share(self) -> float | None:
        """Of the teacher's cut texts, the share as long as its longest text, in characters or in tokens."""
        is_cut = self.numbers["cut"][0] > 0
        if not is_cut.any():
            return None
        lengths = [self.numbers[name][0] for name in ("characters", "tokens")]
        return max(float(np.mean(length[is_cut] >= length.max() - CAP_TOLERANCE)) for length in lengths)


def _codes(values: Sequence[object]) -> np.ndarray:
    code_of: dict[object, int] = {}
    return np.array([code_of.setdefault(value, len(code_of)) for value in values])


def _number_result(game: PairGame, teacher: np.ndarray, rollout: np.ndarray) -> FeatureResult:
    higher = (1 + np.sign(teacher - rollout)) / 2
    accuracy = game.play(by_direction(teacher - rollout))
    return FeatureResult(accuracy, float(higher.mean()), float(teacher.mean()), float(rollout.mean()))


def _constant_surplus(game: PairGame, teacher: np.ndarray, rollout: np.ndarray) -> Interval:
    """The share of pairs that have the commonest difference in words, 0 where the teacher has no surplus."""
    differences = teacher - rollout
    values, counts = np.unique(differences, return_counts=True)
    commonest = values[counts.argmax()]
    return game.share((differences == commonest) * float(commonest > 0))


def _by_all_features(table: _Table) -> Fit:
    """A linear model of all numbers and of the odds of all categories, each scaled to a mean square of 1."""
    numbers = table.number_differences()

    def fit(train: np.ndarray, test: np.ndarray) -> Margins:
        everything = np.arange(len(numbers))
        odds = [by_odds(*codes)(train, everything) for codes in table.categories.values()]
        columns = np.column_stack([numbers, *odds])
        return by_weights(columns, np.sqrt(np.square(columns[train]).mean(axis=0)))(train, test)

    return fit


def _most_telling(phrases: Sequence[str], differences: Float[np.ndarray, "pair column"]) -> str | None:
    surplus = differences.sum(axis=0)
    telling = [phrase for phrase, value in zip(phrases, surplus, strict=True) if value == surplus.max() > 0]
    return max(telling, key=lambda phrase: (len(phrase), phrase)) if telling else None
