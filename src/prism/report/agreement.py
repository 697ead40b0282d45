"""Whether the stages of a seed are what the recipe asks for, and go on from the very ones that lie beside them.

A recipe may have changed since a stage was run, and a stage been run anew since another went on from it. What a
manifest does not record is taken to be as it should.
"""

from collections.abc import Mapping
from typing import Any

from prism.config import Config, EvaluationConfig, LoraConfig, PlannedStage, Recipe, TinyBase, build_config, plan_stages
from prism.errors import ConfigError
from prism.report.settings import changes, settings_text

Manifest = Mapping[str, Any]

DATA = "data"
_LORA = LoraConfig.__name__
_SPEED_ALONE = frozenset({"checkpoint_every"})
"""Settings that are no part of a stage's results, nor of what it records."""


def disagreements(recipe: Recipe, manifests: Mapping[str, Manifest], evaluations: Mapping[str, Manifest]) -> list[str]:
    """A line for each stage of one seed that is not the recipe's, or does not go on from what lies beside it.

    Both mappings are by stage; `manifests` has that of the data as well. Stages that the recipe has not are left alone.
    """
    planned = {stage.name: stage for stage in plan_stages(recipe)}
    made = {name: manifest for name, manifest in manifests.items() if name in planned or name == DATA}
    evaluated = {name: manifest for name, manifest in evaluations.items() if name in planned}
    lines = []
    for name, manifest in made.items():
        found = _of_data(recipe, manifest) if name == DATA else _of_stage(recipe, planned[name], manifest)
        lines += [f"{name} was made with {settings_text(found)}"] if found else []
    for name, manifest in evaluated.items():
        found = _of_evaluation(recipe.evaluation, manifest)
        lines += [f"{name} was evaluated with {settings_text(found)}"] if found else []
    return lines + _other_inputs(made, evaluated)


def _of_data(recipe: Recipe, manifest: Manifest) -> dict[str, Any]:
    return _of_table("data", recipe.data, manifest.get("config") or {})


def _of_evaluation(config: EvaluationConfig | None, manifest: Manifest) -> dict[str, Any]:
    """Its own settings alone: those of the model and of the engine, which stand beside them, are not looked at."""
    if config is None:
        return {}
    recorded = (manifest.get("config") or {}).items()
    return _of_table("evaluation", config, {key: value for key, value in recorded if key in type(config).model_fields})


def _of_stage(recipe: Recipe, planned: PlannedStage, manifest: Manifest) -> dict[str, Any]:
    """What the stage recorded otherwise than the recipe has it."""
    recorded = manifest.get("config") or {}
    if planned.kind == "base" and not (isinstance(recipe.base, TinyBase) and recipe.base.source == "pretrain"):
        return _of_table("base", recipe.base, recorded)
    found: dict[str, Any] = {}
    for place, part in _parts(recipe, planned).items() if recorded else ():
        table = recorded.get(type(part).__name__)
        if table is None:
            found[place] = "another"
        else:
            found |= _of_table(place, part, _own_algorithm(table, planned) if place == "rlvr" else table)
    if recorded:
        # What is so by default is not recorded.
        found |= {"lora": recorded[_LORA]} if recipe.lora is None and _LORA in recorded else {}
        expected = {"max_prompt_tokens": recipe.max_prompt_tokens, "start": planned.start}
        usual = {"precision": ("float32", recipe.precision), "max_pixels": (None, recipe.max_pixels)}
        found |= {key: recorded[key] for key, value in expected.items() if recorded.get(key, value) != value}
        found |= {
            key: recorded.get(key, other) for key, (other, own) in usual.items() if recorded.get(key, other) != own
        }
    steps = manifest.get("num_steps")
    if steps is not None and planned.num_steps is not None and steps != planned.num_steps:
        found[f"{planned.kind}.num_steps"] = steps
    return found


def _parts(recipe: Recipe, planned: PlannedStage) -> dict[str, Config]:
    """The tables that are part of the stage's identity, by their place in the recipe."""
    parts: dict[str, Config | None] = {}
    if planned.kind == "base" and isinstance(recipe.base, TinyBase):
        parts["base.pretrain"] = recipe.base.pretrain
    elif planned.kind == "rlvr" and recipe.rlvr is not None and planned.algorithm is not None:
        own = {"algorithms": (planned.algorithm,), "baselines": None, "num_steps": planned.num_steps}
        parts["rlvr"] = recipe.rlvr.model_copy(update=own)
    elif planned.kind in ("sft", "second_sft", "warmup", "align"):
        parts[planned.kind] = getattr(recipe, planned.kind)
        parts |= {"discriminator": recipe.discriminator} if planned.kind in ("warmup", "align") else {}
    if planned.kind in ("sft", "second_sft", "warmup", "align", "rlvr"):
        parts["lora"] = recipe.lora
    return {place: part for place, part in parts.items() if part is not None}


def _own_algorithm(recorded: Manifest, planned: PlannedStage) -> dict[str, Any]:
    """Of what a stage of RLVR recorded, what is its own: its algorithm, and the steps that its manifest counts."""
    name = planned.algorithm.name if planned.algorithm is not None else ""
    algorithms = recorded.get("algorithms") or []
    own = [algorithm for algorithm in algorithms if algorithm.get("name") == name] or algorithms
    return {**recorded, "algorithms": own, "baselines": None, "num_steps": planned.num_steps}


def _of_table(place: str, part: Config, recorded: Manifest) -> dict[str, Any]:
    """Settings that were recorded otherwise; those that an older version did not know had their defaults."""
    if not recorded:
        return {}
    try:
        read = build_config(type(part), dict(recorded), (), source=place)
    except ConfigError:
        # Of another type, or of a version whose settings were others.
        common = {key: value for key, value in part.model_dump(mode="json").items() if key in recorded}
        return changes({key: recorded[key] for key in common}, common, f"{place}.") or {place: "another"}
    ours, theirs = (each.model_dump(mode="json", exclude=set(_SPEED_ALONE)) for each in (read, part))
    return changes(ours, theirs, f"{place}.")


def _other_inputs(manifests: Mapping[str, Manifest], evaluations: Mapping[str, Manifest]) -> list[str]:
    """A stage may have been run anew, by another version or recipe, since others were made from what it put out."""
    found = [(f"{name} was made from", manifest, {}) for name, manifest in manifests.items()]
    found += [
        (f"the evaluation of {name} is of", manifest, {"model": (name, "model")})
        for name, manifest in evaluations.items()
    ]
    lines = []
    for text, manifest, own in found:
        inputs = (manifest.get("inputs") or {}).items()
        made = {given: _made(manifests, *(own.get(given) or _source(given))) for given, _ in inputs}
        if differing := [given for given, sha256 in inputs if made[given] not in (None, sha256)]:
            lines.append(f"{text} another {' and another '.join(differing)} than there is now")
    return lines


def _source(name: str) -> tuple[str, str]:
    """The stage that an input is of, and its name among what that one put out."""
    stage, slash, output = name.partition("/")
    return (stage, output) if slash else (stage, "model")


def _made(manifests: Mapping[str, Manifest], stage: str, output: str) -> str | None:
    """sha256 of what a stage put out or took over from outside, as the stages after it read it."""
    manifest = manifests.get(stage)
    if manifest is None or manifest.get("status") != "complete":
        return None
    recorded = (manifest.get("outputs") or {}).get(output)
    return recorded["sha256"] if isinstance(recorded, Mapping) else (manifest.get("inputs") or {}).get(output)
