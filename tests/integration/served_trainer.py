"""Samples from served engines in as many processes as torchrun starts, and prints what each has.

torchrun --nproc-per-node 2 served_trainer.py URL[,URL…]…

One engine after another: each argument names the servers of one.
"""

import json
import os
import sys

from prism.config import ServedRollout
from prism.models import checkpoint_weights, load_policy
from prism.records import Prompt
from prism.rollout.sampling import Sampling
from prism.rollout.served_engine import ServedEngine
from prism.runtime.distributed import processes
from prism.runtime.launch import process_index
from prism.stages.workspace import SHIPPED_BASE

with processes():
    for urls in sys.argv[1:]:
        engine = ServedEngine(ServedRollout(base_urls=tuple(urls.split(","))), max_length=300)
        engine.update_weights(checkpoint_weights(load_policy(SHIPPED_BASE)))
        prompts = [Prompt(str(number), f"How many are {number} and {number}?") for number in range(5)]
        groups = engine.generate(prompts, num_samples=2, sampling=Sampling(1.0, 12), seed=3)
        tokens = [[rollout.token_ids for rollout in group.rollouts] for group in groups]
        # Written at once: the lines of two processes must not mix.
        os.write(1, json.dumps([urls, process_index(), tokens]).encode() + b"\n")
