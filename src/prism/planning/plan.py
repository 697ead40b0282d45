"""From a recipe and hardware to its estimate."""

from collections.abc import Sequence
from functools import cache

from prism.config import (
    IMITATED,
    CheckpointBase,
    Dapo,
    DenseDiscriminator,
    Hardware,
    PlannedStage,
    Recipe,
    ServedRollout,
    TinyBase,
    VllmRollout,
    plan_stages,
)
from prism.errors import ConfigError
from prism.models.checkpoint import read_config
from prism.models.sharding import check_fsdp_size
from prism.planning.estimate import Estimate, Phase, StageEstimate
from prism.planning.lengths import Lengths, find_lengths
from prism.planning.sampling import vllm_memory
from prism.planning.shapes import ModelShape, body, published_shape, read_shape, widened, with_experts
from prism.planning.stages import (
    Context,
    align_phases,
    evaluation_phases,
    rlvr_phases,
    sft_phases,
    warmup_phases,
)
from prism.planning.work import Model
from prism.stages.workspace import SHIPPED_BASE

_MUCH_WAITING = 0.25


def estimate(recipe: Recipe, hardware: Hardware, lengths: Lengths | None = None) -> Estimate:
    """Raises ConfigError where a model or a length is unknown, saying what to give."""
    check_fsdp_size(recipe.fsdp_size, hardware.ranks)
    lengths = lengths or find_lengths(recipe)
    context = _context(recipe, hardware, lengths)
    stages = []
    for planned in plan_stages(recipe):
        phases = _phases(context, planned)
        if phases:
            num_steps = _num_steps(recipe, lengths, planned)
            stages.append(StageEstimate(planned.name, planned.start, num_steps, phases))
    if not stages:
        raise ConfigError(
            f"recipe {recipe.name}: has no stage that can be planned: none of sft, warmup, align and rlvr"
        )
    evaluated = sum(stage.is_evaluated for stage in plan_stages(recipe))
    if recipe.evaluation is not None and evaluated and "test" in lengths.counts:
        phases = evaluation_phases(context, recipe.evaluation, evaluated)
        stages.append(StageEstimate("evaluation", "every stage", evaluated, phases))
    return Estimate(recipe, hardware, stages, [*_basis(context), *_warnings(context, stages), *_left_out(context)])


def _context(recipe: Recipe, hardware: Hardware, lengths: Lengths) -> Context:
    policy = _model(recipe, hardware, policy_shape(recipe), is_policy=True)
    discriminator = None
    if recipe.warmup or recipe.align:
        shape = discriminator_shape(recipe, policy.shape)
        discriminator = _model(recipe, hardware, shape, is_policy=False)
    return Context(recipe, hardware, lengths, policy, discriminator)


def _model(recipe: Recipe, hardware: Hardware, shape: ModelShape, *, is_policy: bool) -> Model:
    """As `Workspace.to_train` prepares it: adapters are whole on every rank, other weights spread over all ranks, or
    over so many as have a copy, by FSDP, which also rounds them."""
    lora = recipe.lora
    has_adapters = lora is not None and (lora.policy if is_policy else lora.discriminator)
    is_wrapped = not has_adapters and (hardware.ranks > 1 or recipe.precision != "float32")
    shards = recipe.fsdp_size or hardware.ranks
    return Model(
        shape,
        recipe.precision,
        has_logits=is_policy,
        shards=shards if is_wrapped else None,
        copies=hardware.ranks // shards if is_wrapped else 1,
        inside_machine=hardware.ranks_per_node % shards == 0,
        is_checkpointing=recipe.activation_checkpointing,
        rank=lora.rank if lora is not None and has_adapters else None,
        attends_by_branch=recipe.attention == "sdpa",
    )


def policy_shape(recipe: Recipe) -> ModelShape:
    if isinstance(recipe.base, CheckpointBase):
        return _shape_at(str(recipe.base.path), recipe.base.path.is_dir(), "base.path")
    return _shipped_shape()


@cache
def _shipped_shape() -> ModelShape:
    return read_shape(read_config(SHIPPED_BASE))


def discriminator_shape(recipe: Recipe, policy: ModelShape) -> ModelShape:
    """Without its head, one vector. A trained one is as its directory says, a fresh one is made of the dense model."""
    config = recipe.discriminator
    if config.checkpoint is not None and config.checkpoint.is_dir():
        return body(read_shape(read_config(config.checkpoint)))
    dense = policy
    if config.dense is not None:
        dense = _shape_at(str(config.dense), config.dense.is_dir(), "discriminator.dense")
    elif config.checkpoint is not None:
        raise ConfigError(f"discriminator.checkpoint: {config.checkpoint} is not here, so its size is not known")
    if isinstance(config, DenseDiscriminator):
        return widened(dense, factor=config.width)
    return with_experts(dense, num_experts=config.num_experts, top_k=config.top_k)


def _shape_at(name: str, is_here: bool, field: str) -> ModelShape:
    shape = read_shape(read_config(name)) if is_here else published_shape(name)
    if shape is None:
        raise ConfigError(
            f"{field}: {name} is not here, and its name is none of Qwen3-VL-2B, -4B or -8B, whose sizes are known; "
            "a directory with its config.json is enough"
        )
    return shape


def _num_steps(recipe: Recipe, lengths: Lengths, planned: PlannedStage) -> int:
    if planned.num_steps is not None:
        return planned.num_steps
    config, data = getattr(recipe, planned.kind), IMITATED[planned.kind]
    assert config is not None and config.num_epochs is not None
    if data not in lengths.counts:
        remedy = "plan.num_demonstrations" if data == "sft" else "second_sft.num_steps"
        raise ConfigError(
            f"recipe {recipe.name}: its {config.num_epochs:g} epochs of {planned.name} have no number of steps while "
            f"data.{data} cannot be read: give {remedy}"
        )
    return -(-round(config.num_epochs * lengths.counts[data]) // config.batch_size)


def _phases(context: Context, planned: PlannedStage) -> list[Phase]:
    recipe = context.recipe
    if planned.kind in IMITATED:
        config, num_steps = getattr(recipe, planned.kind), _num_steps(recipe, context.lengths, planned)
        return sft_phases(context, config, num_steps, data=IMITATED[planned.kind])
    if planned.kind == "warmup" and recipe.warmup:
        return warmup_phases(context, recipe.warmup)
    if planned.kind == "align" and recipe.align:
        return align_phases(context, recipe.align)
    if planned.kind == "rlvr" and recipe.rlvr:
        return rlvr_phases(context, recipe.rlvr, planned)
    return []


def _basis(context: Context) -> list[str]:
    recipe, hardware, lengths = context.recipe, context.hardware, context.lengths
    lines = [f"lengths: {lengths.source}"]
    if recipe.warmup or recipe.align or recipe.rlvr or recipe.evaluation:
        longest = "" if lengths.longest_rollout is None else f", the longest of a batch {lengths.longest_rollout:,}"
        mean = sum(row.response for row in lengths.rollouts) / len(lengths.rollouts)
        whose = "as given" if recipe.plan and recipe.plan.rollout_tokens else "as the teacher's responses"
        lines.append(f"rollouts: {mean:,.0f} tokens in the mean, {whose}{longest}; all of them valid")
    lines.append(
        f"speed: {hardware.matmul_share:.0%} of {getattr(hardware.tflops, recipe.precision):g} TFLOP/s in matrix "
        f"products, {hardware.attention_share:.0%} in attention, {hardware.memory_share:.0%} of "
        f"{hardware.memory_gb_s:,.0f} GB/s of memory, layers in {recipe.precision}"
    )
    if hardware.ranks > 1:
        lines.append(
            f"ranks: {hardware.link_share:.0%} of {hardware.rank_link_gb_s:g} GB/s between them, while computing"
        )
    if recipe.fsdp_size is not None:
        copies = hardware.ranks // recipe.fsdp_size
        lines.append(f"copies: {copies} of the weights, over {recipe.fsdp_size} ranks each (fsdp_size)")
    lines.append(f"memory: packs of the whole token_budget; {hardware.usable_share:.0%} of a device for tensors")
    if isinstance(recipe.rollout, ServedRollout):
        lines.append(
            f"rollouts: {len(recipe.rollout.base_urls)} servers, each with vLLM on a device more of the same kind; "
            "their devices are not in the price"
        )
    is_dapo = recipe.rlvr is not None and any(isinstance(one, Dapo) for one in recipe.rlvr.algorithms)
    if is_dapo and (recipe.plan is None or recipe.plan.kept_groups is None):
        lines.append("DAPO: as if one round of sampling were enough, plan.kept_groups being unknown")
    return lines


def _warnings(context: Context, stages: Sequence[StageEstimate]) -> list[str]:
    recipe = context.recipe
    waiting = {stage.name: max(phase.waiting for phase in stage.phases) for stage in stages}
    shown = [f"{name} {share:.0%}" for name, share in waiting.items() if share >= _MUCH_WAITING]
    lines = []
    if shown:
        lines.append(
            f"waiting: of what a rank does in updates {', '.join(shown)} is for keeping step, there being too few or "
            "too uneven packs; lower token_budget or take more prompts a step"
        )
    if isinstance(recipe.rollout, VllmRollout):
        room, longest = vllm_room(recipe, context.policy.shape, context.hardware)
        if room < longest:
            lines.append(
                f"vLLM: rollout.memory_fraction leaves room for {room:,.0f} tokens beside the copy, one sequence may "
                f"have {longest:,}: it would not start"
            )
    return lines


def vllm_room(recipe: Recipe, policy: ModelShape, hardware: Hardware) -> tuple[float, int]:
    """Tokens that the cache of the recipe's vLLM has room for beside the copy, and those of the longest sequence, for
    which there must be room, else vLLM does not start."""
    assert isinstance(recipe.rollout, VllmRollout)
    _, room = vllm_memory(policy, recipe.rollout, hardware)
    stages = (recipe.warmup, recipe.align, recipe.rlvr, recipe.evaluation)
    return room, recipe.max_prompt_tokens + max((stage.max_response_tokens for stage in stages if stage), default=0)


def _left_out(context: Context) -> list[str]:
    recipe, lengths = context.recipe, context.lengths
    missing = ["checkpoints and the checking of answers"]
    if isinstance(recipe.base, TinyBase) and recipe.base.source == "pretrain":
        missing.append("pretraining of the tiny base")
    if recipe.audit is not None:
        missing.append("the audit")
    if recipe.evaluation is not None and "test" not in lengths.counts:
        missing.append("evaluation, plan.num_test being unknown")
    return [f"left out: {', '.join(missing)}"]
