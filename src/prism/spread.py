"""Whether numbers differ by more than round-off."""

from collections.abc import Sequence

ROUND_OFF = 1e-12


def is_constant(values: Sequence[float]) -> bool:
    """Whether there is no spread to take limits from: means of equal values differ in their last bits, and differences
    of them are 1e-17 where they should be 0, which any relative bound alone would take for a spread."""
    return len(values) < 2 or max(values) - min(values) <= ROUND_OFF * max(1.0, *map(abs, values))
