"""Low-rank adapters in place of full training."""

from prism.config.base import Config, Count, Positive


class LoraConfig(Config):
    """The players that train adapters of `rank`, scaled by `alpha` / `rank`, in place of all their weights.

    Every stage starts from whole weights and merges its adapters at its end.
    """

    rank: Count = 16
    alpha: Positive = 32.0
    policy: bool = True
    discriminator: bool = True
