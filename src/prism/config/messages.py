"""Turns pydantic's report into one line a user can act on."""

import json
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from prism.config.wording import printable, suggest

_LONGEST_VALUE = 60


def describe_errors(error: ValidationError, root: type[BaseModel], raw: Any) -> str:
    """The first of the errors found in `raw`, as `field.path: value … what is allowed`, and how many more there are."""
    errors = error.errors(include_url=False)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return printable(_describe(errors[0], root, raw)) + more


def _describe(error: ErrorDetails, root: type[BaseModel], raw: Any) -> str:
    location = _as_written(error, raw)
    path = ".".join(map(str, location))
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            allowed = [key for model in _models_at(root, location[:-1], raw) for key in model.model_fields]
            return f"unknown key {path}{suggest(str(location[-1]), allowed)}"
        case "missing":
            return f"{path}: is required and missing"
        case "union_tag_not_found":
            tags = [model.model_fields["type"].default for model in _models_at(root, location, raw)]
            return f"{path}.type: is required and missing; there are: {', '.join(tags)}"
        case "union_tag_invalid":
            tags = _quoted(context["expected_tags"])
            return _refuse(f"{path}.type", context["tag"], f"is unknown{suggest(context['tag'], tags)}")
        case "contradiction":
            field = f"{path}.{context['field']}" if path else context["field"]
            return _refuse(field, context["value"], context["reason"])
        case "literal_error":
            hint = suggest(error["input"], _quoted(context["expected"]), or_list=False)
            return _refuse(path, error["input"], f"must be {context['expected']}{hint}")
        case "string_pattern_mismatch":
            return _refuse(path, error["input"], "must begin with a letter or digit and hold only those and . _ -")
    return _refuse(path or "recipe", error["input"], _requirement(error))


def _refuse(path: str, value: Any, reason: str) -> str:
    return f"{path}: {reason}" if value is None else f"{path} = {_show(value)}: {reason}"


def _requirement(error: ErrorDetails) -> str:
    """pydantic's own words, in the language of TOML."""
    words = {
        "model_type": "must be a table",
        "model_attributes_type": "must be a table",
        "dict_type": "must be a table",
        "tuple_type": "must be an array",
        "value_error": error["msg"].removeprefix("Value error, "),
    }
    return words.get(error["type"], error["msg"].replace("Input should", "must"))


def _quoted(text: str) -> list[str]:
    """The words in single quotes in one of pydantic's lists."""
    return text.split("'")[1::2]


def _show(value: Any) -> str:
    """`value` on one line as TOML would nearly write it, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _as_written(error: ErrorDetails, raw: Any) -> tuple[int | str, ...]:
    """Where the error is, as the user wrote it: pydantic adds the chosen variant's `type` to the path."""
    kept: list[int | str] = []
    node: Any = raw
    for depth, part in enumerate(error["loc"], start=1):
        is_missing_key = error["type"] == "missing" and depth == len(error["loc"])
        if isinstance(node, dict) and part not in node and not is_missing_key:
            continue
        if part == "[key]":  # the key itself is wrong, not what stands under it
            break
        kept.append(part)
        node = node[part] if not is_missing_key else None
    return tuple(kept)


def _models_at(root: type[BaseModel], location: tuple[int | str, ...], raw: Any) -> list[type[BaseModel]]:
    """The models the table at `location` may be; only the chosen variant where its `type` is known."""
    candidates: list[type[BaseModel]] = [root]
    node = raw
    for part in location:
        node = node[part]
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
            candidates = [model for field in fields for model in _models_in(field.annotation)]
        if isinstance(node, dict):
            candidates = [model for model in candidates if _is_variant(model, node.get("type"))] or candidates
    return candidates


def _is_variant(model: type[BaseModel], tag: Any) -> bool:
    field = model.model_fields.get("type")
    return field is not None and field.default == tag


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models an annotation speaks of, through unions, tuples and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return _models_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []
