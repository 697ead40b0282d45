"""Settings that two recipes, or a recipe and what a stage recorded, do not have alike."""

from collections.abc import Iterator, Mapping
from typing import Any


def changes(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Those that `ours` has and `theirs` has not, or otherwise, by dotted name below `prefix`."""
    return dict(_changes(ours, theirs, prefix))


def _changes(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in ours.items():
        other = theirs.get(key)
        if key in theirs and value == other:
            continue
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _changes(value, other, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings_text(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_value_text(value)}" for key, value in settings.items())


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_value_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value_text, value)) + "]"
    return "none" if value is None else str(value)
