"""Which of the processes that torchrun started this one is, by the environment: known before they meet, and without
loading torch."""

import os


def was_started_with_others() -> bool:
    """Whether torchrun started several processes, which may not have met yet."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def process_index() -> int:
    """0 for the first, which writes."""
    return int(os.environ.get("RANK", "0")) if was_started_with_others() else 0


def is_first() -> bool:
    return process_index() == 0
