import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.config import BranchAdvantage, CheckpointBase, Grpo, MixedAdvantage, MoeDiscriminator, WorldData, load_recipe
from prism.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "recipes"
DEMO = Path(__file__).with_name("example.toml")

MINIMAL = """
name = "least"
[data]
[base]
"""


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    [path for folder in ("tiny", "paper") for path in sorted((RECIPES / folder).glob("*.toml"))],
    ids=lambda path: str(path.relative_to(RECIPES)),
)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name != ""
    assert load_recipe(path, ["threads=1"]).model_copy(update={"threads": None}) == recipe


def test_defaults_are_those_of_the_paper(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + """
        [align]
        num_steps = 500
        [rlvr]
        num_steps = 1500
        algorithms = [{ type = "grpo" }, { type = "dapo", overlong_buffer = 4096 }, { type = "gspo" }]
        """
    )
    recipe = load_recipe(write(tmp_path, "paper.toml", text))
    align, rlvr = recipe.align, recipe.rlvr
    assert align is not None and rlvr is not None
    assert (align.prompts_per_step, align.group_size) == (4, 16)
    assert (align.policy_learning_rate, align.discriminator_learning_rate, align.weight_decay) == (1e-6, 1e-6, 0.01)
    assert align.advantage == BranchAdvantage(alpha=0.5, format_penalty=1.5)
    assert align.balance_coefficient == 0
    assert recipe.discriminator == MoeDiscriminator(num_experts=4, top_k=2, noise_std=0.01, score_clip=10)
    assert (align.score_regularization, align.kl, align.temperature) == (0.001, None, 1.0)
    assert (rlvr.prompts_per_step, rlvr.group_size, rlvr.max_response_tokens) == (32, 16, 8192)
    assert (rlvr.accuracy_weight, rlvr.format_weight) == (0.8, 0.2)
    grpo, dapo, gspo = rlvr.algorithms
    assert (grpo.level, grpo.clip_low, grpo.clip_high, grpo.dual_clip) == ("token", 0.2, 0.2, None)
    assert (dapo.clip_low, dapo.clip_high, dapo.dual_clip, dapo.aggregation) == (0.2, 0.28, 10.0, "token-mean")
    assert (gspo.level, gspo.clip_low, gspo.clip_high) == ("sequence", 3e-4, 4e-4)
    assert gspo.aggregation == "seq-mean-token-mean"


def test_a_recipe_extends_others_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", "root.toml", MINIMAL + "[sft]\nnum_steps = 5\nbatch_size = 4\n[align]\nnum_steps = 9\n")
    write(tmp_path, "middle.toml", 'extends = "base/root.toml"\n[sft]\nnum_steps = 6\n')
    leaf = write(tmp_path, "leaf.toml", 'extends = "middle.toml"\nname = "leaf"\nseeds = [4, 5]\n')
    recipe = load_recipe(leaf)
    assert (recipe.name, recipe.seeds) == ("leaf", (4, 5))
    assert recipe.sft is not None and (recipe.sft.num_steps, recipe.sft.batch_size) == (6, 4)
    assert recipe.align is not None and recipe.align.num_steps == 9


def test_extending_in_a_circle_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", 'extends = "b.toml"')
    write(tmp_path, "b.toml", 'extends = "a.toml"')
    assert "a.toml > b.toml > a.toml" in error_of(tmp_path / "a.toml")


def test_overrides_apply_in_order_and_replace_lists() -> None:
    recipe = load_recipe(DEMO, ["seeds=[7]", "seeds=[8, 9]", "rlvr.learning_rate=3e-6", "output=some where/else"])
    assert recipe.seeds == (8, 9)
    assert recipe.rlvr is not None and recipe.rlvr.learning_rate == 3e-6
    assert recipe.run_directory == Path("some where/else")


def test_the_run_directory_follows_the_name() -> None:
    assert load_recipe(DEMO, ["name=mine"]).run_directory == Path("runs/mine")


def test_another_variant_starts_from_its_own_defaults() -> None:
    recipe = load_recipe(DEMO, ["align.advantage.type=mixed", "base.type=checkpoint", "base.path=models/qwen"])
    assert recipe.align is not None and recipe.align.advantage == MixedAdvantage()
    assert recipe.base == CheckpointBase(path=Path("models/qwen"))


def test_a_table_of_a_union_may_leave_out_its_type(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, "r.toml", MINIMAL), ["data.rl=9", "align.num_steps=1", "align.advantage.alpha=0.3"]
    )
    assert recipe.data == WorldData(rl=9)
    assert recipe.align is not None and recipe.align.advantage == BranchAdvantage(alpha=0.3)


def test_an_element_of_a_list_is_reached_by_index_and_by_name() -> None:
    recipe = load_recipe(DEMO, ["rlvr.algorithms.0.clip=0.1", "rlvr.algorithms.gspo.name=sequence"])
    assert recipe.rlvr is not None
    assert recipe.rlvr.algorithms[0] == Grpo(clip=0.1)
    assert recipe.rlvr.algorithms[2].name == "sequence"


def test_none_puts_a_key_back_to_its_default() -> None:
    recipe = load_recipe(DEMO, ["sft.batch_size=none", "warmup=none", 'name="none"'])
    assert recipe.sft is not None and recipe.sft.batch_size == 16
    assert recipe.warmup is None
    assert recipe.name == "none"


def test_the_resolved_configuration_is_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(DEMO, ["align.kl.coefficient=0.1", "threads=2"])
    path = write(tmp_path, "recipe.json", recipe.model_dump_json(indent=2))
    assert load_recipe(path) == recipe
    assert load_recipe(path, ["threads=3"]).threads == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.lerning_rate=1", "unknown key sft.lerning_rate; did you mean learning_rate?"),
        ("align.learning_rate=1", "unknown key align.learning_rate; did you mean policy_learning_rate?"),
        ("align.advantage.penalty=1", "unknown key align.advantage.penalty; did you mean format_penalty?"),
        ("rlvr.algorithms.gspo.clip=0.2", "unknown key rlvr.algorithms.2.clip; did you mean clip_low?"),
        ("base.size=x", "unknown key base.size; there are: type, source, path, pretrain"),
        ("sft=3", "sft = 3: must be a table"),
        ("seeds=3", "seeds = 3: must be an array"),
        ("threads=true", "threads = true: must be a valid integer"),
        ('threads="2"', 'threads = "2": must be a valid integer'),
        ("sft.batch_size=0", "sft.batch_size = 0: must be greater than or equal to 1"),
        ("sft.learning_rate=fast", 'sft.learning_rate = "fast": must be a valid number'),
        ("sft.learning_rate=nan", "sft.learning_rate = NaN: must be a finite number"),
        ("data.public=2026-01-01", 'data.public = "2026-01-01": must be a valid integer'),
        (
            "base.source=shiped",
            "base.source = \"shiped\": must be 'shipped', 'pretrain' or 'kept'; did you mean shipped?",
        ),
        ("align.advantage.type=mixd", 'align.advantage.type = "mixd": is unknown; did you mean mixed?'),
        ("rlvr.algorithms=[{}]", "rlvr.algorithms.0.type: is required and missing; there are: grpo, dapo, gspo"),
        ('rlvr.algorithms=[{type="dapo"}]', "rlvr.algorithms.0.overlong_buffer: is required and missing"),
        ("base.type=checkpoint", "base.path: is required and missing"),
        ('name="../x"', 'name = "../x": must begin with a letter or digit and hold only those and . _ -'),
        ("momentum=1", "unknown key momentum; there are: name, seeds,"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    assert error_of(DEMO, override).startswith(f"{DEMO}: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threads", "override 'threads': write key.path=value"),
        ("=3", "override '=3': write key.path=value"),
        ("sft..x=3", "override 'sft..x=3': write key.path=value"),
        ("seeds=[1", "override seeds: '[1' is not a TOML value"),
        ("rlvr.algorithms.grop.clip=0.1", "rlvr.algorithms.grop: there is no such element"),
        ("rlvr.algorithms.3.clip=0.1", "rlvr.algorithms.3: there is no such element"),
        ("rlvr.algorithms.grpo=none", "rlvr.algorithms.grpo: an element cannot be left out"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    assert error_of(DEMO, override).startswith(message)


def test_several_errors_are_counted() -> None:
    assert error_of(DEMO, "sft.batch_size=0", "align.group_size=0", "align.alpha=1").endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"name = \n", "is not valid TOML"),
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b"[1]", "must hold one table of settings"),
        ("a.toml", b"name = '\xff'", "is not a UTF-8 text file"),
        ("a.toml", b"extends = 3", "extends: 3 must be the path of a recipe"),
        ("a.toml", b"extends = 'gone.toml'", "gone.toml: cannot read the recipe (No such file or directory)"),
        ("a.toml", b"name = 'x'\n[base]\n", "data: is required and missing"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = error_of(path)
    assert error.startswith(str(tmp_path)) and message in error


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: cannot read the recipe (Is a directory)"


def _paths(table: dict, prefix: str = "") -> list[str]:
    nested = [
        path for key, value in table.items() if isinstance(value, dict) for path in _paths(value, f"{prefix}{key}.")
    ]
    return [f"{prefix}{key}" for key in table] + nested


_VALUES = st.one_of(
    st.sampled_from(
        ["0", "-1", "1.5", "true", "none", "[]", "{}", "[[1]]", "{type=3}", "[{}]", '"\\n"', "1e400", "word"]
    ),
    st.text(max_size=12),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(_paths(json.loads(load_recipe(DEMO).model_dump_json()))), value=_VALUES)
def test_any_override_loads_or_is_refused_in_one_line(path: str, value: str) -> None:
    try:
        recipe = load_recipe(DEMO, [f"{path}={value}"])
    except ConfigError as error:
        assert str(error).isprintable()
    else:
        assert recipe.seeds


def test_the_recipe_in_the_readme_loads(tmp_path: Path) -> None:
    text = (RECIPES.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    recipe = load_recipe(write(tmp_path, "readme.toml", example))
    # Else no clip would act, and its GSPO would be its GRPO.
    assert recipe.rlvr is not None and recipe.rlvr.num_mini_batches > 1
