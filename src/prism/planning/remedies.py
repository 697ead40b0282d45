"""What to change where a recipe does not fit: variants of it, each planned as the recipe itself is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prism.config import Hardware, LoraConfig, Recipe, VllmRollout
from prism.planning.estimate import Estimate
from prism.planning.lengths import Lengths, find_lengths
from prism.planning.plan import estimate

_MOST_RANKS = 1024
_NOTABLE = 0.98
_STAGES = ("sft", "warmup", "align", "rlvr")


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change, written as on the command line, and the plan with it."""

    change: str
    estimate: Estimate


def find_remedies(recipe: Recipe, hardware: Hardware) -> list[Remedy]:
    """Each setting that lowers the peak by itself, all of them together, those with adapters, and, if none of that
    fits, all of them on as many ranks as it takes."""
    lengths = find_lengths(recipe)
    enough = _NOTABLE * estimate(recipe, hardware, lengths).peak.peak.bytes
    found: list[Remedy] = []
    together = recipe
    for change, apply in _CHANGES.items():
        changed = apply(recipe)
        if changed == recipe:
            continue
        remedy = Remedy(_words(change, recipe), estimate(changed, hardware, lengths))
        if remedy.estimate.peak.peak.bytes < enough:
            found.append(remedy)
            together = apply(together)
    words = " ".join(remedy.change for remedy in found)
    if len(found) > 1:
        found.append(Remedy(words, estimate(together, hardware, lengths)))
    if recipe.lora is None:
        adapted = together.model_copy(update={"lora": LoraConfig()})
        found.append(Remedy(f"{words} lora={{rank=16}}".strip(), estimate(adapted, hardware, lengths)))
    if not any(remedy.estimate.fits for remedy in found):
        found += _on_more_ranks(together, words, hardware, lengths)
    return found


def _on_more_ranks(recipe: Recipe, words: str, hardware: Hardware, lengths: Lengths) -> list[Remedy]:
    """On twice as many ranks, and twice as many again; none of it where that would never be enough."""
    if recipe.fsdp_size is not None:
        # Of weights that are spread over so many as now, more ranks have more copies.
        recipe, words = recipe.model_copy(update={"fsdp_size": None}), f"{words} fsdp_size=none"
    ranks = hardware.ranks
    while ranks < _MOST_RANKS:
        ranks *= 2
        found = estimate(recipe, hardware.model_copy(update={"ranks": ranks}), lengths)
        if found.fits:
            return [Remedy(f"{words} on {ranks} ranks".strip(), found)]
    return []


def _with_checkpointing(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"activation_checkpointing": True})


def _with_small_packs(recipe: Recipe) -> Recipe:
    """A prompt and a response at their longest still fit."""
    return recipe.model_copy(
        update={
            name: stage.model_copy(update={"token_budget": recipe.max_prompt_tokens + stage.max_response_tokens})
            for name in _STAGES
            if (stage := getattr(recipe, name)) is not None
        }
    )


def _with_sleep(recipe: Recipe) -> Recipe:
    if not isinstance(recipe.rollout, VllmRollout):
        return recipe
    return recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update={"sleep": True})})


_CHANGES: Mapping[str, Callable[[Recipe], Recipe]] = {
    "precision=bfloat16": lambda recipe: recipe.model_copy(update={"precision": "bfloat16"}),
    "attention=flex": lambda recipe: recipe.model_copy(update={"attention": "flex"}),
    "activation_checkpointing=true": _with_checkpointing,
    "token_budget": _with_small_packs,
    "fsdp_size=none": lambda recipe: recipe.model_copy(update={"fsdp_size": None}),
    "rollout.sleep=true": _with_sleep,
}


def _words(change: str, recipe: Recipe) -> str:
    if change != "token_budget":
        return change
    small = _with_small_packs(recipe)
    stages: Sequence[str] = [name for name in _STAGES if getattr(small, name) != getattr(recipe, name)]
    return " ".join(f"{name}.token_budget={getattr(small, name).token_budget}" for name in stages)
