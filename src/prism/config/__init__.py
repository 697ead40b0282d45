"""Recipes: typed, frozen configuration read from TOML."""

from prism.config.ablation import Ablation, load_ablation
from prism.config.audit import AuditConfig
from prism.config.base import Config, OptimizerSettings, Precision
from prism.config.benchmarks import (
    BenchmarkConfig,
    BenchmarkRecipe,
    JudgeConfig,
    LocalModel,
    ServedModel,
    ServerSettings,
)
from prism.config.curation import (
    AskedServers,
    BudgetConfig,
    DecontaminateRecipe,
    DifficultyRecipe,
    EvaluationSet,
    PriceConfig,
    TeachRecipe,
    VerifyRecipe,
)
from prism.config.data import FilesData, PublicFidelity, WorldData
from prism.config.hardware import DEVICES, Hardware, MatmulSpeed, load_hardware
from prism.config.loading import build_config, load_benchmark_recipe, load_recipe, load_settings
from prism.config.lora import LoraConfig
from prism.config.models import (
    CheckpointBase,
    DedicatedDiscriminator,
    DenseDiscriminator,
    DiscriminatorConfig,
    ExpertSettings,
    MoeDiscriminator,
    PretrainConfig,
    TextOnlyDiscriminator,
    TinyBase,
    WholeResponseDiscriminator,
)
from prism.config.plan import (
    PlannedStage,
    describe_plan,
    plan_audit,
    plan_stages,
    policy_before_alignment,
    select_stages,
)
from prism.config.recipe import EvaluationConfig, Recipe
from prism.config.rlvr import Dapo, Grpo, Gspo, RlvrConfig
from prism.config.rollout import ImportanceConfig, RolloutConfig, TransformersRollout, VllmRollout
from prism.config.selection import PairsRecipe, QualityWeights, SplitConfig
from prism.config.training import (
    AddedAdvantage,
    Advantage,
    AlignConfig,
    BranchAdvantage,
    GatedAdvantage,
    KlConfig,
    MixedAdvantage,
    SftConfig,
    SignAwareAdvantage,
    WarmupConfig,
)
from prism.config.typical import TypicalConfig

__all__ = [
    "DEVICES",
    "Ablation",
    "AddedAdvantage",
    "Advantage",
    "AlignConfig",
    "AskedServers",
    "AuditConfig",
    "BenchmarkConfig",
    "BenchmarkRecipe",
    "BranchAdvantage",
    "BudgetConfig",
    "CheckpointBase",
    "Config",
    "Dapo",
    "DecontaminateRecipe",
    "DedicatedDiscriminator",
    "DenseDiscriminator",
    "DifficultyRecipe",
    "DiscriminatorConfig",
    "EvaluationConfig",
    "EvaluationSet",
    "ExpertSettings",
    "FilesData",
    "GatedAdvantage",
    "Grpo",
    "Gspo",
    "Hardware",
    "ImportanceConfig",
    "JudgeConfig",
    "KlConfig",
    "LocalModel",
    "LoraConfig",
    "MatmulSpeed",
    "MixedAdvantage",
    "MoeDiscriminator",
    "OptimizerSettings",
    "PairsRecipe",
    "PlannedStage",
    "Precision",
    "PretrainConfig",
    "PriceConfig",
    "PublicFidelity",
    "QualityWeights",
    "Recipe",
    "RlvrConfig",
    "RolloutConfig",
    "ServedModel",
    "ServerSettings",
    "SftConfig",
    "SignAwareAdvantage",
    "SplitConfig",
    "TeachRecipe",
    "TextOnlyDiscriminator",
    "TinyBase",
    "TransformersRollout",
    "TypicalConfig",
    "VerifyRecipe",
    "VllmRollout",
    "WarmupConfig",
    "WholeResponseDiscriminator",
    "WorldData",
    "build_config",
    "describe_plan",
    "load_ablation",
    "load_benchmark_recipe",
    "load_hardware",
    "load_recipe",
    "load_settings",
    "plan_audit",
    "plan_stages",
    "policy_before_alignment",
    "select_stages",
]
