"""The shipped recipes of data curation, and what contradicts itself."""

from pathlib import Path

import pytest

from prism.config import (
    AskedServers,
    DecontaminateRecipe,
    DifficultyRecipe,
    LocalModel,
    PairsRecipe,
    TeachRecipe,
    VerifyRecipe,
    load_settings,
)
from prism.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "recipes" / "data"


def test_the_shipped_recipes() -> None:
    teach = load_settings(TeachRecipe, RECIPES / "teach.toml", ["num_samples=4", "budget.max_cost=none"])
    assert (teach.num_samples, teach.budget.max_cost, teach.budget.price.completion) == (4, None, 3.0)
    assert teach.teacher.api_key_env == "GEMINI_API_KEY" and not teach.teacher.takes_seed
    difficulty = load_settings(DifficultyRecipe, RECIPES / "difficulty.toml")
    assert [type(model) for model in difficulty.models] == [AskedServers, AskedServers]
    pairs = load_settings(PairsRecipe, RECIPES / "pairs.toml")
    assert isinstance(pairs.model, LocalModel) and pairs.num_samples == 2
    assert (difficulty.rl_low, difficulty.rl_high, difficulty.num_samples) == (0.2, 0.8, 16)
    assert load_settings(VerifyRecipe, RECIPES / "verify.toml") == VerifyRecipe()
    decontaminate = load_settings(DecontaminateRecipe, RECIPES / "decontaminate.toml")
    assert len(decontaminate.against) == 7 and all(each.is_benchmark for each in decontaminate.against)


def test_a_model_of_this_machine(tmp_path: Path) -> None:
    recipe = tmp_path / "difficulty.toml"
    recipe.write_text('models = [{ type = "checkpoint", path = "models/tiny" }]')
    [model] = load_settings(DifficultyRecipe, recipe).models
    assert isinstance(model, LocalModel) and model.path == Path("models/tiny")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.price.prompt=-1", "budget.price.prompt = -1"),
        ("budget={max_cost=3.0}", "budget.max_cost = 3.0: needs price.prompt and price.completion"),
        ("num_samples=0", "num_samples = 0"),
        ("teacher.modle=x", "unknown key teacher.modle; did you mean model?"),
        ("rows=easy", "rows"),
    ],
)
def test_mistakes_are_told(override: str, message: str) -> None:
    overrides = [override] if not override.startswith("budget=") else ["budget.price=none", override]
    with pytest.raises(ConfigError) as caught:
        load_settings(TeachRecipe, RECIPES / "teach.toml", overrides)
    assert message in str(caught.value)
