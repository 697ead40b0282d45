"""What every stage stands on: resumable runs, checkpoints, logs, optimizers, seeds.

Its modules are imported one by one, since half of them need no torch, which takes seconds to load.
"""
