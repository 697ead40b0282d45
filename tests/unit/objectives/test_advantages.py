import json
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from prism.objectives import (
    branch_advantages,
    fill_invalid_scores,
    group_normalize,
    grpo_advantages,
    has_signal,
    mixed_advantages,
    overlong_penalty,
)

GOLDEN = Path(__file__).parents[2] / "golden"
ADVANTAGES = json.loads((GOLDEN / "objectives_advantages.json").read_text())
close_to_golden = partial(assert_close, rtol=1e-6, atol=1e-6)


def cases(kind):
    return [pytest.param(case, id=f"{case['name']}-{i}") for i, case in enumerate(ADVANTAGES) if case["kind"] == kind]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def ids_of(labels):
    """The golden group labels as integers that are neither contiguous nor in order."""
    order = sorted(set(labels), reverse=True)
    return torch.tensor([7 * order.index(label) - 3 for label in labels])


def single_rows(labels):
    return torch.tensor([labels.count(label) == 1 for label in labels])


def golden_rows(case):
    """Golden advantages are written per token; every mask of them has its first column set."""
    assert all(row[0] == 1 for row in case["response_mask"])
    return f64(case["advantages"])[:, 0]


@pytest.mark.parametrize("case", cases("grpo_outcome"))
def test_grpo_matches_golden_and_groups_of_one_get_zero(case):
    actual = grpo_advantages(f64(case["scores"]), ids_of(case["index"]), scale=case["norm_by_std"], eps=case["eps"])
    single = single_rows(case["index"])
    assert actual.dtype == torch.float64
    close_to_golden(actual[~single], golden_rows(case)[~single])
    assert (actual[single] == 0).all()


@pytest.mark.parametrize("case", cases("prism_multi_reward_default"))
def test_branch_matches_golden_and_groups_of_one_get_the_penalty_alone(case):
    is_valid = f64(case["format_scores"]) > 0
    assert case["caption_weight"] + case["cot_weight"] == 1
    actual = branch_advantages(
        f64(case["caption_scores"]), f64(case["cot_scores"]), is_valid, ids_of(case["index"]),
        alpha=case["caption_weight"], format_penalty=case["format_penalty"], eps=case["eps"],
    )  # fmt: skip
    single = single_rows(case["index"])
    close_to_golden(actual[~single], golden_rows(case)[~single])
    assert_close(actual[single], -case["format_penalty"] * (~is_valid[single]).double())


@pytest.mark.parametrize("case", cases("paper_eq3"))
def test_mixed_matches_golden(case):
    actual = mixed_advantages(f64(case["d_visual"]), f64(case["d_reason"]), ids_of(case["index"]), alpha=case["alpha"])
    close_to_golden(actual, f64(case["adv_ddof1_eps1e-06"]))


def test_hand_worked_group():
    # Group 5: values 1, 2, 6, mean 3, deviations -2, -1, 3, variance (4 + 1 + 9) / 2 = 7. Group -1: -4, 4, variance 32.
    values, groups = f64([1, 10, 2, 18, 6]), torch.tensor([5, -1, 5, -1, 5])
    expected = f64([-2 / 7**0.5, -4 / 32**0.5, -1 / 7**0.5, 4 / 32**0.5, 3 / 7**0.5])
    assert_close(group_normalize(values, groups, eps=0.0), expected)
    assert_close(group_normalize(values, groups, scale=False), f64([-2, -4, -1, 4, 3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 1e-30, 1e-6])
@pytest.mark.parametrize("scale", [True, False])
def test_ties_are_exactly_zero(dtype, scale, eps):
    # 0.1 three times has a mean that differs from 0.1 in the last digit.
    values = torch.tensor([0.1, 0.7, 0.1, 0.7, 0.1, 0.3], dtype=dtype)
    result = group_normalize(values, torch.tensor([1, 2, 1, 2, 1, 3]), scale=scale, eps=eps)
    assert result.dtype == dtype
    assert result.tolist() == [0.0] * 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_value_spoils_its_own_group_only(bad):
    values = f64([bad, 1.0, 2.0, 3.0, bad])
    result = group_normalize(values, torch.tensor([0, 0, 1, 1, 2]))
    assert result.isnan().tolist() == [True, True, False, False, True]


def random_groups(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(1, 24, (1,), generator=generator))
    groups = torch.randint(-4, 4, (rows,), generator=generator)
    first, second = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    is_valid = torch.rand(rows, generator=generator) < 0.7
    return first, second, is_valid, groups, torch.randperm(rows, generator=generator)


def naive_normalize(values, groups, eps=1e-6):
    result = torch.zeros_like(values)
    for group in set(groups.tolist()):
        rows = groups == group
        if rows.sum() > 1:
            result[rows] = (values[rows] - values[rows].mean()) / (values[rows].std() + eps)
    return result


SEEDS = st.integers(0, 2**32 - 1)
few_examples = settings(max_examples=30, deadline=None, derandomize=True)


@few_examples
@given(SEEDS)
def test_equals_a_loop_over_groups(seed):
    first, second, is_valid, groups, _ = random_groups(seed)
    assert_close(group_normalize(first, groups), naive_normalize(first, groups))
    filled = []
    for scores in (first.clone(), second.clone()):
        for group in set(groups.tolist()):
            valid = scores[(groups == group) & is_valid]
            scores[(groups == group) & ~is_valid] = (valid.min() if len(valid) else 0.0) - 1
        filled.append(naive_normalize(scores, groups))
    expected = 0.3 * filled[0] + 0.7 * filled[1] - 2.0 * (~is_valid)
    assert_close(branch_advantages(first, second, is_valid, groups, alpha=0.3, format_penalty=2.0), expected)


@few_examples
@given(SEEDS)
def test_order_of_rows_and_names_of_groups_do_not_matter(seed):
    first, second, is_valid, groups, order = random_groups(seed)
    renamed = (groups * -1000 + 17).to(torch.int32)
    expected = branch_advantages(first, second, is_valid, groups)[order]
    assert_close(branch_advantages(first[order], second[order], is_valid[order], renamed[order]), expected)
    expected = mixed_advantages(first, second, groups)[order]
    assert_close(mixed_advantages(first[order], second[order], renamed[order]), expected)


@few_examples
@given(SEEDS, st.floats(0.01, 100), st.floats(-100, 100))
def test_normalisation_ignores_shift_and_scale(seed, factor, shift):
    values, _, _, groups, _ = random_groups(seed)
    assert_close(group_normalize(values * factor + shift, groups, eps=0.0), group_normalize(values, groups, eps=0.0))
    centred = group_normalize(values * factor + shift, groups, scale=False)
    assert_close(centred, factor * group_normalize(values, groups, scale=False))


@few_examples
@given(SEEDS)
def test_branches_are_insensitive_to_their_scales_but_the_mixture_is_not(seed):
    first, second, _, groups, _ = random_groups(seed)
    valid = torch.ones(len(groups), dtype=torch.bool)
    assert_close(
        branch_advantages(100 * first, second, valid, groups, eps=0.0),
        branch_advantages(first, second, valid, groups, eps=0.0),
    )
    loud = mixed_advantages(1e9 * first, second, groups, eps=0.0)
    assert_close(loud, group_normalize(first, groups, eps=0.0), rtol=1e-5, atol=1e-5)


def test_scores_of_invalid_rollouts_are_never_read():
    scores, groups = f64([0.5, 0.0, -0.5, 0.0]), torch.tensor([0, 0, 0, 1])
    is_valid = torch.tensor([True, False, True, False])
    garbage = f64([0.5, float("nan"), -0.5, float("inf")])
    expected = branch_advantages(scores, -scores, is_valid, groups)
    assert_close(branch_advantages(garbage, -garbage, is_valid, groups), expected)
    assert expected.isfinite().all()


def test_invalid_scores_go_one_below_their_own_group():
    scores = f64([3.0, float("nan"), -2.0, 5.0, 0.0, float("inf")])
    is_valid = torch.tensor([True, False, True, True, True, False])
    # Group 0: 3, nan, -2, so -3; group 1: 5, 0; group 2 has no valid score, so -1.
    filled = fill_invalid_scores(scores, is_valid, torch.tensor([0, 0, 0, 1, 1, 2]))
    assert filled.tolist() == [3.0, -3.0, -2.0, 5.0, 0.0, -1.0]


def test_an_invalid_rollout_is_always_below_the_valid_ones():
    # With α = 1: values 2, 1, and 1 - 1 = 0 for the invalid row; mean 1, deviation 1; penalty 1.5.
    perception, groups = f64([2.0, 1.0, 9.0]), torch.zeros(3, dtype=torch.long)
    is_valid = torch.tensor([True, True, False])
    result = branch_advantages(perception, perception, is_valid, groups, alpha=1.0, eps=0.0)
    assert_close(result, f64([1.0, 0.0, -2.5]))


def test_empty_batch():
    none = torch.zeros(0)
    groups = torch.zeros(0, dtype=torch.long)
    assert group_normalize(none, groups).shape == (0,)
    assert branch_advantages(none, none, groups.bool(), groups).shape == (0,)
    assert has_signal(none, groups).shape == (0,)


FOUR, GROUPS = torch.zeros(4), torch.zeros(4, dtype=torch.long)
VALID = torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("values", lambda: group_normalize(GROUPS, GROUPS)),
        ("values", lambda: group_normalize(torch.zeros(2, 2), GROUPS)),
        ("group_ids", lambda: group_normalize(FOUR, GROUPS[:3])),
        ("group_ids", lambda: group_normalize(FOUR, FOUR)),
        ("group_ids", lambda: group_normalize(FOUR, VALID)),
        ("rewards", lambda: grpo_advantages(GROUPS, GROUPS)),
        ("perception", lambda: branch_advantages(GROUPS, FOUR, VALID, GROUPS)),
        ("reasoning", lambda: branch_advantages(FOUR, FOUR.double(), VALID, GROUPS)),
        ("reasoning", lambda: mixed_advantages(FOUR, FOUR[:3], GROUPS)),
        ("is_valid", lambda: branch_advantages(FOUR, FOUR, FOUR, GROUPS)),
        ("is_valid", lambda: branch_advantages(FOUR, FOUR, VALID[:3], GROUPS)),
        ("scores", lambda: fill_invalid_scores(GROUPS, VALID, GROUPS)),
        ("is_valid", lambda: fill_invalid_scores(FOUR, VALID[:3], GROUPS)),
        ("group_ids", lambda: fill_invalid_scores(FOUR, VALID, GROUPS[:3])),
        ("values", lambda: has_signal(torch.zeros(2, 2), GROUPS)),
        ("group_ids", lambda: has_signal(FOUR, GROUPS[:3])),
    ],
)
def test_mismatches_name_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()


FILTER = json.loads((GOLDEN / "objectives_dapo_group_filter.json").read_text())


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in FILTER])
def test_filter_matches_golden(case):
    values = f64(case["values"])
    keep = has_signal(values, torch.full((len(values),), 3))
    assert keep.tolist() == [case["keep_exact"]] * len(values)


def test_filter_judges_interleaved_groups_apart():
    order = torch.randperm(sum(len(case["values"]) for case in FILTER), generator=torch.Generator().manual_seed(0))
    values = f64([value for case in FILTER for value in case["values"]])[order]
    groups = torch.tensor([i for i, case in enumerate(FILTER) for _ in case["values"]])[order]
    expected = [FILTER[group]["keep_exact"] for group in groups.tolist()]
    assert has_signal(values, groups).tolist() == expected


def test_filter_accepts_booleans_and_integers():
    groups = torch.tensor([0, 1, 0, 1])
    assert has_signal(torch.tensor([True, True, False, True]), groups).tolist() == [True, False, True, False]
    assert has_signal(torch.tensor([3, 1, 3, 2]), groups).tolist() == [False, True, False, True]


@pytest.mark.parametrize("case", json.loads((GOLDEN / "objectives_dapo_overlong.json").read_text()))
def test_overlong_matches_golden(case):
    settings_ = {"max_length": case["max_len"], "buffer": case["buffer"], "factor": case["factor"]}
    expected = f64(case["capped_at_minus_factor"])
    close_to_golden(overlong_penalty(f64(case["lengths"]), **settings_), expected)
    from_integers = overlong_penalty(torch.tensor(case["lengths"]), **settings_)
    assert from_integers.dtype == torch.float32
    close_to_golden(from_integers.double(), expected)


@pytest.mark.parametrize("buffer", [0, -1, 101])
def test_overlong_rejects_an_impossible_buffer(buffer):
    with pytest.raises(ValueError, match=r"^buffer "):
        overlong_penalty(torch.tensor([1]), max_length=100, buffer=buffer)
