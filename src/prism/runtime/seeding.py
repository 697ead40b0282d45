"""Counter-based randomness: every random draw follows from what it is for, not from what was drawn before.

A step asks for `generator(seed, "rollout", step, prompt_id)` (`runtime.generators`) and gets the same stream whether
the run came here in one go or was killed and resumed ten times.
"""

import hashlib
import random


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from the parts, the same on every machine and Python version.

    The encoding keeps type and length, so (1, "2"), ("1", 2), (12,) and ("12",) all differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(f"a seed is derived from integers and strings, not {type(part).__name__}")
        data = str(part).encode()
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "big") >> 1


def derive_small_seed(*parts: int | str) -> int:
    """Its last 31 bits: some servers and libraries refuse more, and JSON numbers above 2^53 may be rounded."""
    return derive_seed(*parts) % 2**31


def python_random(*parts: int | str) -> random.Random:
    """A `random.Random` seeded with `derive_seed(*parts)`."""
    return random.Random(derive_seed(*parts))
