"""Whether an engine with a forward of its own samples from the policy that trains, and by how much it is off.

Both log-probabilities of a rollout's tokens are of the policy before its update: the engine's from when it sampled,
the training forward's from the update itself, so the comparison costs nothing. Rounding makes them differ by
little in every token. Weights that did not arrive, or embeddings of images from earlier weights, make them differ by
more, but with bfloat16 not always by more than rounding does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prism.config import CopyRollout, ImportanceConfig, RolloutConfig
from prism.errors import RolloutError
from prism.packing import PackedTrees
from prism.records import RolloutGroup


@dataclass(frozen=True, slots=True, eq=False)
class Mismatch:
    """|log π_train − log π_sampler| of every token compared, in nats."""

    differences: Float[Tensor, "tokens"]

    @property
    def mean(self) -> float:
        return float(self.differences.double().mean())

    def metrics(self, tolerance: float) -> dict[str, float | None]:
        """`share` is that of the tokens which are further apart than the tolerance of the mean."""
        return {
            "sampler/mismatch_mean": self.mean,
            "sampler/mismatch_max": float(self.differences.max()),
            "sampler/mismatch_share": float((self.differences > tolerance).double().mean()),
            "sampler/mismatch_count": self.differences.numel(),
        }


def sampler_logprobs(groups: Sequence[RolloutGroup], packs: Sequence[PackedTrees]) -> list[Tensor] | None:
    """Per pack of `groups` the log-probabilities of its targets as the engine reported them; None if it did not."""
    reported = [rollout.logprobs for group in groups for rollout in group.rollouts]
    if any(logprobs is None for logprobs in reported):
        return None
    table = pad_sequence([torch.tensor(logprobs) for logprobs in reported], batch_first=True)
    return [table[packed.target_rows, packed.target_columns] for packed in packs]


def join(parts: Sequence[Mismatch | None]) -> Mismatch | None:
    """All tokens of the parts; None where nothing was compared."""
    found = [part.differences for part in parts if part is not None]
    return Mismatch(torch.cat(found)) if found else None


def check_sampler(mismatch: Mismatch | None, rollout: RolloutConfig, where: str) -> None:
    """To be called before the step that `mismatch` was measured in changes weights; `where` names it.

    Raises RolloutError where the engine does not sample from the policy within the recipe's tolerance.
    """
    if mismatch is None or not isinstance(rollout, CopyRollout):
        return
    # Also true of NaN, which would compare as no mismatch.
    if not mismatch.mean <= rollout.tolerance:
        raise RolloutError(
            f"{where}: the engine samples from another policy than the one that trains: log-probabilities of "
            f"{mismatch.differences.numel()} tokens differ by {mismatch.mean:.3g} nats in the mean, more than "
            f"rollout.tolerance ({rollout.tolerance:g}); set rollout.type=transformers, or raise the tolerance if "
            "the precision it samples in explains it (dtype=float32 tells)"
        )


def mismatch_metrics(mismatch: Mismatch | None, rollout: RolloutConfig) -> dict[str, float | None]:
    """None of an engine that is the training model."""
    if mismatch is None or not isinstance(rollout, CopyRollout):
        return {}
    return mismatch.metrics(rollout.tolerance)


def importance_of(rollout: RolloutConfig) -> ImportanceConfig | None:
    return rollout.importance if isinstance(rollout, CopyRollout) else None
