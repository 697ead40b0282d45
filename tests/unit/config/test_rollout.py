"""The choice of an engine in a recipe."""

from pathlib import Path

import pytest

from prism.config import ImportanceConfig, TransformersRollout, VllmRollout, load_recipe
from prism.errors import ConfigError

DEMO = Path(__file__).with_name("example.toml")


def test_a_recipe_without_a_type_samples_with_the_training_model() -> None:
    assert load_recipe(DEMO, ["rollout.batch_size=7"]).rollout == TransformersRollout(batch_size=7)
    assert load_recipe(DEMO, ["rollout=none"]).rollout == TransformersRollout()


def test_vllm_is_chosen_by_its_type() -> None:
    chosen = ["rollout=none", "rollout.type=vllm"]
    assert load_recipe(DEMO, chosen).rollout == VllmRollout()
    recipe = load_recipe(DEMO, [*chosen, "rollout.importance.level=sequence", "rollout.tolerance=0.001"])
    assert recipe.rollout == VllmRollout(tolerance=1e-3, importance=ImportanceConfig(level="sequence"))
    back = load_recipe(DEMO, [*chosen, "rollout.dtype=float32", "rollout.type=transformers"])
    assert back.rollout == TransformersRollout()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.type=sglang"], 'rollout.type = "sglang": is unknown; there are: transformers, vllm'),
        (["rollout.tolerance=0.1"], "unknown key rollout.tolerance"),
        (["rollout.type=vllm", "rollout.tolerance=0"], "rollout.tolerance = 0: must be greater than 0"),
        (["rollout.type=vllm", "rollout.memory_fraction=1"], "rollout.memory_fraction = 1: must be less than 1"),
        (["rollout.type=vllm", "rollout.importance.cap=0.5"], "rollout.importance.cap = 0.5: must be greater than or"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(DEMO, overrides)
    assert message in str(caught.value)
