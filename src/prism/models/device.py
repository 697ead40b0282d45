"""Where this process computes, and what it leaves there."""

import gc
import os

import torch


def own_device() -> torch.device:
    """The accelerator of this process, by its place on the machine where torchrun started several; else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def free_memory() -> None:
    """Gives back what models that are no longer used hold. A sharded one is part of reference cycles, which Python
    would look for at some later time: the next stage would begin with the weights of the last beside its own."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
