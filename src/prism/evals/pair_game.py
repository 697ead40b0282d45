"""The discriminator's game played by something simple: which side of a pair is the teacher's?

What there is to learn is learned on some prompts and tested on others. A player never sees which side is
which in a test pair, and turned round, a pair turns its margin round.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from prism.evals.statistics import Interval, share_interval

Margins = Float[np.ndarray, "pair"]
Fit = Callable[[np.ndarray, np.ndarray], Margins]
"""Indices of training and of test pairs → margins of the test pairs, positive where the teacher is told."""

NUM_FOLDS = 5
RIDGE = 1.0


class PairGame:
    """Pairs split into folds by prompt: whoever plays is fitted on four fifths and tested on the rest."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = list(prompts)
        distinct = sorted(set(prompts))
        self.num_prompts = len(distinct)
        # Every fifth prompt by name would follow the cycles of numbered data sets; a shuffle does not.
        order = np.random.default_rng(0).permutation(len(distinct)) % NUM_FOLDS
        fold_of = dict(zip(distinct, order.tolist(), strict=True))
        self._folds = np.array([fold_of[prompt] for prompt in prompts])

    def play(self, fit: Fit) -> Interval:
        margins = np.zeros(len(self._prompts))
        for fold in np.unique(self._folds):
            is_test = self._folds == fold
            margins[is_test] = fit(np.flatnonzero(~is_test), np.flatnonzero(is_test))
        return self.share((1 + np.sign(margins)) / 2)

    def share(self, outcomes: Float[np.ndarray, "pair"]) -> Interval:
        """Mean over pairs with limits over prompts."""
        units = {str(index): [float(outcome)] for index, outcome in enumerate(outcomes)}
        return share_interval(units, {str(index): prompt for index, prompt in enumerate(self._prompts)})


def by_direction(differences: Margins) -> Fit:
    """The higher value is the teacher's, or the lower one, as in most training pairs."""

    def fit(train: np.ndarray, test: np.ndarray) -> Margins:
        return np.sign(np.sign(differences[train]).sum()) * differences[test]

    return fit


def by_odds(teacher: np.ndarray, rollout: np.ndarray) -> Fit:
    """The category with the higher odds of being a teacher's among the training pairs."""
    num_codes = int(max(teacher.max(), rollout.max())) + 1

    def fit(train: np.ndarray, test: np.ndarray) -> Margins:
        counts = [np.bincount(side[train], minlength=num_codes) for side in (teacher, rollout)]
        odds = np.log(counts[0] + 1) - np.log(counts[1] + 1)
        return odds[teacher[test]] - odds[rollout[test]]

    return fit


def by_best_column(differences: Float[np.ndarray, "pair column"]) -> Fit:
    """The phrase that the teacher's side holds and the other lacks in most training pairs."""

    def fit(train: np.ndarray, test: np.ndarray) -> Margins:
        surplus = differences[train].sum(axis=0)
        if not surplus.size or surplus.max() <= 0:
            return np.zeros(len(test))
        return differences[test][:, int(surplus.argmax())]

    return fit


def by_linear(differences: Float[np.ndarray, "pair column"]) -> Fit:
    """A linear model, the columns scaled together so that training rows have a mean square length of 1."""

    def fit(train: np.ndarray, test: np.ndarray) -> Margins:
        scale = np.sqrt(np.square(differences[train]).sum() / len(train))
        return by_weights(differences, np.full(differences.shape[1], scale))(train, test)

    return fit


def by_weights(differences: Float[np.ndarray, "pair column"], scale: Float[np.ndarray, "column"]) -> Fit:
    """Logistic regression on the columns divided by `scale`; one of scale 0 plays no part."""
    columns = differences / np.where(scale > 0, scale, np.inf)

    def fit(train: np.ndarray, test: np.ndarray) -> Margins:
        if not columns.shape[1]:
            return np.zeros(len(test))
        return columns[test] @ logistic_weights(columns[train], RIDGE)

    return fit


def logistic_weights(
    differences: Float[np.ndarray, "pair column"], ridge: float, *, num_steps: int = 200, tolerance: float = 1e-6
) -> Float[np.ndarray, "column"]:
    """Minimises Σ log(1 + exp(−d·w)) + ½ ridge |w|² over the rows d, teacher minus rollout.

    Without intercept: exchanging the sides of a pair turns its margin round. The Hessian is bounded by
    ¼ DᵀD + ridge, so steps with the inverse of the bound never climb; it is inverted in pairs or in columns,
    whichever are fewer (w = Dᵀa).
    """
    pairs, columns = differences.shape
    is_dual = pairs < columns
    gram = differences @ differences.T if is_dual else differences.T @ differences
    inverse = np.linalg.inv(gram / 4 + ridge * np.eye(len(gram)))
    solution = np.zeros(len(gram))
    for _ in range(num_steps):
        margins = gram @ solution if is_dual else differences @ solution
        misfit = 1 / (1 + np.exp(np.clip(margins, -500, 500)))
        step = inverse @ ((misfit if is_dual else differences.T @ misfit) - ridge * solution)
        solution += step
        if np.abs(step).max() <= tolerance:
            break
    return differences.T @ solution if is_dual else solution
