"""The `prism` command in float64, done by several forked processes together.

    python forked_prism.py

Every line it is given is an order, in JSON: `num_processes` and the command's `arguments`. The answer is a line with
what each process ended with: nothing, or its error.
"""

import json
import sys
from importlib import import_module

import torch
from double_precision import use_double_precision
from forking import fork_all

from prism.cli import main

if __name__ == "__main__":
    use_double_precision()
    torch.set_num_threads(1)
    import_module("prism.stages.pipeline")  # which the command does late, and so in every process anew
    for order in map(json.loads, sys.stdin):

        def work(arguments: list[str] = order["arguments"]) -> None:
            status = main(arguments)
            assert status == 0, f"exit status {status}"

        print(json.dumps(fork_all(order["num_processes"], work)), flush=True)
