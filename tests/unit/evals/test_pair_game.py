import numpy as np
import pytest

from prism.evals.pair_game import PairGame, by_best_column, by_direction, by_linear, by_odds, logistic_weights


def prompts(count: int, rollouts: int = 1) -> list[str]:
    return [f"p{index:03d}" for index in range(count) for _ in range(rollouts)]


def test_accuracy_counts_pairs_and_ties_as_half_with_limits_over_prompts():
    # 12 prompts of 2 pairs: the direction is clear in every fold; 18 right, 2 tied, 4 wrong.
    differences = np.array([1.0] * 18 + [0.0] * 2 + [-1.0] * 4)
    interval = PairGame(prompts(12, 2)).play(by_direction(differences))
    assert interval.mean == pytest.approx((18 + 1) / 24)
    assert interval.count == 12


def test_the_direction_does_not_matter():
    differences = np.random.default_rng(1).normal(0.4, 1, 60)
    game = PairGame(prompts(60))
    assert game.play(by_direction(differences)) == game.play(by_direction(-differences))


def test_direction_is_learned_on_other_prompts_only():
    # Two prompts with opposite differences: each is tested with the direction of the other and lost.
    assert PairGame(["a", "b"]).play(by_direction(np.array([1.0, -1.0]))).mean == 0.0


def test_all_rollouts_of_a_prompt_are_in_one_fold():
    # Every prompt has its own odd category: known only from its own pairs, it must tell nothing.
    names = prompts(30, 3)
    teacher = np.repeat(np.arange(30), 3)
    assert PairGame(names).play(by_odds(teacher, teacher + 30)).mean == 0.5


def test_categories_tell_by_their_odds():
    # 0 is the teacher's in 8 of 10 pairs, 1 the rollout's.
    teacher, rollout = np.array([0] * 8 + [1] * 2), np.array([1] * 8 + [0] * 2)
    assert PairGame(prompts(10)).play(by_odds(teacher, rollout)).mean == pytest.approx(0.8)


def test_the_best_column_is_the_one_with_the_largest_surplus_of_the_teacher():
    columns = np.zeros((20, 3))
    columns[:12, 1], columns[:, 2] = 1, -1
    interval = PairGame(prompts(20)).play(by_best_column(columns))
    assert interval.mean == pytest.approx((12 + 8 / 2) / 20)
    assert PairGame(prompts(20)).play(by_best_column(np.zeros((20, 0)))).mean == 0.5


def test_weights_are_where_the_gradient_vanishes_in_pairs_as_in_columns():
    generator = np.random.default_rng(0)
    for shape in ((40, 5), (5, 40)):
        rows = generator.normal(size=shape)
        weights = logistic_weights(rows, 0.5, num_steps=5000, tolerance=1e-12)
        gradient = 0.5 * weights - rows.T @ (1 / (1 + np.exp(rows @ weights)))
        assert np.abs(gradient).max() < 1e-8


def test_a_linear_model_finds_what_no_column_tells_alone():
    generator = np.random.default_rng(2)
    noise = generator.normal(0, 3, 200)
    columns = np.stack([noise + 1, noise], axis=1)  # their difference is always 1
    game = PairGame(prompts(200))
    assert game.play(by_linear(columns)).mean == 1.0
    assert all((game.play(by_direction(column)).mean or 0) < 0.7 for column in columns.T)
    assert game.play(by_linear(columns)) == game.play(by_linear(1000 * columns))


def test_a_linear_model_of_nothing_knows_nothing():
    assert PairGame(prompts(20)).play(by_linear(np.zeros((20, 0)))).mean == 0.5
