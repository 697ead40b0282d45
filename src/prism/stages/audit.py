"""The shortcut audit: fresh rollouts against the teacher, on prompts the discriminator was not trained on.

Before the game it looks at the policy that alignment starts from and at the warm-up's discriminator, during
and after the game at both as they are then. `audit.json` holds what was found. What a recipe audits while it plays
is in `stages.game_audit`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism.config import (
    AlignConfig,
    AuditConfig,
    PlannedStage,
    WarmupConfig,
    plan_audit,
    policy_before_alignment,
    select_stages,
)
from prism.errors import AuditError, ConfigError
from prism.evals.audit import audit_document
from prism.evals.shortcuts import MIN_PROMPTS
from prism.models import Discriminator, PromptEncoder, checkpoint_weights
from prism.records import Demonstration
from prism.rollout.engine import PolicyEngine
from prism.rollout.sampling import Sampling
from prism.runtime.atomic import write_json
from prism.runtime.checkpoint import checkpoint_step, list_checkpoints, load_modules
from prism.runtime.manifest import read_manifest
from prism.runtime.seeding import derive_seed
from prism.stages import discriminators
from prism.stages.audit_measures import AuditInputs, measure
from prism.stages.datasets import read_alignment
from prism.stages.engines import open_engine
from prism.stages.imitation import draw_batch
from prism.stages.warmup import read_pool, shuffled
from prism.stages.workspace import Workspace

AUDIT = "audit.json"
GAME_AUDIT = "audit-align"

Models = tuple[Any, PromptEncoder, Discriminator | None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy and a discriminator at one point of a run. `trained_on` tells which prompts the latter knows."""

    planned: PlannedStage
    discriminator: str | None
    load: Callable[[], Models]
    trained_on: Callable[[Sequence[Demonstration]], set[str]]
    directories: Mapping[str, Path] = field(default_factory=dict)


def run(workspace: Workspace, planned: PlannedStage) -> None:
    """The stage of a recipe with an [audit] table. Raises AuditError past a flag, unless told to go on."""
    config = workspace.recipe.audit
    if config is None:
        raise ConfigError("audit: the recipe has no [audit] table")
    path = _run(workspace, _before_game(workspace, planned))
    flags = read_audit(path)["flags"]
    if flags and config.stop_on_flags:
        raise AuditError(f"audit: {flags_line(flags, path)}")


def flags_line(flags: Sequence[str], path: Path) -> str:
    """What to say where a run stops for `flags`."""
    return (
        f"{', '.join(flags)}; `prism audit` shows what was measured and what to do, {path} holds all of it; "
        "mend it, or set audit.stop_on_flags=false to go on"
    )


def run_newest(workspace: Workspace) -> Path:
    """Audits the run as far as it has come; the path of its audit.json. CheckpointError where not even the
    policy that alignment starts from is complete."""
    recipe = workspace.recipe
    if recipe.warmup is None and recipe.align is None:
        raise ConfigError(f"recipe {recipe.name} has neither [warmup] nor [align]: there is no game to audit")
    return _run(workspace, _in_game(workspace) or _before_game(workspace, plan_audit(recipe)))


def read_audit(path: Path) -> dict[str, Any]:
    """The content of an audit.json."""
    return json.loads(path.read_text(encoding="utf-8"))


def _before_game(workspace: Workspace, planned: PlannedStage) -> Subject:
    recipe = workspace.recipe
    is_warm = "warmup" in planned.inputs and _is_complete(workspace.stage_directory("warmup"))
    if "warmup" in planned.inputs and not is_warm:
        planned = PlannedStage(planned.name, planned.kind, planned.start, (planned.start,), 0, False)
    has_discriminator = is_warm or (recipe.warmup is None and recipe.discriminator.checkpoint is not None)

    def load() -> Models:
        models = workspace.load_policy(planned.start)
        if not has_discriminator:
            return *models, None
        return *models, workspace.to_use(discriminators.load_discriminator_for_alignment(workspace))

    return Subject(
        planned,
        ("warmup" if is_warm else str(recipe.discriminator.checkpoint)) if has_discriminator else None,
        load,
        lambda _: trained_in_warmup(workspace) if is_warm else set(),
        {} if is_warm or not has_discriminator else discriminators.outside_directories(recipe),
    )


def _in_game(workspace: Workspace) -> Subject | None:
    """The end of the recipe's game, or its newest checkpoint; None before the first."""
    directory = workspace.stage_directory("align")
    manifest = read_manifest(directory)
    if workspace.recipe.align is None or manifest is None or not _is_of_recipe(workspace, manifest):
        return None
    if manifest["status"] == "complete":
        return _end_of_game(workspace, directory / "discriminator", int(manifest["num_steps"]))
    checkpoints = list_checkpoints(directory / "checkpoints")
    return _checkpoint_of_game(workspace, checkpoints[-1]) if checkpoints else None


def _end_of_game(workspace: Workspace, discriminator: Path, step: int) -> Subject:
    def load() -> Models:
        judge = discriminators.load_discriminator(discriminator, workspace.recipe)
        return *workspace.load_policy("align"), workspace.to_use(judge)

    return _subject_in_game(workspace, step, load, {"discriminator": discriminator}, inputs=("align",))


def _checkpoint_of_game(workspace: Workspace, checkpoint: Path) -> Subject:
    def load() -> Models:
        policy, encoder = workspace.load_policy_to_train(policy_before_alignment(workspace.recipe))
        discriminator = discriminators.load_discriminator_for_alignment(workspace)
        discriminator = workspace.to_train(discriminator, "discriminator")
        load_modules(checkpoint, {"policy": policy, "discriminator": discriminator})
        return policy, encoder, discriminator

    return _subject_in_game(workspace, checkpoint_step(checkpoint), load, {"checkpoint": checkpoint}, inputs=())


def _subject_in_game(
    workspace: Workspace,
    step: int,
    load: Callable[[], Models],
    directories: Mapping[str, Path],
    *,
    inputs: tuple[str, ...],
) -> Subject:
    name = in_game(step)
    planned = PlannedStage(GAME_AUDIT, "audit", name, inputs, 0, False)
    return Subject(
        planned,
        name,
        load,
        lambda given: trained_in_warmup(workspace) | trained_in_game(workspace, given, step),
        directories,
    )


def in_game(step: int) -> str:
    """What an audit calls the models after `step` of the game."""
    return f"align, step {step}"


def _is_of_recipe(workspace: Workspace, manifest: Mapping[str, Any]) -> bool:
    """Whether a game was played by the recipe's settings, from the models and data that are there now: else the
    next `prism run` sets it aside."""
    recipe, config = workspace.recipe, manifest["config"]
    [planned] = select_stages(recipe, "align")
    if not all(_is_complete(workspace.stage_directory(stage)) for stage in ("data", *planned.inputs)):
        return False
    settings: dict[str, Any] = {
        type(part).__name__: part.model_dump(mode="json", exclude={"checkpoint_every"})
        for part in (recipe.align, recipe.discriminator, *workspace.sampling_settings)
        if part is not None
    }
    settings |= {"start": planned.start, "max_prompt_tokens": recipe.max_prompt_tokens}
    settings |= workspace.training_settings(planned.kind)
    hashes = {stage: workspace.input_hash(stage) for stage in planned.inputs}
    hashes |= {"data/alignment": workspace.input_hash("data", "alignment")}
    # A discriminator from outside is told by its path alone: to hash a large one takes minutes.
    return settings == config and all(manifest["inputs"].get(name) == sha256 for name, sha256 in hashes.items())


def _is_complete(directory: Path) -> bool:
    manifest = read_manifest(directory)
    return manifest is not None and manifest["status"] == "complete"


def trained_in_warmup(workspace: Workspace) -> set[str]:
    """Prompts that the warm-up may have trained on: it sets the first valid ones of its pool aside."""
    config = workspace.recipe.warmup
    if config is None:
        return set()
    pool = read_pool(workspace)[config.num_heldout : config.num_prompts]
    return {demonstration.prompt.id for demonstration in pool}


def trained_in_game(workspace: Workspace, demonstrations: Sequence[Demonstration], step: int) -> set[str]:
    """Prompts of the game up to `step`."""
    config = workspace.recipe.align
    assert config is not None
    drawn = draw_batch(demonstrations, 0, step * config.prompts_per_step, workspace.seed, "align")
    return {demonstration.prompt.id for demonstration in drawn}


def choose_prompts(
    workspace: Workspace, demonstrations: Sequence[Demonstration], trained_on: set[str], count: int
) -> list[Demonstration]:
    """Up to `count` demonstrations that the discriminator has not been trained on; where there are fewer than an
    audit needs, others as well."""
    pool = shuffled(workspace, demonstrations)
    unseen = [given for given in pool if given.prompt.id not in trained_on]
    seen = [given for given in pool if given.prompt.id in trained_on]
    return (unseen if len(unseen) >= min(count, MIN_PROMPTS) else unseen + seen)[:count]


def _run(workspace: Workspace, subject: Subject) -> Path:
    recipe, config = workspace.recipe, _settings(workspace)
    run = workspace.open_stage(
        subject.planned,
        [
            config.sampling,
            _game_settings(workspace),
            recipe.discriminator,
            *workspace.sampling_settings,
        ],
        num_steps=0,
        data=("alignment",),
        directories=subject.directories,
    )
    if not run.is_complete:
        limit = _game_settings(workspace).max_response_tokens
        demonstrations = read_alignment(workspace, limit)
        models = subject.load()
        policy, encoder, _ = models
        with open_engine(workspace, policy, encoder, max_response_tokens=limit, is_checked=True) as engine:
            document = audit_models(
                workspace,
                models,
                demonstrations,
                engine,
                trained_on=subject.trained_on(demonstrations),
                names=(subject.planned.start, subject.discriminator),
            )
        write_json(run.directory / AUDIT, document)
        run.finish({"audit": AUDIT})
    return run.directory / AUDIT


def audit_models(
    workspace: Workspace,
    models: Models,
    demonstrations: Sequence[Demonstration],
    engine: PolicyEngine,
    *,
    trained_on: set[str],
    names: tuple[str, str | None],
) -> dict[str, Any]:
    """Samples rollouts of the policy among `models`, measures and judges: the content of audit.json.

    Of all the `demonstrations` of alignment some are chosen, `trained_on` the last. `names` are those of policy and
    discriminator. The engine sleeps while the discriminator scores, as in the game.
    """
    config, game = _settings(workspace), _game_settings(workspace)
    chosen = choose_prompts(workspace, demonstrations, trained_on, config.num_prompts)
    policy, encoder, discriminator = models
    engine.update_weights(checkpoint_weights(policy))
    groups = engine.generate(
        [demonstration.prompt for demonstration in chosen],
        num_samples=config.samples_per_prompt,
        sampling=Sampling(game.temperature, game.max_response_tokens),
        seed=derive_seed(workspace.seed, "audit"),
    )
    engine.sleep()
    measures = measure(
        AuditInputs(
            demonstrations=chosen,
            groups=groups,
            encoder=encoder,
            body=policy.model if discriminator is None else discriminator.model,
            discriminator=discriminator,
            mode=workspace.recipe.discriminator.type,
            token_budget=game.token_budget,
            seed=workspace.seed,
        )
    )
    audited = {
        "seed": workspace.seed,
        "policy": names[0],
        "discriminator": names[1],
        "num_prompts": len(chosen),
        "num_seen": sum(given.prompt.id in trained_on for given in chosen),
        "num_rollouts": sum(len(group.rollouts) for group in groups),
        "num_valid": next(iter(measures.shortcuts.views.values())).num_pairs,
    }
    return audit_document(measures, audited)


def _settings(workspace: Workspace) -> AuditConfig:
    return workspace.recipe.audit or AuditConfig()


def _game_settings(workspace: Workspace) -> AlignConfig | WarmupConfig:
    """Where temperature and lengths come from: alignment, or the warm-up of a recipe without it."""
    game = workspace.recipe.align or workspace.recipe.warmup
    assert game is not None
    return game
