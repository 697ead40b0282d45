"""What trivial features alone tell of who wrote a text: the teacher, or the policy in a rollout.

A discriminator that wins by an end token, a cut or a stock phrase teaches the policy that token, cut or
phrase. So each feature that needs no understanding plays the discriminator's game by itself, on the same
pairs. Its accuracy is the share of pairs in which it points to the teacher's text, ties counting half: ½
says that it knows nothing. What there is to learn (a direction, a model's weights) is learned on other
prompts than it is tested on, and intervals are over prompts, since a prompt's rollouts share their teacher.

What follows from these accuracies `shortcut_rules` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prism.evals.pair_game import Fit, Margins, PairGame, by_best_column, by_direction, by_linear, by_odds, by_weights
from prism.evals.shortcut_rules import FeatureResult, Finding, Rules, Severity
from prism.evals.statistics import Interval
from prism.evals.text_features import Measures, Reading, common_phrases, holds, ngram_matrix

MIN_PROMPTS = 20
"""With fewer, chance finds something in more than one of 20 audits of texts that do not differ."""
CONSTANT_SHARE = 0.9
CAP_TOLERANCE = 2
"""Tokens or characters by which texts cut at one length may differ: they are stripped and tokenised afresh."""


@dataclass(frozen=True, slots=True)
class TextPair:
    prompt_id: str
    teacher: Reading
    rollout: Reading


@dataclass(frozen=True, slots=True)
class ViewAudit:
    """Not conclusive with fewer than `MIN_PROMPTS` prompts: then there are no findings, which means nothing.

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
        return self._of("flag")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self._of("warning")

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(found for audit in self.views.values() for found in audit.findings if found.severity == severity)

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
    return ViewAudit(
        num_pairs=len(rows),
        num_prompts=game.num_prompts,
        is_conclusive=is_conclusive,
        discriminator_accuracy=discriminator_accuracy,
        features=features,
        phrase=phrase,
        capped_share=capped_share,
        findings=tuple(Rules(view, features, discriminator_accuracy).findings(phrase, capped_share))
        if is_conclusive
        else (),
    )


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
