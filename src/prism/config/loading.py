"""Reads a recipe: TOML, what it extends, overrides, and one-line errors."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from prism.config.base import Config
from prism.config.benchmarks import BenchmarkRecipe
from prism.config.merging import Table, merge, parse_override
from prism.config.messages import describe_errors
from prism.config.recipe import Recipe
from prism.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Config)


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` with `key.path=value` overrides applied in order.

    A recipe is TOML, or the `recipe.json` a run has written. `extends` names a recipe, relative to
    the one that names it, whose keys hold unless given again. Raises ConfigError for everything that
    is wrong with file, overrides or values, in one line.
    """
    return load_settings(Recipe, path, overrides)


def load_benchmark_recipe(path: Path | str, overrides: Sequence[str] = ()) -> BenchmarkRecipe | None:
    """The evaluation at `path` like `load_recipe`; None if it lists no benchmarks, and so is a run's recipe."""
    table = read_table(Path(path))
    return build_config(BenchmarkRecipe, table, overrides, source=str(path)) if "benchmarks" in table else None


def load_settings(model: type[AnyConfig], path: Path | str, overrides: Sequence[str] = ()) -> AnyConfig:
    """The file at `path` as `model`, read like `load_recipe` reads a recipe."""
    return build_config(model, read_table(Path(path)), overrides, source=str(path))


def build_config(model: type[AnyConfig], table: Table, overrides: Sequence[str], *, source: str) -> AnyConfig:
    """`table` with overrides applied, checked as `model`; errors begin with `source`."""
    for override in overrides:
        table = merge(table, parse_override(override))
    try:
        # JSON mode keeps numbers and strings strictly apart, yet takes an array for a tuple and a string
        # for a path. TOML's dates have no use here and become strings, refused wherever a number belongs.
        return model.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe_errors(error, model, table)}") from None


def read_table(path: Path, seen: tuple[Path, ...] = ()) -> Table:
    """The keys of the file at `path`, with those of the recipes it extends beneath them."""
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(f"{path}: extends itself, by way of {' > '.join(step.name for step in (*seen, resolved))}")
    table = _parse_file(path)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: {parent!r} must be the path of a recipe")
    return merge(read_table(path.parent / parent, (*seen, resolved)), table)


def _parse_file(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a UTF-8 text file") from None
    try:
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path}: is not valid {kind}: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: must hold one table of settings")
    return table
