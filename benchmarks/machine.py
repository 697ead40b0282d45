"""The machine that a figure was measured on, in a line."""

import os
import platform

import torch
import transformers


def describe_machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{device}, {threads}, torch {torch.__version__}, transformers {transformers.__version__}"
