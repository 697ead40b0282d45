"""Which discriminator a stage starts from, and how it is kept."""

from pathlib import Path

from prism.config import CheckpointDiscriminator, Recipe
from prism.models import Discriminator, load_policy, upcycle
from prism.runtime.seeding import derive_seed
from prism.stages.workspace import Workspace


def make_discriminator(workspace: Workspace) -> Discriminator:
    """The discriminator before warm-up: a checkpoint, or upcycled from a dense Qwen3-VL (the base by default)."""
    config = workspace.recipe.discriminator
    if isinstance(config, CheckpointDiscriminator):
        return Discriminator.from_pretrained(config.path, score_limit=config.score_clip).train()
    dense = load_policy(config.dense or workspace.model_directory("base"))
    sparse = upcycle(
        dense,
        num_experts=config.num_experts,
        top_k=config.top_k,
        noise_std=config.noise_std,
        seed=derive_seed(workspace.seed, "upcycle") % 2**31,
    )
    return Discriminator(sparse.model, score_limit=config.score_clip).train()


def outside_directories(recipe: Recipe) -> dict[str, Path]:
    """The directory outside the run that an untrained discriminator is made from, if there is one."""
    config = recipe.discriminator
    path = config.path if isinstance(config, CheckpointDiscriminator) else config.dense
    return {} if path is None else {"discriminator": path}


def load_discriminator_for_alignment(workspace: Workspace) -> Discriminator:
    """The warmed-up discriminator, or a fresh one in a recipe without warm-up."""
    if workspace.recipe.warmup is None:
        return make_discriminator(workspace)
    limit = workspace.recipe.discriminator.score_clip
    return Discriminator.from_pretrained(workspace.model_directory("warmup"), score_limit=limit).train()


def num_active_experts(discriminator: Discriminator) -> int | None:
    """Experts each token is routed to; None for a dense discriminator."""
    return getattr(discriminator.model.config.get_text_config(), "num_experts_per_tok", None)
