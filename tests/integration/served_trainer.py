"""Samples from served engines in as many processes as torchrun starts, and prints what each has.

torchrun --nproc-per-node 2 served_trainer.py URL…
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
    engine = ServedEngine(ServedRollout(base_urls=tuple(sys.argv[1:])), max_length=300)
    engine.update_weights(checkpoint_weights(load_policy(SHIPPED_BASE)))
    prompts = [Prompt(str(number), f"How many are {number} and {number}?") for number in range(5)]
    groups = engine.generate(prompts, num_samples=2, sampling=Sampling(1.0, 12), seed=3)
    tokens = [[rollout.token_ids for rollout in group.rollouts] for group in groups]
    os.write(1, json.dumps([process_index(), tokens]).encode() + b"\n")  # at once: the lines of two must not mix
