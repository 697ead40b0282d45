"""What to change where a recipe does not fit: variants of it, each planned as the recipe itself is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prism.config import Hardware, LoraConfig, Recipe, TransformersRollout, VllmRollout
from prism.planning.estimate import Estimate
from prism.planning.lengths import Lengths, find_lengths
from prism.planning.plan import estimate, policy_shape, vllm_room
from prism.planning.stages import SAMPLING

_MOST_RANKS = 1024
_NOTABLE = 0.98
_STAGES = ("sft", "second_sft", "warmup", "align", "rlvr")
_VLLM = "rollout.type=vllm rollout.sleep=true"


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change, written as on the command line, and the plan with it."""

    change: str
    estimate: Estimate


def find_remedies(recipe: Recipe, hardware: Hardware) -> list[Remedy]:
    """Each setting that lowers the peak by itself, all of them together, these with vLLM where sampling by the training
    model is what still does not fit, those with adapters, and, if none of that fits, all of them on as many ranks as it
    takes."""
    lengths = find_lengths(recipe)
    found = _single_changes(recipe, hardware, lengths)
    together = _with_all(recipe, found)
    words = " ".join(remedy.change for remedy in found)
    if len(found) > 1:
        found.append(Remedy(words, estimate(together, hardware, lengths)))
    if (sampled := _by_vllm(together, hardware, lengths)) is not None:
        # What sampling was larger than may now be the peak.
        more = _single_changes(sampled, hardware, lengths)
        together = _with_all(sampled, more)
        words = " ".join([words, _VLLM, *(remedy.change for remedy in more)]).strip()
        found.append(Remedy(words, estimate(together, hardware, lengths)))
    if recipe.lora is None:
        adapted = together.model_copy(update={"lora": LoraConfig()})
        found.append(Remedy(f"{words} lora={{rank=16}}".strip(), estimate(adapted, hardware, lengths)))
    if not any(remedy.estimate.fits for remedy in found):
        found += _on_more_ranks(together, words, hardware, lengths)
    return found


def _single_changes(recipe: Recipe, hardware: Hardware, lengths: Lengths) -> list[Remedy]:
    """Those that lower the peak of `recipe`, each by itself."""
    enough = _NOTABLE * estimate(recipe, hardware, lengths).peak.peak.bytes
    changed = [(_words(change, recipe), apply(recipe)) for change, apply in _CHANGES.items()]
    found = [Remedy(words, estimate(other, hardware, lengths)) for words, other in changed if other != recipe]
    return [remedy for remedy in found if remedy.estimate.peak.peak.bytes < enough]


def _with_all(recipe: Recipe, remedies: Sequence[Remedy]) -> Recipe:
    chosen = {remedy.change for remedy in remedies}
    together = recipe
    for change, apply in _CHANGES.items():
        if _words(change, recipe) in chosen:
            together = apply(together)
    return together


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


def _by_vllm(recipe: Recipe, hardware: Hardware, lengths: Lengths) -> Recipe | None:
    """`recipe` with vLLM that sleeps, where a device has no room for what its training model samples, and vLLM would
    start there and take less. None on CPUs, where it does not sleep."""
    if not isinstance(recipe.rollout, TransformersRollout) or not hardware.is_asynchronous:
        return None
    largest = _largest_sampling(estimate(recipe, hardware, lengths))
    changed = recipe.model_copy(update={"rollout": VllmRollout(sleep=True)})
    room, longest = vllm_room(changed, policy_shape(recipe), hardware)
    if largest <= hardware.usable_bytes or room < longest:
        return None
    return changed if _largest_sampling(estimate(changed, hardware, lengths)) < largest else None


def _largest_sampling(planned: Estimate) -> float:
    sizes = (phase.bytes for stage in planned.stages for phase in stage.phases if phase.name in SAMPLING)
    return max(sizes, default=0.0)


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
