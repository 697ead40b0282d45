"""Evaluations of one model: what a file may say, and which files are evaluations."""

from pathlib import Path

import pytest

from prism.config import BenchmarkRecipe, LocalModel, ServedModel, load_benchmark_recipe
from prism.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "recipes"

LEAST = """
name = "least"
[model]
path = "m"
[[benchmarks]]
name = "wemath"
"""


def load(directory: Path, text: str, *overrides: str) -> BenchmarkRecipe:
    path = directory / "evaluation.toml"
    path.write_text(text, encoding="utf-8")
    recipe = load_benchmark_recipe(path, overrides)
    assert recipe is not None
    return recipe


def test_the_shipped_evaluation_names_the_seven() -> None:
    recipe = load_benchmark_recipe(RECIPES / "eval" / "seven.toml")
    assert recipe is not None and isinstance(recipe.model, LocalModel)
    names = "mathvista mathverse mathvision wemath mmmu mmmu_pro hallusion_bench"
    assert [benchmark.name for benchmark in recipe.benchmarks] == names.split()
    assert recipe.directory == Path("runs/seven")


def test_a_run_recipe_is_no_evaluation() -> None:
    assert load_benchmark_recipe(RECIPES / "tiny" / "demo.toml") is None


def test_a_server_by_override(tmp_path: Path) -> None:
    server = ("model.type=server", "model.path=none", "model.base_url=http://127.0.0.1:1/v1", "model.model=m")
    recipe = load(tmp_path, LEAST, *server)
    assert isinstance(recipe.model, ServedModel) and recipe.model.model == "m"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LEAST.replace("wemath", "gsm8k"), "benchmarks"),
        (LEAST + '[[benchmarks]]\nname = "wemath"\n', "must name each benchmark once"),
        ("greedy = false\n" + LEAST, "num_samples"),
        ("num_samples = 2\npass_at = [4]\n" + LEAST, "must not exceed num_samples"),
        ("temprature = 1.0\n" + LEAST, "temprature"),
        (LEAST.replace('path = "m"', ""), "path"),
    ],
)
def test_what_does_not_hold_together_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, text)
