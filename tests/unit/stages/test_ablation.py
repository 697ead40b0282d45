"""Where the cells of an ablation keep what they share."""

from pathlib import Path

import pytest

from prism.config import Recipe, load_recipe, plan_stages
from prism.stages.ablation import stage_keys

FULL = Path(__file__).parents[3] / "recipes" / "tiny" / "full.toml"


def keys(*settings: str) -> dict[str, str]:
    return stage_keys(load_recipe(FULL, settings), seed=0)


def test_a_stage_is_shared_until_something_it_depends_on_differs() -> None:
    plain, other = keys(), keys("align.advantage.alpha=0.25")
    assert {name for name in plain if plain[name] != other[name]} == {"align", "prism-grpo", "prism-dapo", "prism-gspo"}


@pytest.mark.parametrize(
    "setting",
    [
        "precision=bfloat16",
        "lora.rank=4",
        "max_prompt_tokens=100",
        'rollout={type="vllm"}',
        "rollout.batch_size=8",
    ],
)
def test_what_is_part_of_a_stages_identity_is_part_of_its_key(setting: str) -> None:
    plain, other = keys(), keys(setting)
    trained = [stage.name for stage in plan_stages(load_recipe(FULL)) if stage.kind in ("sft", "warmup", "align")]
    assert all(plain[name] != other[name] for name in trained)


def test_what_changes_speed_alone_shares_all() -> None:
    recipe: Recipe = load_recipe(FULL)
    assert keys("activation_checkpointing=true", "threads=2", "attention=flex") == stage_keys(recipe, seed=0)
