"""Recipes: typed, frozen configuration read from TOML."""

from prism.config.base import Config, OptimizerSettings
from prism.config.benchmarks import (
    BenchmarkConfig,
    BenchmarkRecipe,
    JudgeConfig,
    LocalModel,
    ServedModel,
    ServerSettings,
)
from prism.config.data import FilesData, PublicFidelity, WorldData
from prism.config.loading import build_config, load_benchmark_recipe, load_recipe
from prism.config.models import (
    CheckpointBase,
    CheckpointDiscriminator,
    PretrainConfig,
    TinyBase,
    UpcycledDiscriminator,
)
from prism.config.plan import PlannedStage, describe_plan, plan_stages, select_stages
from prism.config.recipe import EvaluationConfig, Recipe, RolloutConfig
from prism.config.rlvr import Dapo, Grpo, Gspo, RlvrConfig
from prism.config.training import AlignConfig, BranchAdvantage, KlConfig, MixedAdvantage, SftConfig, WarmupConfig

__all__ = [
    "AlignConfig",
    "BenchmarkConfig",
    "BenchmarkRecipe",
    "BranchAdvantage",
    "CheckpointBase",
    "CheckpointDiscriminator",
    "Config",
    "Dapo",
    "EvaluationConfig",
    "FilesData",
    "Grpo",
    "Gspo",
    "JudgeConfig",
    "KlConfig",
    "LocalModel",
    "MixedAdvantage",
    "OptimizerSettings",
    "PlannedStage",
    "PretrainConfig",
    "PublicFidelity",
    "Recipe",
    "RlvrConfig",
    "RolloutConfig",
    "ServedModel",
    "ServerSettings",
    "SftConfig",
    "TinyBase",
    "UpcycledDiscriminator",
    "WarmupConfig",
    "WorldData",
    "build_config",
    "describe_plan",
    "load_benchmark_recipe",
    "load_recipe",
    "plan_stages",
    "select_stages",
]
