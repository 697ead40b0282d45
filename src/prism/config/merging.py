"""Tables over tables: how `extends` and `key.path=value` change a recipe before it is checked."""

import tomllib
from typing import Any

from prism.config.wording import printable, suggest
from prism.errors import ConfigError

Table = dict[str, Any]

DEFAULT = object()
"""In an overriding table: put the key back to its default."""


def merge(below: Table, above: Table, path: str = "") -> Table:
    """`below` with the keys of `above` laid over it; sub-tables are merged, everything else is replaced.

    A sub-table that chooses another `type` replaces the one below whole, since the keys of another
    variant would only be unknown to it. `path` is where the tables lie, for errors.
    """
    merged = dict(below)
    for key, value in above.items():
        if value is DEFAULT:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, f"{path}.{key}" if path else key)
    return merged


def parse_override(text: str) -> Table:
    """The table that `key.path=value` stands for.

    The value is TOML; `none`, without quotes, takes the key out of the recipe, so that its default
    holds; any other text that is not TOML and does not begin like a TOML string, array or table is a
    string.
    """
    path, separator, value = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"override {text!r}: write key.path=value, as in align.num_steps=20")
    table: Any = _parse_value(path.strip(), value.strip())
    for key in reversed(keys):
        table = {key: table}
    return table


def _parse_value(path: str, text: str) -> Any:
    if text == "none":
        return DEFAULT
    try:
        parsed = tomllib.loads(f"value = {text}")
    except ValueError as error:
        if not text or text[0] in "[{\"'":
            raise ConfigError(f"override {printable(path)}: {text!r} is not a TOML value ({error})") from None
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _merge_value(below: Any, above: Any, path: str) -> Any:
    if not isinstance(above, dict):
        return above
    if isinstance(below, list):
        return _merge_into_list(below, above, path)
    if not isinstance(below, dict):
        return merge({}, above, path)
    is_other_variant = "type" in above and above["type"] != below.get("type", above["type"])
    return merge({} if is_other_variant else below, above, path)


def _merge_into_list(below: list[Any], above: Table, path: str) -> list[Any]:
    """`algorithms.0.clip=0.1` or `algorithms.grpo.clip=0.1`: an element by its index, name or type."""
    merged = list(below)
    labels = [_label(index, element) for index, element in enumerate(below)]
    for key, value in above.items():
        index = int(key) if key.isdecimal() else labels.index(key) if key in labels else -1
        if not 0 <= index < len(below):
            where, hint = printable(f"{path}.{key}"), printable(suggest(key, labels))
            raise ConfigError(f"{where}: there is no such element; choose an index below {len(below)} or a name{hint}")
        if value is DEFAULT:
            raise ConfigError(f"{printable(path)}.{key}: an element cannot be left out; write the whole list")
        merged[index] = _merge_value(merged[index], value, f"{path}.{key}")
    return merged


def _label(index: int, element: Any) -> str:
    if not isinstance(element, dict):
        return str(index)
    return str(element.get("name", element.get("type", index)))
