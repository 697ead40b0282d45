"""This process's packs of a step."""

from collections.abc import Sequence

from prism.packing import PackedTrees
from prism.runtime.distributed import Part, share


def share_packs(packs: Sequence[PackedTrees]) -> list[Part[PackedTrees]]:
    """`share`; packs without images leave the vision tower out."""
    return share(packs, lambda packed: packed.pixel_values is not None)
