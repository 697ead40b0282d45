"""The problems of evaluation sets, read by the readers that evaluation itself uses."""

from collections.abc import Iterator
from dataclasses import replace

from prism.config.curation import EvaluationSet
from prism.data.readers import read_prompts
from prism.evals.benchmarks import get_benchmark
from prism.evals.items import read_items
from prism.evals.sources import load_benchmark
from prism.records import Prompt
from prism.runtime.hashing import path_sha256


def read_evaluation_set(config: EvaluationSet) -> tuple[str, Iterator[Prompt]]:
    """The SHA-256 of its content and its problems, whose ids begin with the set's name. Raises DataError."""
    if config.is_benchmark:
        benchmark = get_benchmark(config.name)
        source = load_benchmark(benchmark, config.path, config.revision)
        prompts = (item.prompt for item in read_items(benchmark, source).values())
        return source.sha256, _named(config.name, prompts)
    assert config.path is not None
    prompts = read_prompts(config.path)  # an unusable file is told at once
    return path_sha256(config.path), _named(config.name, prompts)


def _named(name: str, prompts: Iterator[Prompt]) -> Iterator[Prompt]:
    return (replace(prompt, id=f"{name}/{prompt.id}") for prompt in prompts)
