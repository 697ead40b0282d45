"""What the steps of data curation that ask models are told: whom, what, how often, and for how much."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, Tag, model_validator

from prism.config.base import (
    Config,
    Count,
    Fraction,
    NonNegative,
    NonNegativeCount,
    Positive,
    contradiction,
    variant_or,
)
from prism.config.benchmarks import BenchmarkName, LocalModel, ServerSettings


class PriceConfig(Config):
    """Of a million tokens, in any one currency."""

    prompt: NonNegative = 0.0
    completion: NonNegative = 0.0


class BudgetConfig(Config):
    """What a step may spend on a store in all its runs together; without limits it only keeps the books."""

    max_cost: Positive | None = None
    max_tokens: Count | None = None
    price: PriceConfig = PriceConfig()

    @model_validator(mode="after")
    def _check(self) -> "BudgetConfig":
        if self.max_cost is not None and not self.price.prompt + self.price.completion:
            raise contradiction("max_cost", self.max_cost, "needs price.prompt and price.completion")
        return self


class AskedServers(ServerSettings):
    """Servers of one model: `other_base_urls` are further addresses among which the requests are shared.

    `concurrency` is per address and at most: it falls and rises with what the server refuses.
    """

    type: Literal["server"] = "server"
    other_base_urls: tuple[str, ...] = ()
    max_attempts: Count = 8
    backoff_s: Positive = 1.0


class AskingRecipe(Config):
    """Of every step that may ask servers. `ask_in_doubt` sends again what timed out, was cut off, or was under way when
    a run was killed: for servers that cost nothing, for others may so be paid twice.
    """

    budget: BudgetConfig = BudgetConfig()
    ask_in_doubt: bool = False


class TeachRecipe(AskingRecipe):
    """Demonstrations from a teacher behind an OpenAI-compatible API.

    `num_samples` per problem; a sample whose format is wrong is repaired by one further request. `rows` are the hard
    problems without a demonstration (all of these where `difficulty` has not run), or all. `template` is a text file
    with `{question}` in it, `repair_template` one with `{failure}`.
    """

    teacher: AskedServers
    num_samples: Count = 2
    temperature: NonNegative = 1.0
    max_response_tokens: Count = 8192
    rows: Literal["hard", "all"] = "hard"
    template: Path | None = None
    repair_template: Path | None = None
    seed: int = 0


AskedModel = Annotated[
    Annotated[AskedServers, Tag("server")] | Annotated[LocalModel, Tag("checkpoint")], variant_or("server")
]


class DifficultyRecipe(AskingRecipe):
    """Pass rates of problems over `num_samples` of each of `models`, `wave` at a time.

    The set of a problem follows from all models: hard if none ever solves it, for RL if the pass rate of the first,
    which is the one to be trained, lies in [`rl_low`, `rl_high`]. Sampling ends once the set can no longer change.
    """

    models: Annotated[tuple[AskedModel, ...], Field(min_length=1)]
    num_samples: Count = 16
    wave: Count = 4
    rl_low: Fraction = 0.2
    rl_high: Fraction = 0.8
    temperature: Positive = 1.0
    max_response_tokens: Count = 8192
    template: Path | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "DifficultyRecipe":
        if not 0 < self.rl_low <= self.rl_high:
            raise contradiction("rl_low", self.rl_low, f"must be above 0 and not above rl_high ({self.rl_high})")
        names = [str(model.path) if isinstance(model, LocalModel) else model.model for model in self.models]
        if len(set(names)) < len(names):
            raise contradiction("models", names, "must name each model once")
        return self


class EvaluationSet(Config):
    """A set that nothing may be trained on: one of the benchmarks, by its name, or a data file of our own.

    `path` is a data file or, for a benchmark, also a directory; without it a benchmark comes from the hub, in
    `revision`.
    """

    name: str
    path: Path | None = None
    revision: str | None = None

    @property
    def is_benchmark(self) -> bool:
        return self.name in get_args(BenchmarkName)

    @model_validator(mode="after")
    def _check(self) -> "EvaluationSet":
        if not self.is_benchmark and self.path is None:
            raise contradiction("path", None, f"must be given, since {self.name!r} is none of the benchmarks")
        return self


class DecontaminateRecipe(Config):
    """Removes what is in any of the sets `against`."""

    against: Annotated[tuple[EvaluationSet, ...], Field(min_length=1)]


class VerifyRecipe(AskingRecipe):
    """Which demonstrations hold: by rules, by a `judge` for the answers on which rules cannot decide, and by whether
    the reasoning rests on the description; then what is in the sets `against`, and duplicates, are removed.

    Where a problem has no answer, the samples' most frequent one is taken if `min_agreement` of them give it and two
    at least. `max_numbers_from_nowhere` are numbers in the reasoning that are in no evidence.
    """

    judge: AskedServers | None = None
    judge_max_tokens: Count = 1024
    min_agreement: Fraction = 0.5
    min_caption_words: NonNegativeCount = 5
    min_caption_items: NonNegativeCount = 2
    max_numbers_from_nowhere: NonNegativeCount = 0
    against: tuple[EvaluationSet, ...] = ()
