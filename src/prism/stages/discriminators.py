"""Which discriminator a stage starts from, and how it is kept."""

from pathlib import Path

from prism.config import AlignConfig, CheckpointBase, DenseDiscriminator, PlannedStage, Recipe, WarmupConfig
from prism.errors import ConfigError
from prism.models import Discriminator, load_policy, recorded_mode, upcycle, views_of, widen
from prism.models.checkpoint import read_config
from prism.runtime.seeding import derive_small_seed
from prism.runtime.stage import StageRun
from prism.stages.workspace import Workspace


def make_discriminator(workspace: Workspace) -> Discriminator:
    """The discriminator before warm-up: a trained one, or one made from a dense Qwen3-VL (the base by default)."""
    config = workspace.recipe.discriminator
    if config.checkpoint is not None:
        return load_discriminator(config.checkpoint, workspace.recipe)
    dense = load_policy(config.dense or workspace.model_directory("base"))
    seed = derive_small_seed(workspace.seed, "upcycle")
    if isinstance(config, DenseDiscriminator):
        body = widen(dense, factor=config.width, noise_std=config.noise_std, seed=seed).model
    else:
        body = upcycle(
            dense, num_experts=config.num_experts, top_k=config.top_k, noise_std=config.noise_std, seed=seed
        ).model
    return Discriminator(body, mode=config.type, score_limit=config.score_clip).train()


def check_source(recipe: Recipe) -> None:
    """Raises ConfigError where no discriminator of the recipe can be made from what it names, ModelError where that is
    no Qwen3-VL: by configurations alone, so that it is known before anything has run."""
    config, base = recipe.discriminator, recipe.base
    if config.checkpoint is not None:
        _check_trained(config.checkpoint, recipe)
        return
    dense = config.dense or (base.path if isinstance(base, CheckpointBase) else None)
    if dense is not None and read_config(dense).model_type != "qwen3_vl":
        raise ConfigError(
            f"discriminator: {dense} has experts already, and a discriminator is made from a dense Qwen3-VL; name one "
            "as discriminator.dense, or a trained discriminator as discriminator.checkpoint"
        )


def _check_trained(directory: Path, recipe: Recipe) -> None:
    config, text = recipe.discriminator, read_config(directory).get_text_config()
    mode = recorded_mode(directory)
    if mode is not None and mode != config.type:
        raise ConfigError(f"discriminator.type: {config.type!r}, but {directory} is of mode {mode!r}")
    num_experts = getattr(text, "num_experts", None)
    if (num_experts is None) != isinstance(config, DenseDiscriminator):
        has = "no experts" if num_experts is None else "experts"
        raise ConfigError(f"discriminator.type: {config.type!r}, but {directory} has {has}")
    if isinstance(config, DenseDiscriminator):
        return
    found = {"num_experts": num_experts, "top_k": text.num_experts_per_tok}
    for name, number in found.items():
        if number != getattr(config, name):
            settings = " ".join(f"discriminator.{key}={value}" for key, value in found.items())
            raise ConfigError(
                f"discriminator.{name}: {getattr(config, name)}, but {directory} has {number}; say so: {settings}"
            )


def outside_directories(recipe: Recipe) -> dict[str, Path]:
    """The directory outside the run that an untrained discriminator is made from, if there is one."""
    path = recipe.discriminator.checkpoint or recipe.discriminator.dense
    return {} if path is None else {"discriminator": path}


def load_discriminator_for_alignment(workspace: Workspace) -> Discriminator:
    """The warmed-up discriminator, or a fresh one in a recipe without warm-up."""
    if workspace.recipe.warmup is None:
        return make_discriminator(workspace)
    return load_discriminator(workspace.model_directory("warmup"), workspace.recipe)


def load_discriminator(directory: Path, recipe: Recipe) -> Discriminator:
    """The trained one in `directory`, in the recipe's mode."""
    config = recipe.discriminator
    return Discriminator.from_pretrained(directory, mode=config.type, score_limit=config.score_clip).train()


def open_game(workspace: Workspace, planned: PlannedStage, config: WarmupConfig | AlignConfig, *shown: str) -> StageRun:
    """Opens a stage that trains the discriminator on the alignment data. `shown` are the metrics to display, those
    with a {} once for every view."""
    recipe = workspace.recipe
    return workspace.open_stage(
        planned,
        [config, recipe.discriminator, *workspace.sampling_settings],
        num_steps=config.num_steps,
        checkpoint_every=config.checkpoint_every,
        data=("alignment",),
        directories=outside_directories(recipe),
        show=shown_metrics(recipe, *shown),
    )


def shown_metrics(recipe: Recipe, *names: str) -> tuple[str, ...]:
    """`names`, those with a {} once for every view of the recipe's discriminator."""
    views = views_of(recipe.discriminator.type)
    return tuple(dict.fromkeys(name.format(view) for name in names for view in views))
