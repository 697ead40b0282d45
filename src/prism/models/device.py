"""Where this process computes."""

import os

import torch


def own_device() -> torch.device:
    """The accelerator of this process, by its place on the machine where torchrun started several; else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
