"""This process's packs of a step."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from prism.packing import PackedTrees, Pixels
from prism.parallel import in_threads
from prism.runtime.distributed import Part, share


def share_packs(packs: Sequence[PackedTrees]) -> Iterator[Part[PackedTrees]]:
    """`share`, each pack with its images prepared: the next ones in threads, while the caller is busy with one.

    Packs without images leave the vision tower out.
    """
    parts = share(packs, lambda packed: bool(packed.pixels))
    pixels = [pixels for part in parts for pixels in part.item.pixels]
    with closing(in_threads(Pixels.prepare, pixels)) as prepared:
        for part in parts:
            for _ in part.item.pixels:
                next(prepared)
            yield part
