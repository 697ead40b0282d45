"""Which curated rows serve which stage."""

from pydantic import model_validator

from prism.config.base import Config, Count, NonNegative, NonNegativeCount, Positive, contradiction
from prism.config.curation import AskedModel, AskingRecipe


class QualityWeights(Config):
    """What each property of a demonstration weighs in its quality; see `curation.quality`."""

    verified: NonNegative = 3.0
    agreement: NonNegative = 2.0
    difficulty: NonNegative = 2.0
    grounding: NonNegative = 1.0
    reasoning: NonNegative = 1.0
    first_try: NonNegative = 1.0

    @model_validator(mode="after")
    def _check(self) -> "QualityWeights":
        if not sum(self.model_dump().values()):
            raise contradiction("verified", self.verified, "at least one weight must be above 0")
        return self


class SplitConfig(Config):
    """How many rows are reserved at most, best first: demonstrations for alignment, prompts for RL. The rest is SFT's.

    A description of `enough_items` items and a reasoning of `enough_steps` steps are as good as longer ones.
    """

    alignment: NonNegativeCount = 6000
    rl: NonNegativeCount = 2000
    enough_items: Count = 8
    enough_steps: Count = 6
    weights: QualityWeights = QualityWeights()


class PairsRecipe(AskingRecipe):
    """Warm-up pairs: the demonstrations reserved for alignment against rollouts of an SFT model.

    Of `num_samples` rollouts the first valid one is the student's.
    """

    model: AskedModel
    num_samples: Count = 2
    temperature: Positive = 1.0
    max_response_tokens: Count = 2048
    seed: int = 0
