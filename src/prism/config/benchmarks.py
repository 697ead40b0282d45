"""Evaluation of one model on published benchmarks."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from prism.config.base import (
    Config,
    Count,
    NonNegativeCount,
    PathSafeName,
    Positive,
    Precision,
    contradiction,
    variant_or,
)

BenchmarkName = Literal["mathvista", "mathverse", "mathvision", "wemath", "mmmu", "mmmu_pro", "hallusion_bench"]


class BenchmarkConfig(Config):
    """One benchmark: its rows are in `path`, a data file or a directory of them, or come from the hub.

    `revision` pins the hub's version, `limit` keeps so many items, for a trial: the first ones, of every part of a
    benchmark in turn.
    """

    name: BenchmarkName
    path: Path | None = None
    revision: str | None = None
    limit: Count | None = None


class LocalModel(Config):
    """A Hugging Face directory, run by this process; `batch_size` answers are decoded at a time, with weights in
    `precision`."""

    type: Literal["checkpoint"] = "checkpoint"
    path: Path
    batch_size: Count = 64
    precision: Precision = "float32"

    @property
    def changed_precision(self) -> dict[str, str]:
        """Part of what decides its samples, where it is not the default."""
        return {} if self.precision == "float32" else {"precision": self.precision}


class ServerSettings(Config):
    """An OpenAI-compatible server (vLLM, SGLang, a hosted one) and the name it gives the model.

    The key is read from the environment variable `api_key_env`; a local server needs none. `extra_body`
    is added to every request. `takes_seed = false` for servers that refuse one.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    concurrency: Count = 32
    takes_seed: bool = True
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    timeout_s: Positive = 600.0


class ServedModel(ServerSettings):
    """A model behind a server; a killed evaluation loses at most `batch_size` answers."""

    type: Literal["server"] = "server"
    batch_size: Count = 256


class JudgeConfig(ServerSettings):
    """A language model that compares answers with the reference, beside the rules.

    `scope = "all"` has it look at every answer, so that it can lower a score as well as raise it, and its
    agreement with the rules is measured; "undecided" asks only where the rules gave up.
    """

    scope: Literal["all", "undecided"] = "all"
    max_tokens: Count = 1024


class BenchmarkRecipe(Config):
    """One model on any of the seven benchmarks: once greedily, and `num_samples` times at `temperature`.

    `output` is the directory of the results (`runs/<name>` by default). `system` is a system message for
    models that need one. `pass_at` lists the k of pass@k over the samples.
    """

    name: PathSafeName
    output: Path | None = None
    model: Annotated[
        Annotated[LocalModel, Tag("checkpoint")] | Annotated[ServedModel, Tag("server")], variant_or("checkpoint")
    ]
    benchmarks: Annotated[tuple[BenchmarkConfig, ...], Field(min_length=1)]
    greedy: bool = True
    num_samples: NonNegativeCount = 0
    temperature: Positive = 1.0
    max_response_tokens: Count = 8192
    pass_at: tuple[Count, ...] = ()
    system: str | None = None
    seed: int = 0
    judge: JudgeConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> "BenchmarkRecipe":
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise contradiction("benchmarks", names, "must name each benchmark once")
        if not self.greedy and not self.num_samples:
            raise contradiction("num_samples", 0, "must be at least 1 without greedy decoding")
        if self.pass_at and max(self.pass_at) > self.num_samples:
            raise contradiction("pass_at", self.pass_at, f"must not exceed num_samples ({self.num_samples})")
        return self

    @property
    def directory(self) -> Path:
        return self.output if self.output is not None else Path("runs") / self.name
