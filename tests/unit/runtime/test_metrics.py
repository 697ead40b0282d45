import json
import math

import pytest
import torch

from prism.errors import NumericsError
from prism.runtime.metrics import check_finite, metric_row


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan), torch.tensor([1.0, math.inf])]
)
def test_non_finite_values_name_quantity_and_step(value):
    with pytest.raises(NumericsError, match=r"loss/policy .* at step 12;"):
        check_finite("loss/policy", value, 12)


def test_finite_values_pass():
    for value in (0, 1.5, -1e300, torch.zeros(3), torch.tensor([], dtype=torch.bfloat16), torch.tensor([1, 2])):
        check_finite("x", value, 1)


def test_a_row_holds_plain_numbers_and_nulls():
    row = metric_row(3, {"a": torch.tensor(0.5), "b": None, "c": 2, "d": torch.tensor(7), "e": True}, "sft")
    assert json.dumps(row) == '{"step": 3, "a": 0.5, "b": null, "c": 2, "d": 7, "e": 1}'
    with pytest.raises(NumericsError, match=r"sft: a is nan at step 3"):
        metric_row(3, {"a": torch.tensor(math.nan)}, "sft")
