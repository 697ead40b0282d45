"""Which discriminator a stage starts from, and how it is kept."""

from pathlib import Path

from prism.config import AlignConfig, DenseDiscriminator, PlannedStage, Recipe, WarmupConfig
from prism.models import Discriminator, load_policy, upcycle, views_of, widen
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
