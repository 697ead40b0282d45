"""This process's packs of a step."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from prism.packing import PackedTrees, Pixels
from prism.runtime.distributed import Part, share


def share_packs(packs: Sequence[PackedTrees]) -> Iterator[Part[PackedTrees]]:
    """`share`, each pack with its images prepared: those of the next one in threads, while the caller is busy with one.

    Packs without images leave the vision tower out.
    """
    parts = share(packs, lambda packed: bool(packed.pixels))
    with ThreadPoolExecutor(thread_name_prefix="images") as threads:

        def begin(places: slice) -> list[Future[Tensor]]:
            return [threads.submit(_prepare, pixels) for part in parts[places] for pixels in part.item.pixels]

        coming = begin(slice(0, 1))
        for place, part in enumerate(parts):
            for prepared in coming:
                prepared.result()
            coming = begin(slice(place + 1, place + 2))
            yield part


def _prepare(pixels: Pixels) -> Tensor:
    return pixels.values
