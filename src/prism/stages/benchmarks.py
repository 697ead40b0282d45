"""Evaluates one model, on this machine or behind a server, on published benchmarks."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from prism.config import BenchmarkConfig, BenchmarkRecipe, JudgeConfig, LocalModel, ServerSettings
from prism.errors import ConfigError, DataError
from prism.evals.benchmarks import BENCHMARKS, get_benchmark
from prism.evals.benchmarks.benchmark import PROFILES, ItemScore, Profile
from prism.evals.comparison import Comparison, average_comparison, compare, format_comparison
from prism.evals.items import Item, read_items
from prism.evals.judge import Judge
from prism.evals.runner import Questioning, decodings
from prism.evals.scorecard import ScoredResponse, ask_judge, score_responses, summarize_benchmark
from prism.evals.sources import Source, load_benchmark
from prism.records import Prompt, Rollout
from prism.rollout.openai_client import served_model
from prism.rollout.openai_engine import OpenAIEngine
from prism.rollout.openai_server import ChatServer
from prism.rollout.sampling import RolloutEngine
from prism.rollout.transformers_engine import TransformersEngine
from prism.runtime.atomic import write_json, write_text
from prism.runtime.hashing import path_sha256
from prism.runtime.jsonl import read_jsonl
from prism.runtime.launch import was_started_with_others
from prism.runtime.seeding import derive_seed
from prism.runtime.stage import StageRun

RESPONSES, SCORES, JUDGEMENTS, SUMMARY = "responses.jsonl", "scores.jsonl", "judgements.jsonl", "summary.json"


def run_benchmarks(recipe: BenchmarkRecipe) -> dict[str, dict[str, Any]]:
    """Runs or resumes every benchmark of `recipe`; the summaries by benchmark, as written to its directory.

    Each benchmark has a directory with the responses, the scores, the judge's replies and the summary. Raises
    ConfigError under torchrun.
    """
    if was_started_with_others():
        raise ConfigError("benchmarks are run by one process: leave torchrun, or have a server generate")
    recipe.directory.mkdir(parents=True, exist_ok=True)
    write_json(recipe.directory / "recipe.json", recipe.model_dump(mode="json"))
    model = _Model(recipe)
    return {config.name: _run_benchmark(recipe, config, model) for config in recipe.benchmarks}


class _Model:
    """The model under evaluation, hashed and loaded once for all benchmarks, and only if one asks."""

    def __init__(self, recipe: BenchmarkRecipe) -> None:
        self._config = recipe.model

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The weights by content or, behind a server, by what it says they are; it may move to another address."""
        if isinstance(self._config, LocalModel):
            if not self._config.path.is_dir():
                raise ConfigError(f"model.path: {self._config.path} is no directory; name that of a checkpoint")
            return {"sha256": path_sha256(self._config.path), **self._config.changed_precision}
        server = chat_server(self._config)
        settings = {"extra_body": dict(server.extra_body), "takes_seed": server.takes_seed}
        return {"model": server.model, "served": served_model(server), **settings}

    @cached_property
    def engine(self) -> RolloutEngine:
        if not isinstance(self._config, LocalModel):
            return OpenAIEngine(chat_server(self._config))
        own = self._config
        return TransformersEngine.of_checkpoint(own.path, batch_size=own.batch_size, precision=own.precision)


def chat_server(settings: ServerSettings) -> ChatServer:
    """What the recipe says of a server, without what it says of the model's part in the evaluation."""
    return ChatServer(**settings.model_dump(include=set(ServerSettings.model_fields)))


def _run_benchmark(recipe: BenchmarkRecipe, config: BenchmarkConfig, model: _Model) -> dict[str, Any]:
    benchmark = get_benchmark(config.name)
    source = load_benchmark(benchmark, config.path, config.revision)
    items = read_items(benchmark, source, limit=config.limit, system=recipe.system)
    directory = recipe.directory / config.name
    responses = _responses(recipe, config, model, source, items)
    scored = score_responses(config.name, items, responses)
    if recipe.judge is not None:
        texts = [response["response"] for response in responses]
        scored = _judged(recipe.judge, directory / JUDGEMENTS, items, scored, texts)
    scope, is_judged = recipe.judge.scope if recipe.judge else "undecided", recipe.judge is not None
    rows = (response.row(config.name, scope, is_judged=is_judged) for response in scored)
    write_text(directory / SCORES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    summary = {
        "benchmark": config.name,
        "source": {"name": source.name, "sha256": source.sha256, "limit": config.limit},
        "modes": summarize_benchmark(config.name, scored, scope=scope, pass_at=recipe.pass_at),
    }
    write_json(directory / SUMMARY, summary)
    return summary


def _responses(
    recipe: BenchmarkRecipe, config: BenchmarkConfig, model: _Model, source: Source, items: dict[str, Item]
) -> list[dict[str, Any]]:
    """The responses to `items`, as far as they are there already, the rest asked for."""
    questioning = Questioning(
        [item.prompt for item in items.values()],
        decodings(
            num_samples=recipe.num_samples,
            temperature=recipe.temperature,
            max_tokens=recipe.max_response_tokens,
            greedy=recipe.greedy,
        ),
        batch_size=recipe.model.batch_size,
        seed=derive_seed(recipe.seed, config.name),
    )
    asked = {"num_samples", "temperature", "max_response_tokens", "greedy", "system"}
    run = StageRun(
        recipe.directory / config.name,
        name=config.name,
        kind="benchmark",
        config=recipe.model_dump(mode="json", include=asked) | {"limit": config.limit, "model": model.identity},
        inputs={"rows": source.sha256},
        num_steps=questioning.num_steps,
        checkpoint_every=1,
        seed=recipe.seed,
    )
    if run.is_complete:
        return read_jsonl(run.directory / RESPONSES)
    responses = questioning.ask(run, model.engine, _response_row, RESPONSES)
    run.finish({"responses": RESPONSES})
    return responses


def _response_row(prompt: Prompt, rollout: Rollout) -> dict[str, Any]:
    return {
        "item_id": prompt.id,
        "sample": rollout.sample,
        "response": rollout.text,
        "num_tokens": rollout.num_tokens,
        "is_finished": rollout.is_finished,
    }


def _judged(
    config: JudgeConfig, log: Path, items: dict[str, Item], scored: Sequence[ScoredResponse], texts: Sequence[str]
) -> list[ScoredResponse]:
    judge = Judge(chat_server(config), log, max_tokens=config.max_tokens)
    return ask_judge(judge, config.scope, items, scored, texts)


def compare_directories(first: Path, second: Path) -> str:
    """The headline of every benchmark that both directories hold, compared item by item (or family by family), as a
    table per decoding mode.

    After the judge where both evaluations had one, else by rules alone. Raises DataError where they share
    no benchmark.
    """
    shared = [name for name in BENCHMARKS if all((side / name / SCORES).is_file() for side in (first, second))]
    if not shared:
        raise DataError(f"{first} and {second} have no evaluated benchmark in common; run `prism eval` for both")
    rows = {name: [read_jsonl(side / name / SCORES) for side in (first, second)] for name in shared}
    is_judged = all(row["judged"] for sides in rows.values() for side in sides for row in side)
    blocks = [f"scores: {'rules and judge' if is_judged else 'rules alone'}"]
    for mode in ("greedy", "sampled"):
        held = {
            name: sides for name, sides in rows.items() if all(any(row["mode"] == mode for row in s) for s in sides)
        }
        comparisons: list[Comparison] = []
        for profile in PROFILES:
            found = []
            for name, sides in held.items():
                ours, theirs = (_scores(side, mode, profile, is_judged) for side in sides)
                found.append(compare(ours, theirs, headline=get_benchmark(name).headline))
            comparisons += [*found, average_comparison(found)] if len(found) > 1 else found
        if comparisons:
            blocks.append(f"{mode}\n" + format_comparison(comparisons, first.name, second.name))
    return "\n\n".join(blocks)


def _scores(rows: Sequence[dict[str, Any]], mode: str, profile: Profile, is_judged: bool) -> list[ItemScore]:
    kept = [row["judged" if is_judged else "rules"] for row in rows if row["mode"] == mode]
    return [ItemScore(**fields) for scores in kept for fields in scores if fields["profile"] == profile]
