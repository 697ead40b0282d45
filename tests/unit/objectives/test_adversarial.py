import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from prism.objectives import bradley_terry_loss, discriminator_accuracy, discriminator_loss, score_regularization

CASES = json.loads((Path(__file__).parents[2] / "golden" / "objectives_discriminator_loss.json").read_text())
TWO_BRANCHES = [case for case in CASES if "valid" in case]
close_to_golden = partial(assert_close, rtol=1e-6, atol=1e-6)
SCORES = ("teacher_caption_scores", "student_caption_scores", "teacher_cot_scores", "student_cot_scores")


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def two_views(teacher_perception, student_perception, teacher_reasoning, student_reasoning):
    return {
        "perception": (teacher_perception, student_perception),
        "reasoning": (teacher_reasoning, student_reasoning),
    }


def scores_of(case):
    return [f64(case[name]).requires_grad_() for name in SCORES]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in TWO_BRANCHES])
@pytest.mark.parametrize("weight_dtype", [torch.bool, torch.float64])
def test_two_branch_loss_matches_golden(case, weight_dtype):
    scores = scores_of(case)
    result = discriminator_loss(
        two_views(*scores),
        weights=torch.tensor(case["valid"]).to(weight_dtype),
        regularization=case["score_reg_coef"],
        # The reference's rule for a batch without any valid pair, which is not our default.
        teacher_anchor=0.01,
    )
    result.loss.backward()
    close_to_golden(result.loss.detach(), f64(case["loss"]))
    close_to_golden(result.views["perception"], f64(case["caption_loss"]))
    close_to_golden(result.views["reasoning"], f64(case["cot_loss"]))
    close_to_golden(result.score_regularization, f64(case["score_reg"]))
    assert result.num_pairs == sum(case["valid"])
    for tensor, name in zip(scores, SCORES, strict=True):
        close_to_golden(tensor.grad, f64(case["grads"][name]))


def test_without_a_valid_pair_only_the_regulariser_is_left():
    (case,) = (case for case in TWO_BRANCHES if case["name"] == "none_valid_fallback")
    scores = scores_of(case)
    result = discriminator_loss(two_views(*scores), weights=torch.tensor(case["valid"]))
    result.loss.backward()
    assert result.loss.item() == pytest.approx(1e-3 * case["score_reg"])
    assert result.views["perception"].item() == 0 and result.num_pairs == 0
    for tensor in scores:
        # d/ds of 0.001 · mean over 4 vectors of mean s² over 4 rows.
        assert_close(tensor.grad, 1e-3 * 2 * tensor.detach() / 16)


def test_whole_response_scores_match_golden():
    (case,) = (case for case in CASES if "student_values" in case)
    teacher, student = f64(case["teacher_values"]).requires_grad_(), f64(case["student_values"]).requires_grad_()
    loss = bradley_terry_loss(
        (teacher * f64(case["teacher_mask"])).sum(-1), (student * f64(case["student_mask"])).sum(-1)
    )
    loss.backward()
    close_to_golden(loss.detach(), f64(case["loss"]))
    close_to_golden(teacher.grad, f64(case["grads"]["teacher_values"]))
    close_to_golden(student.grad, f64(case["grads"]["student_values"]))


def test_hand_worked_loss_and_weights():
    # σ(log 3) = 3/4 and σ(0) = 1/2.
    teacher, student = f64([math.log(3), 5.0, 1.0]), f64([0.0, 5.0, 100.0])
    loss = bradley_terry_loss(teacher, student, torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx((-math.log(0.75) - math.log(0.5)) / 2)
    assert bradley_terry_loss(teacher, student, f64([3.0, 1.0, 0.0])).item() == pytest.approx(
        (-3 * math.log(0.75) - math.log(0.5)) / 4
    )
    # Weights that sum to less than one are not blown up.
    assert bradley_terry_loss(teacher, student, f64([0.5, 0.0, 0.0])).item() == pytest.approx(-0.5 * math.log(0.75))


def test_label_smoothing_by_hand():
    # σ(log 3) = 3/4: the teacher counts as better with probability 0.9 and as worse with 0.1.
    teacher, student = f64([math.log(3), 7.0]), f64([0.0, 0.0])
    weights = torch.tensor([True, False])
    loss = bradley_terry_loss(teacher, student, weights, label_smoothing=0.1)
    assert loss.item() == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25))


def test_label_smoothing_is_content_with_a_finite_margin():
    # −0.8·log σ(m) − 0.2·log σ(−m) is least where σ(m) = 0.8; a greater margin is pushed back.
    teacher = f64([math.log(4), 30.0, 0.0]).requires_grad_()
    bradley_terry_loss(teacher, torch.zeros_like(teacher), label_smoothing=0.2).backward()
    assert_close(teacher.grad, f64([0.0, 0.2, -0.3]) / 3)


def test_both_branches_are_smoothed_and_nothing_else():
    scores, weights, _ = pairs(3)
    smoothed = discriminator_loss(two_views(*scores), weights=weights, regularization=0.1, label_smoothing=0.2)
    branches = [
        bradley_terry_loss(teacher, student, weights, label_smoothing=0.2)
        for teacher, student in (scores[:2], scores[2:])
    ]
    assert_close(torch.stack(list(smoothed.views.values())), torch.stack(branches))
    assert_close(smoothed.loss, sum(branches) + 0.1 * scores.square().mean())
    plain = discriminator_loss(two_views(*scores), weights=weights, regularization=0.1)
    assert torch.equal(
        discriminator_loss(two_views(*scores), weights=weights, regularization=0.1, label_smoothing=0.0).loss,
        plain.loss,
    )


def test_unweighted_pairs_may_hold_anything():
    teacher, student = f64([1.0, math.nan, 2.0]).requires_grad_(), f64([0.0, math.inf, 3.0]).requires_grad_()
    weights = torch.tensor([True, False, True])
    loss = bradley_terry_loss(teacher, student, weights)
    clean = [f64([1.0, 2.0]).requires_grad_(), f64([0.0, 3.0]).requires_grad_()]
    expected = bradley_terry_loss(*clean)
    assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, [teacher, student])
    for actual, other in zip(gradients, torch.autograd.grad(expected, clean), strict=True):
        assert_close(actual[weights], other)
        assert actual[~weights].item() == 0
    assert discriminator_accuracy(teacher, student, weights) == (0.5, 2)


def test_no_pair_gives_a_connected_zero():
    teacher = torch.full((2,), math.nan, requires_grad=True)
    loss = bradley_terry_loss(teacher, torch.zeros(2), torch.zeros(2))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, teacher)[0].tolist() == [0.0, 0.0]
    assert bradley_terry_loss(torch.zeros(0), torch.zeros(0)).item() == 0


def pairs(seed):
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 12, (1,), generator=generator))
    scores = 3 * torch.randn(4, count, generator=generator, dtype=torch.float64)
    return scores, torch.rand(count, generator=generator) < 0.6, torch.randperm(count, generator=generator)


few_examples = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)


@few_examples
@given(SEEDS)
def test_micro_batches_with_global_counts_add_up(seed):
    scores, weights, order = pairs(seed)
    whole, parted = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    total = discriminator_loss(two_views(*whole), weights=weights, regularization=0.1)
    total.loss.backward()
    counts = {"denominator": weights.sum(), "row_denominator": scores.shape[1]}
    value = 0.0
    for rows in order.tensor_split(3):
        piece = discriminator_loss(two_views(*parted[:, rows]), weights=weights[rows], regularization=0.1, **counts)
        piece.loss.backward()
        value += piece.loss.item()
    assert value == pytest.approx(total.loss.item())
    assert_close(parted.grad, whole.grad)


@few_examples
@given(SEEDS, st.floats(-50, 50))
def test_the_loss_sees_differences_only(seed, shift):
    scores, weights, order = pairs(seed)
    expected = bradley_terry_loss(scores[0], scores[1], weights)
    assert_close(bradley_terry_loss(scores[0] + shift, scores[1] + shift, weights), expected)
    assert_close(bradley_terry_loss(scores[0][order], scores[1][order], weights[order]), expected)


@few_examples
@given(SEEDS)
def test_swapping_teacher_and_student_mirrors_loss_and_accuracy(seed):
    scores, _, _ = pairs(seed)
    teacher, student = scores[0], scores[1]
    # −log σ(m) − (−log σ(−m)) = −m
    difference = bradley_terry_loss(teacher, student) - bradley_terry_loss(student, teacher)
    assert_close(difference, -(teacher - student).mean())
    forward, backward = discriminator_accuracy(teacher, student)[0], discriminator_accuracy(student, teacher)[0]
    assert forward is not None and backward is not None
    assert forward + backward == pytest.approx(1)


def test_regularisation_by_hand():
    # Mean squares 5 and 9 of vectors of different length.
    assert score_regularization(f64([1.0, 3.0]), f64([-3.0])).item() == pytest.approx(7.0)
    assert score_regularization(f64([1.0, 3.0]), denominator=10).item() == pytest.approx(1.0)


def test_accuracy_counts_ties_half_and_has_no_number_without_pairs():
    teacher, student = f64([2.0, 1.0, 0.0, 5.0]), f64([1.0, 1.0, 3.0, 0.0])
    assert discriminator_accuracy(teacher, student) == (0.625, 4)
    assert discriminator_accuracy(teacher, student, torch.tensor([1, 1, 0, 0])) == (0.75, 2)
    assert discriminator_accuracy(teacher, student, torch.zeros(4)) == (None, 0)
    assert discriminator_accuracy(teacher[:0], student[:0]) == (None, 0)
    accuracy, count = discriminator_accuracy(f64([math.nan, 1.0]), f64([0.0, 0.0]))
    assert accuracy is not None and math.isnan(accuracy) and count == 2


TWO = torch.zeros(2)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("teacher_scores", lambda: bradley_terry_loss(TWO.long(), TWO)),
        ("teacher_scores", lambda: bradley_terry_loss(TWO[None], TWO[None])),
        ("student_scores", lambda: bradley_terry_loss(TWO, TWO[:1])),
        ("student_scores", lambda: discriminator_accuracy(TWO, TWO.double())),
        ("weights", lambda: bradley_terry_loss(TWO, TWO, torch.ones(1))),
        ("weights", lambda: discriminator_loss(two_views(TWO, TWO, TWO, TWO), torch.ones(3))),
        (r"views\['perception'\] student", lambda: discriminator_loss(two_views(TWO, TWO[:1], TWO, TWO))),
        (r"views\['reasoning'\] teacher", lambda: discriminator_loss(two_views(TWO, TWO, TWO.double(), TWO))),
        (r"views\['reasoning'\] student", lambda: discriminator_loss(two_views(TWO, TWO, TWO, TWO[:1]))),
        ("views:", lambda: discriminator_loss({})),
        (r"scores\[1\]", lambda: score_regularization(TWO, TWO.long())),
        ("scores:", lambda: score_regularization()),
        ("label_smoothing", lambda: bradley_terry_loss(TWO, TWO, label_smoothing=0.5)),
        ("label_smoothing", lambda: bradley_terry_loss(TWO, TWO, label_smoothing=-0.1)),
    ],
)
def test_mismatches_name_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()
