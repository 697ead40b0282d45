"""Hybrids of the discriminator's advantage with the verdict on the answer."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from prism.objectives import (
    added_advantages,
    branch_advantages,
    gated_advantages,
    mixed_advantages,
    sign_aware_advantages,
)

exactly = partial(assert_close, rtol=0.0, atol=0.0)
BY_VERDICT = (gated_advantages, sign_aware_advantages)
NAN, INF = float("nan"), float("inf")


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def verdicts(text):
    """`is_correct` and `is_verified` of a line like "+-?": right, wrong, no verdict."""
    marks = text.replace(" ", "")
    return torch.tensor([mark == "+" for mark in marks]), torch.tensor([mark != "?" for mark in marks])


def all_forms(alignment, is_correct, is_verified, groups, rewards=None):
    rewards = is_correct.to(alignment.dtype) if rewards is None else rewards
    return {
        "added": added_advantages(alignment, rewards, is_verified, groups),
        "gated": gated_advantages(alignment, is_correct, is_verified, groups),
        "sign-aware": sign_aware_advantages(alignment, is_correct, is_verified, groups),
    }


def test_added_by_hand():
    # Group 4: rewards 1, 0, 0 of its verified rows, mean 1/3, deviations 2/3, -1/3, -1/3, variance
    # (4/9 + 1/9 + 1/9) / 2 = 1/3, so N = 2/√3, -1/√3, -1/√3. Group -2: 0.2 and 1, N = -1/√2, 1/√2.
    alignment = f64([0.5, -1.0, 2.0, 0.25, -0.75, 0.0])
    rewards, is_verified = f64([1.0, 0.2, 0.0, 1.0, 0.0, 0.9]), verdicts("++-+-?")[1]
    groups = torch.tensor([4, -2, 4, -2, 4, 4])
    result = added_advantages(alignment, rewards, is_verified, groups, weight=0.5, eps=0.0)
    expected = [0.5 + 1 / 3**0.5, -1 - 0.5 / 2**0.5, 2 - 0.5 / 3**0.5, 0.25 + 0.5 / 2**0.5, -0.75 - 0.5 / 3**0.5, 0.0]
    assert_close(result, f64(expected))


def test_the_deviation_of_rewards_has_its_own_epsilon():
    # Rewards 0 and 1: deviation 1/√2, with eps = 1/√2 the divisor is √2, so N = ∓0.5/√2.
    result = added_advantages(f64([0.0, 0.0]), f64([0.0, 1.0]), verdicts("-+")[1], torch.tensor([0, 0]), eps=0.5**0.5)
    assert_close(result, f64([-(0.5**1.5), 0.5**1.5]))


@pytest.mark.parametrize(
    ("marks", "gated", "sign_aware"),
    [
        # Each pair is one answer in the teacher's manner (2) and one far from it (-3).
        ("++ -- ??", [2.0, -3.0, 0.0, -3.0, 0.0, -3.0], [2.0, 0.0, 0.0, -3.0, 0.0, 0.0]),
        ("++ ++ ++", [2.0, -3.0, 2.0, -3.0, 2.0, -3.0], [2.0, 0.0, 2.0, 0.0, 2.0, 0.0]),
        ("-- -- --", [0.0, -3.0, 0.0, -3.0, 0.0, -3.0], [0.0, -3.0, 0.0, -3.0, 0.0, -3.0]),
        ("?? -? ??", [0.0, -3.0, 0.0, -3.0, 0.0, -3.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ("?? ?? ??", [2.0, -3.0, 2.0, -3.0, 2.0, -3.0], [2.0, -3.0, 2.0, -3.0, 2.0, -3.0]),
    ],
)
def test_verdicts_by_hand(marks, gated, sign_aware):
    alignment, groups = f64([2.0, -3.0, 2.0, -3.0, 2.0, -3.0]), torch.full((6,), 9)
    exactly(gated_advantages(alignment, *verdicts(marks), groups), f64(gated))
    exactly(sign_aware_advantages(alignment, *verdicts(marks), groups), f64(sign_aware))


def test_each_group_is_asked_for_a_verdict_of_its_own():
    alignment, groups = f64([1.0, 1.0, 1.0, -1.0]), torch.tensor([7, 3, 7, 3])
    is_correct, is_verified = verdicts("+???")
    exactly(gated_advantages(alignment, is_correct, is_verified, groups), f64([1.0, 1.0, 0.0, -1.0]))
    exactly(sign_aware_advantages(alignment, is_correct, is_verified, groups), f64([1.0, 1.0, 0.0, -1.0]))


def test_on_the_branch_form_an_invalid_rollout_keeps_its_penalty():
    # α = 1, scores 2, 1, and 0 for the invalid row: N = 1, 0, -1; with the penalty B = 1, 0, -2.5.
    scores, groups = f64([2.0, 1.0, NAN]), torch.zeros(3, dtype=torch.long)
    is_valid = torch.tensor([True, True, False])
    base = branch_advantages(scores, scores, is_valid, groups, alpha=1.0, eps=0.0)
    is_correct, is_verified = verdicts("-+-")
    # Accuracies 0, 1, 0: mean 1/3, deviation 1/√3.
    added = added_advantages(base, is_correct.double(), is_verified, groups, eps=0.0)
    assert_close(added, f64([1 - 1 / 3**0.5, 2 / 3**0.5, -2.5 - 1 / 3**0.5]))
    assert_close(gated_advantages(base, is_correct, is_verified, groups), f64([0.0, 0.0, -2.5]))
    assert_close(sign_aware_advantages(base, is_correct, is_verified, groups), f64([0.0, 0.0, -2.5]))


def test_on_the_mixed_form():
    # r = ½·(3, 1, 2) + ½·(5, 1, 0) = 4, 1, 1: mean 2, deviations 2, -1, -1, variance 3, B = 2/√3, -1/√3, -1/√3.
    groups = torch.zeros(3, dtype=torch.long)
    base = mixed_advantages(f64([3.0, 1.0, 2.0]), f64([5.0, 1.0, 0.0]), groups, eps=0.0)
    is_correct, is_verified = verdicts("-+-")
    added = added_advantages(base, is_correct.double(), is_verified, groups, eps=0.0)
    assert_close(added, f64([1 / 3**0.5, 1 / 3**0.5, -2 / 3**0.5]))
    assert_close(gated_advantages(base, is_correct, is_verified, groups), f64([0, -1 / 3**0.5, -1 / 3**0.5]))
    assert_close(sign_aware_advantages(base, is_correct, is_verified, groups), f64([0, 0, -1 / 3**0.5]))


@pytest.mark.parametrize("marks", ["+-?", "-?+", "?+-"])
def test_groups_of_one_get_zero(marks):
    scores, groups = f64([2.0, -1.0, 5.0]), torch.tensor([8, 1, 4])
    is_valid = torch.ones(3, dtype=torch.bool)
    for base in (branch_advantages(scores, -scores, is_valid, groups), mixed_advantages(scores, scores, groups)):
        for result in all_forms(base, *verdicts(marks), groups).values():
            exactly(result, torch.zeros_like(base))


def random_rollouts(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(1, 24, (1,), generator=generator))
    groups = torch.randint(-4, 4, (rows,), generator=generator)
    alignment, rewards = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    is_correct, is_verified = torch.rand(2, rows, generator=generator) < torch.tensor([[0.5], [0.7]])
    return alignment, rewards, is_correct, is_verified, groups, torch.randperm(rows, generator=generator)


SEEDS = st.integers(0, 2**32 - 1)
few_examples = settings(max_examples=30, deadline=None, derandomize=True)


def naive_forms(alignment, rewards, is_correct, is_verified, groups):
    """Row by row, from the table in docs/method.md."""
    added, gated, sign_aware = alignment.clone(), alignment.clone(), alignment.clone()
    for row, value in enumerate(alignment.tolist()):
        members = (groups == groups[row]) & is_verified
        if not members.any():
            continue
        if not is_verified[row]:
            gated[row], sign_aware[row] = min(value, 0.0), 0.0
            continue
        if members.sum() > 1:
            added[row] += (rewards[row] - rewards[members].mean()) / (rewards[members].std() + 1e-6)
        gated[row] = value if is_correct[row] else min(value, 0.0)
        sign_aware[row] = max(value, 0.0) if is_correct[row] else min(value, 0.0)
    return {"added": added, "gated": gated, "sign-aware": sign_aware}


@few_examples
@given(SEEDS)
def test_equals_a_loop_over_rows(seed):
    alignment, rewards, is_correct, is_verified, groups, _ = random_rollouts(seed)
    actual = all_forms(alignment, is_correct, is_verified, groups, rewards)
    assert_close(actual, naive_forms(alignment, rewards, is_correct, is_verified, groups))


@few_examples
@given(SEEDS)
def test_order_of_rows_and_names_of_groups_do_not_matter(seed):
    alignment, rewards, is_correct, is_verified, groups, order = random_rollouts(seed)
    renamed = (groups * -1000 + 17).to(torch.int32)
    expected = all_forms(alignment, is_correct, is_verified, groups, rewards)
    actual = all_forms(alignment[order], is_correct[order], is_verified[order], renamed[order], rewards[order])
    assert_close(actual, {name: values[order] for name, values in expected.items()})


@few_examples
@given(SEEDS, st.floats(0.01, 100), st.floats(-100, 100))
def test_added_ignores_shift_and_scale_of_a_groups_rewards(seed, factor, shift):
    alignment, rewards, _, is_verified, groups, _ = random_rollouts(seed)
    expected = added_advantages(alignment, rewards, is_verified, groups, eps=0.0)
    assert_close(added_advantages(alignment, rewards * factor + shift * groups, is_verified, groups, eps=0.0), expected)


@few_examples
@given(SEEDS, st.floats(0.01, 10), st.floats(-10, 10))
def test_added_is_linear_in_alignment_and_weight(seed, weight, shift):
    alignment, rewards, _, is_verified, groups, _ = random_rollouts(seed)
    verifiable = added_advantages(torch.zeros_like(alignment), rewards, is_verified, groups)
    result = added_advantages(alignment + shift, rewards, is_verified, groups, weight=weight)
    assert_close(result, alignment + shift + weight * verifiable)


def test_equal_rewards_add_exactly_nothing():
    # 0.1 three times has a mean that differs from 0.1 in the last digit.
    alignment, rewards = torch.tensor([0.3, -2.0, 0.7, 5.0]), torch.tensor([0.1, 0.1, 0.1, 0.9])
    is_verified = verdicts("+++?")[1]
    exactly(added_advantages(alignment, rewards, is_verified, torch.zeros(4, dtype=torch.long), eps=0.0), alignment)


@few_examples
@given(SEEDS)
def test_no_right_answer_is_pushed_down_and_no_wrong_one_up(seed):
    alignment, _, is_correct, is_verified, groups, _ = random_rollouts(seed)
    result = sign_aware_advantages(alignment, is_correct, is_verified, groups)
    assert (result[is_verified & is_correct] >= 0).all()
    assert (result[is_verified & ~is_correct] <= 0).all()
    # The nearest such advantages: a size either stays or is cut to 0.
    assert ((result == alignment) | (result == 0)).all()
    assert (gated_advantages(alignment, is_correct, is_verified, groups)[is_verified & ~is_correct] <= 0).all()


STYLES = f64([-2.0, -0.5, 0.0, 0.5, 2.0])


@pytest.mark.parametrize("form", ["added", "gated", "sign-aware"])
@pytest.mark.parametrize("others", ["+", "-", "+-", "?"])
def test_of_the_same_style_a_right_answer_is_never_worse_off(form, others):
    """And an unchecked one lies between a wrong and a right one, so that it is no way out or in."""
    groups = torch.zeros(1 + len(others), dtype=torch.long)
    for style in STYLES:
        alignment = torch.cat([style[None], torch.zeros(len(others), dtype=torch.float64)])
        wrong, unknown, right = (
            all_forms(alignment, *verdicts(mark + others), groups)[form][0].item() for mark in "-?+"
        )
        assert wrong <= right
        if others != "?":
            assert wrong <= unknown <= right


@pytest.mark.parametrize("form", ["added", "gated", "sign-aware"])
@pytest.mark.parametrize("mark", ["+", "-", "?"])
def test_of_two_answers_with_one_verdict_the_closer_to_the_teacher_is_never_pushed_less(form, mark):
    groups = torch.zeros(len(STYLES) + 2, dtype=torch.long)
    alignment = torch.cat([STYLES, torch.zeros(2, dtype=torch.float64)])
    result = all_forms(alignment, *verdicts(mark * len(STYLES) + "+-"), groups)[form][: len(STYLES)]
    assert all(low <= high for low, high in pairwise(result.tolist()))


def test_what_is_not_verified_is_not_read():
    alignment, groups = f64([1.0, -1.0, 0.5, 2.0]), torch.tensor([0, 0, 0, 1])
    is_verified = verdicts("+-??")[1]
    results = [
        all_forms(alignment, torch.tensor([True, False, *unread]), is_verified, groups, f64([1.0, 0.0, *garbage]))
        for unread, garbage in (((False, False), (0.0, 0.0)), ((True, True), (NAN, INF)))
    ]
    assert_close(results[0], results[1], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("mark", ["+", "-", "?"])
def test_a_bad_alignment_is_never_hidden(mark):
    alignment, groups = f64([NAN, 1.0, -1.0, NAN]), torch.tensor([0, 0, 0, 1])
    for result in all_forms(alignment, *verdicts(mark + "+-?"), groups).values():
        assert result.isnan().tolist() == [True, False, False, True]


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_bad_reward_spoils_its_own_group_only(bad):
    rewards = f64([bad, 1.0, 0.0, 1.0, bad])
    result = added_advantages(torch.zeros_like(rewards), rewards, verdicts("+" * 5)[1], torch.tensor([0, 0, 1, 1, 2]))
    assert result.isnan().tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    alignment = torch.tensor([1.0, -1.0, 0.5, 0.25], dtype=dtype)
    for result in all_forms(alignment, *verdicts("+-?+"), torch.tensor([0, 0, 0, 1])).values():
        assert result.dtype == dtype and result.device == alignment.device


def test_inputs_are_left_as_they_are():
    alignment, rewards = f64([1.0, -1.0, 0.5]), f64([1.0, 0.0, 3.0])
    all_forms(alignment, *verdicts("+-?"), torch.zeros(3, dtype=torch.long), rewards)
    assert alignment.tolist() == [1.0, -1.0, 0.5] and rewards.tolist() == [1.0, 0.0, 3.0]


def test_empty_batch():
    none, groups = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    for result in all_forms(none, groups.bool(), groups.bool(), groups).values():
        assert result.shape == (0,)


FOUR, GROUPS, MASK = torch.zeros(4), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("alignment", lambda: added_advantages(GROUPS, FOUR, MASK, GROUPS)),
        ("alignment", lambda: added_advantages(FOUR[None], FOUR, MASK, GROUPS)),
        ("rewards", lambda: added_advantages(FOUR, FOUR[:3], MASK, GROUPS)),
        ("rewards", lambda: added_advantages(FOUR, FOUR.double(), MASK, GROUPS)),
        ("rewards", lambda: added_advantages(FOUR, MASK, MASK, GROUPS)),
        ("is_verified", lambda: added_advantages(FOUR, FOUR, FOUR, GROUPS)),
        ("is_verified", lambda: added_advantages(FOUR, FOUR, MASK[:3], GROUPS)),
        ("group_ids", lambda: added_advantages(FOUR, FOUR, MASK, FOUR)),
        *(
            (name, partial(form, *arguments))
            for form in BY_VERDICT
            for name, arguments in (
                ("alignment", (MASK, MASK, MASK, GROUPS)),
                ("alignment", (FOUR[None], MASK, MASK, GROUPS)),
                ("is_correct", (FOUR, FOUR, MASK, GROUPS)),
                ("is_correct", (FOUR, MASK[:3], MASK, GROUPS)),
                ("is_verified", (FOUR, MASK, GROUPS, GROUPS)),
                ("is_verified", (FOUR, MASK, MASK[:3], GROUPS)),
                ("group_ids", (FOUR, MASK, MASK, GROUPS[:3])),
                ("group_ids", (FOUR, MASK, MASK, MASK)),
            )
        ),
    ],
)
def test_mismatches_name_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()
