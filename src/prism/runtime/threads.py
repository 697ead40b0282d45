"""How many threads torch should use on a CPU."""

import os
from typing import NamedTuple

import torch

from prism.parallel import num_processors

SMALL_MODEL_PARAMETERS = 100_000_000
"""Below this a step is so short that handing work to threads costs more than it saves."""


class ThreadChoice(NamedTuple):
    num_threads: int
    reason: str


def choose_threads(num_parameters: int = 0) -> ThreadChoice:
    """Set torch's thread count for a model of `num_parameters` and say what was chosen and why.

    Never overrides OMP_NUM_THREADS or MKL_NUM_THREADS, and leaves machines with CUDA alone. The
    count belongs to a run's reproducibility: another count may sum in another order.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(variable):
            return ThreadChoice(torch.get_num_threads(), f"{variable} is set")
    if torch.cuda.is_available():
        return ThreadChoice(torch.get_num_threads(), "the work is done on CUDA")
    if num_parameters < SMALL_MODEL_PARAMETERS:
        torch.set_num_threads(1)
        return ThreadChoice(1, "a small model on a CPU is fastest with one thread; set OMP_NUM_THREADS for another")
    cores = num_processors()
    torch.set_num_threads(cores)
    return ThreadChoice(cores, f"{cores} cores are available; set OMP_NUM_THREADS for another")
