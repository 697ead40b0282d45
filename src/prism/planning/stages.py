"""Each stage as the phases of its step: which model passes over which packs, and what is in memory meanwhile."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prism.config import (
    SAMPLES_PER_PROMPT,
    AlignConfig,
    Dapo,
    EvaluationConfig,
    Hardware,
    PlannedStage,
    Recipe,
    RlvrConfig,
    SftConfig,
    WarmupConfig,
)
from prism.models.views import views_of
from prism.planning import memory
from prism.planning.estimate import Phase
from prism.planning.lengths import Lengths, Row
from prism.planning.packs import Pack, Tree, own_share, pack_lengths
from prism.planning.sampling import Draw, SamplingEstimate, plan_sampling
from prism.planning.work import (
    FLOAT,
    Model,
    Work,
    forward,
    forward_backward,
    optimizer_step,
    seconds,
    trained_parameters,
)
from prism.stages.rollouts import SAMPLE_EVERY

SAMPLING = ("sampling", "greedy", "sampled")
"""The phases that draw rollouts; the last two are evaluation's."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all stages share: `policy` and `discriminator` as they train."""

    recipe: Recipe
    hardware: Hardware
    lengths: Lengths
    policy: Model
    discriminator: Model | None

    def seconds(self, work: Work) -> float:
        return seconds(work, self.hardware, self.recipe.precision)


@dataclass(frozen=True, slots=True)
class Packs:
    """The packs of a step, and the largest one that the recipe allows for, which decides about memory."""

    all: list[Pack]
    largest: Pack

    @property
    def tokens(self) -> int:
        return sum(pack.tokens for pack in self.all)


def sft_phases(context: Context, config: SftConfig, num_steps: int, *, data: str) -> list[Phase]:
    """On demonstrations of one of the recipe's data sets."""
    rows = context.lengths.draw(data, config.batch_size)
    trees = [Tree(context.lengths.prompt(row), (row.response,), row.images) for row in rows]
    ranks = context.hardware.ranks
    packs = _pack(context, trees, config.token_budget, config.max_response_tokens, num_shares=ranks)
    state = _state([context.policy])
    return [_update(context, "update", context.policy, packs, state, num_steps, with_entropy=False)]


def warmup_phases(context: Context, config: WarmupConfig) -> list[Phase]:
    """Rollouts for all pairs come first, by a policy that does not train and is whole on every rank."""
    model = _the_discriminator(context)
    whole = replace(context.policy, shards=None, rank=None)
    draw = _draw(context, "alignment", config.num_prompts, SAMPLES_PER_PROMPT, config.max_response_tokens)
    sampling = plan_sampling(whole, draw, context.lengths, context.recipe.rollout, context.hardware)
    state = {"weights": float(memory.BYTES[context.recipe.precision] * whole.shape.total)}
    phases = [_sampling(context, sampling, state, times=1)]
    packs = _contest_packs(context, config.batch_size, 1, config.max_response_tokens, config.token_budget)
    heldout = _contest_packs(context, config.num_heldout, 1, config.max_response_tokens, config.token_budget)
    state = _state([model])
    phases += _scoring_beforehand(context, model, packs, state, config.num_steps)
    phases.append(_update(context, "update", model, packs, state, config.num_steps))
    phases.append(_scoring(context, "held-out pairs", model, heldout, state, config.num_steps / config.evaluate_every))
    if model.shape.num_experts:
        phases.append(_scoring(context, "routing", model, packs, state, config.num_steps / SAMPLE_EVERY))
    return phases


def align_phases(context: Context, config: AlignConfig) -> list[Phase]:
    """Both players are there all the time; each has gradients only during its own update."""
    policy, model, steps = context.policy, _the_discriminator(context), config.num_steps
    draw = _draw(context, "alignment", config.prompts_per_step, config.group_size, config.max_response_tokens)
    sampling = plan_sampling(policy, draw, context.lengths, context.recipe.rollout, context.hardware)
    state = _state([policy, model])
    if config.kl is not None:
        state["weights"] += FLOAT * policy.shape.total / context.hardware.ranks
    phases = [_sampling(context, sampling, state, times=steps)]
    state["rollouts"] = sampling.copy
    size = (config.prompts_per_step, config.group_size, config.max_response_tokens, config.token_budget)
    contests, groups = _contest_packs(context, *size), _group_packs(context, "alignment", *size)
    phases += _scoring_beforehand(context, model, contests, state, steps)
    phases.append(_update(context, "discriminator update", model, contests, state, steps))
    phases.append(_update(context, "policy update", policy, groups, state, steps, with_entropy=True))
    if config.kl is not None:
        phases.append(_scoring(context, "reference", policy, groups, state, steps))
    if model.shape.num_experts:
        phases.append(_scoring(context, "routing", model, contests, state, steps / SAMPLE_EVERY))
    return phases


def rlvr_phases(context: Context, config: RlvrConfig, planned: PlannedStage) -> list[Phase]:
    """DAPO draws `oversampling` times the prompts, and again while too few of them differ in accuracy."""
    policy, steps = context.policy, planned.num_steps or 0
    num_prompts = config.prompts_per_step
    if isinstance(planned.algorithm, Dapo):
        num_prompts *= planned.algorithm.oversampling * dapo_rounds(planned.algorithm, _kept_groups(context.recipe))
    draw = _draw(context, "rl", num_prompts, config.group_size, config.max_response_tokens)
    sampling = plan_sampling(policy, draw, context.lengths, context.recipe.rollout, context.hardware)
    state = _state([policy])
    phases = [_sampling(context, sampling, state, times=steps)]
    state["rollouts"] = sampling.copy
    parts = min(config.num_mini_batches, config.prompts_per_step)
    size = (config.group_size, config.max_response_tokens, config.token_budget)
    packs = _group_packs(context, "rl", max(1, config.prompts_per_step // parts), *size)
    if parts > 1:
        phases.append(_scoring(context, "old log-probabilities", policy, packs, state, steps * (parts - 1)))
    phases.append(_update(context, "update", policy, packs, state, steps * parts, with_entropy=True))
    return phases


def evaluation_phases(context: Context, config: EvaluationConfig, num_models: int) -> list[Phase]:
    """Each item once greedily and `num_samples` times sampled, by a policy that is whole on every rank."""
    count = context.lengths.counts["test"]
    policy = replace(context.policy, shards=None, rank=None)
    state = {"weights": float(memory.BYTES[context.recipe.precision] * policy.shape.total)}
    phases = []
    for name, samples in (("greedy", 1), ("sampled", config.num_samples)):
        draw = _draw(context, "test", count, samples, config.max_response_tokens)
        found = plan_sampling(
            policy, draw, context.lengths, context.recipe.rollout, context.hardware, batch_size=config.batch_size
        )
        phases.append(_sampling(context, found, state, times=num_models, name=name))
    return phases


def dapo_rounds(algorithm: Dapo, kept: float) -> int:
    """Times that DAPO draws until the share `kept` of what it drew makes a step: ⌈1 / (oversampling · kept)⌉."""
    limit = algorithm.max_refills + 1
    return limit if kept <= 0 else min(limit, math.ceil(1 / (algorithm.oversampling * kept) - 1e-9))


def _kept_groups(recipe: Recipe) -> float:
    kept = recipe.plan.kept_groups if recipe.plan else None
    return 1.0 if kept is None else kept


def _the_discriminator(context: Context) -> Model:
    assert context.discriminator is not None
    return context.discriminator


def _state(models: Sequence[Model]) -> dict[str, float]:
    return {
        "weights": sum(map(memory.weights, models)),
        "optimizer states": sum(map(memory.optimizer_states, models)),
    }


def _draw(context: Context, name: str, count: int, group_size: int, limit: int) -> Draw:
    rows = context.lengths.draw(name, count)
    responses = [row.response for row in context.lengths.draw_rollouts(len(context.lengths.rollouts), limit)]
    return Draw(rows, group_size, responses, context.recipe.max_prompt_tokens, limit)


def _sampling(
    context: Context, sampling: SamplingEstimate, state: Mapping[str, float], *, times: float, name: str = "sampling"
) -> Phase:
    used = {**state, "rollouts": sampling.copy + sampling.cache}
    return Phase(name, used, sampling.tokens, sampling.work.flops * sampling.ranks, sampling.seconds, times)


def _pack(context: Context, trees: Sequence[Tree], token_budget: int, max_branch: int, *, num_shares: int = 1) -> Packs:
    """The largest pack that can come is one of the whole budget, unless all trees at their longest are less."""
    full = pack_lengths(trees, token_budget)
    typical = max(full, key=lambda pack: pack.tokens)
    longest = sum(context.recipe.max_prompt_tokens + len(tree.branches) * max_branch for tree in trees)
    tokens = max(typical.tokens, min(token_budget, longest))
    share = tokens / typical.tokens
    images = max((pack.images for pack in full), key=sum)
    counts = ("targets", "visible", "calls", "joined", "masked", "hidden")
    scaled = {name: round(getattr(typical, name) * share) for name in counts}
    return Packs(pack_lengths(trees, token_budget, num_shares), Pack(tokens=tokens, images=images, **scaled))


def _group_packs(
    context: Context, name: str, num_prompts: int, group_size: int, limit: int, token_budget: int
) -> Packs:
    """Each prompt with the policy's responses to it."""
    lengths = context.lengths
    trees = []
    for place, row in enumerate(lengths.draw(name, num_prompts)):
        responses = lengths.draw_rollouts(group_size, limit, start=place * group_size)
        trees.append(Tree(lengths.prompt(row), tuple(found.response for found in responses), row.images))
    return _pack(context, trees, token_budget, limit, num_shares=context.hardware.ranks)


def _contest_packs(context: Context, num_prompts: int, group_size: int, limit: int, token_budget: int) -> Packs:
    """Each prompt, as the discriminator sees it, with the views of the teacher's response and of the policy's."""
    lengths, mode = context.lengths, context.recipe.discriminator.type
    trees = []
    for place, row in enumerate(lengths.draw("alignment", num_prompts)):
        responses = [row, *lengths.draw_rollouts(group_size, limit, start=place * group_size)]
        branches = tuple(length for found in responses for length in _view_lengths(found, len(views_of(mode))))
        sees_images = mode != "text-only"
        prompt = lengths.prompt(row) if sees_images else row.text
        trees.append(Tree(prompt, branches, row.images if sees_images else ()))
    return _pack(context, trees, token_budget, limit)


def _view_lengths(row: Row, num_views: int) -> tuple[int, ...]:
    return (row.caption, row.reasoning) if num_views == 2 else (row.response,)


def _update(
    context: Context,
    name: str,
    model: Model,
    packs: Packs,
    state: Mapping[str, float],
    times: float,
    *,
    with_entropy: bool = False,
) -> Phase:
    """All packs forward and backward, then the optimizer's step."""
    ranks = context.hardware.ranks
    share = own_share(packs.all, ranks)
    waiting = 1 - packs.tokens / (ranks * sum(pack.tokens for pack in share))
    passes = [forward_backward(model, pack, with_entropy=with_entropy) for pack in share]
    step = optimizer_step(model)
    used = dict(state) | {"gradients": memory.gradients(model), "gathered weights": memory.gathered(model)}
    used |= memory.training_pass(model, packs.largest, with_entropy=with_entropy)
    if context.hardware.is_asynchronous:
        # On accelerators AdamW steps through all tensors at once, and has a copy of them, when the pass is over.
        beside = used["gathered weights"] + used["logits"]
        used["activations"] = max(used["activations"], FLOAT * trained_parameters(model) / model.num_shards - beside)
    flops = sum(forward_backward(model, pack, with_entropy=with_entropy).flops for pack in packs.all)
    spent = sum(map(context.seconds, passes)) + context.seconds(step)
    return Phase(name, used, packs.tokens, flops, spent, times, waiting)


def _scoring(
    context: Context, name: str, model: Model, packs: Packs, state: Mapping[str, float], times: float
) -> Phase:
    used = dict(state) | {"gathered weights": memory.gathered(model)} | memory.scoring_pass(model, packs.largest)
    spent = sum(context.seconds(forward(model, pack)) for pack in own_share(packs.all, context.hardware.ranks))
    flops = sum(forward(model, pack).flops for pack in packs.all)
    return Phase(name, used, packs.tokens, flops, spent, times)


def _scoring_beforehand(
    context: Context, model: Model, contests: Packs, state: Mapping[str, float], times: float
) -> list[Phase]:
    """A pass without a gradient over packs that hold a part only of some contest; others are scored by the update."""
    split = [pack for pack in contests.all if pack.parts]
    if not split:
        return []
    return [_scoring(context, "scoring", model, Packs(split, contests.largest), state, times)]
