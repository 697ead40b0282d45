"""Evaluates the model a stage ends with on the test set."""

import dataclasses
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from prism.config import EvaluationConfig, PlannedStage, TinyBase
from prism.data.world.datasets import described_fraction
from prism.data.world.lessons import BRIEF
from prism.errors import ConfigError
from prism.evals.grading import grade
from prism.evals.runner import Questioning, decodings
from prism.evals.summary import Reference, summarize
from prism.models import checkpoint_weights
from prism.records import Prompt
from prism.runtime.atomic import write_json
from prism.runtime.seeding import derive_seed
from prism.runtime.stage import StageRun
from prism.stages.datasets import read_teacher, read_test
from prism.stages.engines import open_engine
from prism.stages.workspace import Workspace

ITEMS, SUMMARY = "items.jsonl", "summary.json"
BATCHES_PER_STEP = 8
"""As many processes have something to draw; what is drawn is the same with any number."""


def run(workspace: Workspace, planned: PlannedStage) -> None:
    config = workspace.recipe.evaluation
    if config is None:
        raise ConfigError("evaluation: the recipe has no [evaluation] table")
    checkpoint_sha256 = workspace.input_hash(planned.name) or ""
    question = cache(partial(_questioning, workspace, planned, config))
    hashes = {name: workspace.input_hash("data", name) for name in ("test", "teacher")}
    run = StageRun(
        workspace.stage_directory(planned.name) / "evaluation",
        name=f"{planned.name} evaluation",
        kind="evaluation",
        config=_identity(workspace, config),
        inputs={"model": checkpoint_sha256} | {f"data/{name}": sha256 for name, sha256 in hashes.items() if sha256},
        num_steps=lambda: question().num_steps,
        checkpoint_every=1,
        seed=workspace.seed,
    )
    if run.is_complete:
        return
    questioning = question()
    policy, encoder = workspace.load_policy(planned.name)
    with open_engine(
        workspace,
        policy,
        encoder,
        max_response_tokens=config.max_response_tokens,
        batch_size=config.batch_size,
        is_checked=True,
    ) as engine:
        engine.update_weights(checkpoint_weights(policy))
        rows = questioning.ask(run, engine, partial(grade, described_fraction=described_fraction), ITEMS)
    teacher = _reference(workspace, questioning.prompts)
    summary = summarize(rows, checkpoint=planned.name, checkpoint_sha256=checkpoint_sha256, teacher=teacher)
    write_json(run.directory / SUMMARY, summary)
    run.finish({"items": ITEMS, "summary": SUMMARY})


def _questioning(workspace: Workspace, planned: PlannedStage, config: EvaluationConfig) -> Questioning:
    prompts = [_instructed(workspace, planned, prompt) for prompt in _limited(read_test(workspace), config.limit)]
    return Questioning(
        prompts,
        decodings(
            num_samples=config.num_samples, temperature=config.temperature, max_tokens=config.max_response_tokens
        ),
        batch_size=config.batch_size,
        seed=derive_seed(workspace.seed, "evaluation"),
        batches_per_step=BATCHES_PER_STEP,
    )


def _identity(workspace: Workspace, config: EvaluationConfig) -> dict[str, Any]:
    settings = {type(part).__name__: part.model_dump(mode="json") for part in workspace.sampling_settings}
    settings |= {"max_prompt_tokens": workspace.recipe.max_prompt_tokens}
    return config.model_dump(mode="json") | settings | workspace.model_settings


def _instructed(workspace: Workspace, planned: PlannedStage, prompt: Prompt) -> Prompt:
    """The tiny base never learned the response format: it is asked for what it can give, a brief answer."""
    if planned.kind == "base" and isinstance(workspace.recipe.base, TinyBase):
        return dataclasses.replace(prompt, question=prompt.question + BRIEF)
    return prompt


def _reference(workspace: Workspace, prompts: Sequence[Prompt]) -> Reference | None:
    """The teacher's responses to these very prompts, or else all it wrote to others."""
    teacher = read_teacher(workspace)
    if teacher is None or teacher.source != "test":
        return teacher
    return Reference(teacher.source, {prompt.id: teacher.responses[prompt.id] for prompt in prompts})


def _limited(prompts: list[Prompt], limit: int | None) -> list[Prompt]:
    """The first `limit` prompts of each benchmark."""
    if limit is None:
        return prompts
    seen: dict[str, int] = {}
    kept = []
    for prompt in prompts:
        benchmark = str(prompt.metadata.get("benchmark", prompt.kind))
        seen[benchmark] = seen.get(benchmark, 0) + 1
        if seen[benchmark] <= limit:
            kept.append(prompt)
    return kept
