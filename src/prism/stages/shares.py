"""This process's packs of a step."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing

from prism.packing import PackedTrees, Pixels
from prism.parallel import in_threads
from prism.runtime.distributed import Part, share


def share_packs(packs: Sequence[PackedTrees], *, is_last_pass: bool = False) -> Iterator[Part[PackedTrees]]:
    """`share`, each pack with its images prepared: the next ones in threads, while the caller is busy with one.

    Packs without images leave the vision tower out. In the last pass over `packs` the pixels of an image are released
    once no later pack has it: a pass over thousands of packs needs no more memory than one over a few.
    """
    parts = share(packs, lambda packed: bool(packed.pixels))
    pixels = [pixels for part in parts for pixels in part.item.pixels]
    num_uses = Counter(pixels)
    with closing(in_threads(Pixels.prepare, pixels)) as prepared:
        for part in parts:
            for _ in part.item.pixels:
                next(prepared)
            yield part
            num_uses.subtract(part.item.pixels)
            for own in part.item.pixels if is_last_pass else ():
                if not num_uses[own]:
                    own.release()
