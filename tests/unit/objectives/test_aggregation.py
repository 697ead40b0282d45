import pytest
import torch
from torch.testing import assert_close

from prism.objectives import AGGREGATIONS, aggregate

VALUES = torch.tensor([[1.0, 2.0, 6.0], [4.0, 99.0, 99.0], [99.0, 99.0, 99.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    # Tokens 1, 2, 6, 4; sequence means 3 and 4, sums 9 and 4; the third sequence has no token.
    [("token-mean", 13 / 4), ("seq-mean-token-mean", 3.5), ("seq-mean-token-sum", 6.5)],
)
def test_hand_worked(aggregation, expected):
    assert aggregate(VALUES, MASK, aggregation).item() == pytest.approx(expected)


@pytest.mark.parametrize(("aggregation", "expected"), [("token-mean", 1.3), ("seq-mean-token-mean", 0.7)])
def test_denominator_replaces_the_count(aggregation, expected):
    for denominator in (10, 10.0, torch.tensor(10), torch.tensor(10.0, dtype=torch.float32)):
        result = aggregate(VALUES, MASK, aggregation, denominator)
        assert result.dtype == torch.float64
        assert result.item() == pytest.approx(expected)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_masked_places_reach_neither_value_nor_gradient(aggregation):
    garbage = torch.where(MASK, VALUES, torch.tensor(float("nan"))).requires_grad_()
    clean = VALUES.clone().requires_grad_()
    first, second = aggregate(garbage, MASK, aggregation), aggregate(clean, MASK, aggregation)
    first.backward()
    second.backward()
    assert_close(first, second)
    assert_close(garbage.grad, clean.grad)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("denominator", [None, 0, torch.tensor(0)])
def test_empty_mask_gives_a_connected_zero(aggregation, denominator):
    values = torch.full((2, 3), float("nan"), requires_grad=True)
    result = aggregate(values, torch.zeros(2, 3, dtype=torch.bool), aggregation, denominator)
    result.backward()
    assert result.item() == 0
    assert_close(values.grad, torch.zeros(2, 3))


def test_long_half_precision_batches_are_counted_exactly():
    # 4097 is not a bfloat16 number: a count kept in that dtype would divide by 4096.
    values = torch.full((1, 4097), 2.0, dtype=torch.bfloat16)
    result = aggregate(values, torch.ones(1, 4097, dtype=torch.bool))
    assert result.dtype == torch.bfloat16
    assert result.item() == 2.0


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("values", lambda: aggregate(VALUES[0], MASK)),
        ("values", lambda: aggregate(MASK, MASK)),
        ("mask", lambda: aggregate(VALUES, MASK.long())),
        ("mask", lambda: aggregate(VALUES, MASK[:2])),
        ("aggregation", lambda: aggregate(VALUES, MASK, "mean")),  # pyright: ignore[reportArgumentType]
    ],
)
def test_mismatches_name_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()
