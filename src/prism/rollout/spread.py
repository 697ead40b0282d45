"""An engine in every process: each samples for some of the prompts, and all of them have all rollouts."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.engine import PartialEngine, Sampling, streams
from prism.runtime.distributed import gather, own_slices


class SpreadEngine:
    """`engine` is this process's own; `batch_size` is how many samples it draws at a time.

    What is drawn is what a single process would draw, in the same batches.
    """

    def __init__(self, engine: PartialEngine, *, batch_size: int) -> None:
        self._engine = engine
        self._batch_size = batch_size

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        sources = streams(prompts, seed)
        own = [
            place
            for piece in own_slices(len(prompts), max(1, self._batch_size // num_samples))
            for place in range(piece.start, piece.stop)
        ]
        groups = self._engine.generate(
            [prompts[place] for place in own],
            num_samples=num_samples,
            sampling=sampling,
            seed=seed,
            sources=[sources[place] for place in own],
        )
        # Without the prompts: they hold the images.
        drawn = gather([(place, group.rollouts) for place, group in zip(own, groups, strict=True)])
        rollouts: dict[int, tuple[Rollout, ...]] = dict(drawn)
        return [RolloutGroup(prompt, rollouts[place]) for place, prompt in enumerate(prompts)]

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._engine.update_weights(weights)

    def sleep(self) -> None:
        self._engine.sleep()

    def close(self) -> None:
        self._engine.close()
