"""Counter-based randomness: every random draw follows from what it is for, not from what was drawn before.

A step asks for `generator(seed, "rollout", step, prompt_id)` and gets the same stream whether the
run came here in one go or was killed and resumed ten times. The global generators (dropout, library
code) are seeded once per stage and travel with the checkpoint.
"""

import hashlib
import random
from typing import Any

import numpy as np
import torch


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


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def python_random(*parts: int | str) -> random.Random:
    """A `random.Random` seeded with `derive_seed(*parts)`."""
    return random.Random(derive_seed(*parts))


def seed_globals(*parts: int | str) -> None:
    """Seed the global generators of Python, numpy and torch (all devices)."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The global generators' states, JSON-able. CUDA devices only where CUDA is in use."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": _to_hex(torch.get_rng_state()),
        "cuda": [_to_hex(state) for state in devices],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since `rng_state()` returned `state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_from_hex(state["torch"]))
    if torch.cuda.is_available():
        # A machine with fewer devices can still go on; its streams for the missing ones are not needed.
        for device in range(min(len(state["cuda"]), torch.cuda.device_count())):
            torch.cuda.set_rng_state(_from_hex(state["cuda"][device]), device)


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
