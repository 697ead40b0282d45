"""The `prism` command in float64, to be run as a script: what two ways of adding up give then differs by 1e-15.

In float32 rounding is enough to draw another token now and then, and from there on two runs have nothing in common.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from prism.cli import main
from prism.models.discriminator import Discriminator
from prism.models.policy import load_policy


def grouped_mm(rows: Tensor, experts: Tensor, *, offs: Tensor, **_: object) -> Tensor:
    """torch's own, which has no float64: the rows up to each offset by the matrix of their expert."""
    bounds = [0, *offs.tolist(), len(rows)]
    # Rows behind the last offset belong to nobody.
    matrices = [*experts, torch.zeros_like(experts[0])]
    return torch.cat([rows[bounds[n] : bounds[n + 1]] @ matrix for n, matrix in enumerate(matrices)])


def use_double_precision() -> None:
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.nn.functional.grouped_mm = grouped_mm  # type: ignore[assignment]
    loaders: list[Any] = [load_policy, Discriminator.from_pretrained.__func__]  # type: ignore[attr-defined]
    for load in loaders:
        load.__kwdefaults__["dtype"] = "float64"


if __name__ == "__main__":
    use_double_precision()
    sys.exit(main(sys.argv[1:]))
