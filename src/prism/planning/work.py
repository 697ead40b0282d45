"""The work of a pass over one packed sequence, and how long a device takes for it.

Work has five parts, because a device is limited by another thing in each: matrix products and attention (FLOPs, a
multiplication and an addition being two), bytes moved by everything else, operations started, and bytes exchanged with
other ranks. b is the bytes of a number in the layers' precision, T the tokens and P the patches of a pack.
"""

from dataclasses import dataclass, fields

from prism.config import Hardware, Precision
from prism.packing.forward import LOGIT_CHUNK
from prism.planning.packs import Pack
from prism.planning.shapes import ModelShape

BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
FLOAT = 4
"""Bytes of what is in float32 whatever the precision: logits, normalisation, weights that train and their states."""

LAYER_OPERATIONS, EXPERT_OPERATIONS, BLOCK_OPERATIONS = 98, 21, 50
TOP_OPERATIONS, VISION_OPERATIONS = 40, 230
"""Operations of a forward pass, views among them, counted in transformers 5.23: per language layer, more where it has
experts, per vision block, about outside layers, and about outside blocks where there are images. A backward pass has
twice as many."""
CALL_OPERATIONS = 9
"""Of a branch that is a call of its own, in every layer; as many in a backward pass."""


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be done: FLOPs of matrix products and of attention, bytes moved, operations, bytes exchanged; those
    that are known to stay inside a machine, `exchanged_inside`, apart."""

    matmul: float = 0.0
    attention: float = 0.0
    moved: float = 0.0
    operations: float = 0.0
    exchanged: float = 0.0
    exchanged_inside: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(Work)))

    def __mul__(self, factor: float) -> "Work":
        return Work(*(getattr(self, part.name) * factor for part in fields(Work)))

    @property
    def flops(self) -> float:
        return self.matmul + self.attention


NOTHING = Work()


def seconds(work: Work, hardware: Hardware, precision: Precision) -> float:
    """Seconds of one rank.

    Matrix products, attention and moving run one after the other, each at its share of the data sheet's speed.
    Operations are started meanwhile where the device is asynchronous, else before; weights are exchanged meanwhile.
    """
    peak = getattr(hardware.tflops, precision) * 1e12
    computing = (
        work.matmul / (peak * hardware.matmul_share)
        + work.attention / (peak * hardware.attention_share)
        + work.moved / (hardware.memory_gb_s * 1e9 * hardware.memory_share)
    )
    starting = work.operations * hardware.operation_us * 1e-6
    computing = max(computing, starting) if hardware.is_asynchronous else computing + starting
    exchanging = work.exchanged / hardware.rank_link_gb_s + work.exchanged_inside / hardware.link_gb_s
    return max(computing, exchanging / (1e9 * hardware.link_share))


def language_forward(shape: ModelShape, tokens: int, pairs: int, precision: Precision, *, mask: int) -> Work:
    """The language layers: 2 · (parameters a token meets) · T and 4 · layers · heads · head_dim · pairs for attention.

    `pairs` of query and key are computed, those that masks of `mask` numbers forbid among them.

    Moved in every layer besides `layer_bytes` are masks in its precision, 1 + b.
    """
    b = BYTES[precision]
    queries = shape.heads * shape.head_dim
    operations = LAYER_OPERATIONS + (EXPERT_OPERATIONS if shape.num_experts else 0)
    return Work(
        matmul=2.0 * shape.layers * shape.active_matrices * tokens,
        attention=4.0 * shape.layers * queries * pairs,
        moved=float(shape.layers * (layer_bytes(shape, precision) * tokens + (1 + b) * mask)),
        operations=shape.layers * operations + TOP_OPERATIONS,
    )


def layer_bytes(shape: ModelShape, precision: Precision) -> float:
    """Moved per token and language layer, reads and writes: two norms and residuals 82 · hidden; norm, rotation and
    copies of queries (45 + 8b) · heads · head_dim, of keys (45 + 8b) · kv_heads · head_dim; activation
    5b · intermediate for each expert used, 7b · hidden for a token sent to an expert."""
    b = BYTES[precision]
    moved = 82 * shape.hidden + (45 + 8 * b) * (shape.heads + shape.kv_heads) * shape.head_dim
    moved += 5 * b * shape.intermediate * shape.top_k
    return moved + (7 * b * shape.hidden * shape.top_k if shape.num_experts else 0)


def vision_forward(shape: ModelShape, images: tuple[int, ...], precision: Precision) -> Work:
    """The vision tower over images of so many patches, each of which attends to its own image alone.

    2 · (block matrices · depth + patch projection) · P + 2 · merger matrices · P / merge² + 4 · depth · hidden · Σ p²;
    moved per patch and block 132 · hidden + 2b · intermediate, and outside of them 120 · hidden and the pixels twice.
    """
    if not images:
        return NOTHING
    b, patches = BYTES[precision], sum(images)
    matrices = shape.depth * shape.block_matrices + shape.patch_matrix + shape.merger_matrices / shape.merge**2
    per_block = 132 * shape.vision_hidden + 2 * b * shape.vision_intermediate
    outside = 120 * shape.vision_hidden + 2 * FLOAT * shape.patch_matrix / shape.vision_hidden
    return Work(
        matmul=2.0 * matrices * patches,
        attention=4.0 * shape.depth * shape.vision_hidden * sum(count**2 for count in images),
        moved=float((shape.depth * per_block + outside) * patches),
        operations=shape.depth * BLOCK_OPERATIONS + VISION_OPERATIONS,
    )


def logits_forward(shape: ModelShape, targets: int, *, with_entropy: bool) -> Work:
    """The output layer and the log-probabilities of `targets`: 2 · hidden · vocabulary each; 32 bytes moved per logit,
    32 more for an entropy."""
    return Work(
        matmul=2.0 * shape.hidden * shape.vocab * targets,
        moved=(64.0 if with_entropy else 32.0) * shape.vocab * targets,
        operations=40,
    )


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the role it has in a stage: a policy has logits, a discriminator has not.

    All its weights train, or adapters of `rank` in the language layers. FSDP spreads them over `shards` ranks; None
    says that it is not used. There are `copies` of the weights, each of which may be `inside_machine`.
    `attends_by_branch` tells sdpa from flex attention.
    """

    shape: ModelShape
    precision: Precision
    has_logits: bool
    shards: int | None = None
    copies: int = 1
    inside_machine: bool = False
    is_checkpointing: bool = False
    rank: int | None = None
    attends_by_branch: bool = True

    @property
    def num_shards(self) -> int:
        return self.shards or 1


def forward(model: Model, pack: Pack, *, with_entropy: bool = False) -> Work:
    """A pass without a gradient. A sharded model gathers its weights: parameters · b bytes."""
    work = _layers_forward(model, pack) + vision_forward(model.shape, pack.images, model.precision)
    if model.has_logits:
        work += logits_forward(model.shape, pack.targets, with_entropy=with_entropy)
    return work + _gathering(model)


def forward_backward(model: Model, pack: Pack, *, with_entropy: bool = False) -> Work:
    """A pass and its gradient.

    Backward: matrix products twice (that of the pixels, which have no gradient, once), attention 2.5 times (it computes
    its scores again), moving and operations twice, but those of calls for branches once. Moved besides, per token and
    layer: (20 + 17b) · hidden to add up gradients of numbers that several products read, and for each expert used
    2b · hidden + 3.5b · intermediate to scatter and to join them.
    With adapters frozen matrices cost once and images nothing, and the adapters' products, 6 · their parameters · T,
    are added. Activation checkpointing adds a forward pass of the layers, and logits of more than one chunk are
    computed again, too. Gradients are added to those of earlier packs, 12 bytes moved per trained parameter. A sharded
    model gathers its weights twice and adds up gradients in float32: parameters · (2b + 4) bytes. Copies add up those
    of each shard around a ring: 2 · 4 · parameters / shards.
    """
    shape, precision, has_adapters = model.shape, model.precision, model.rank is not None
    language = _layers_forward(model, pack)
    vision = vision_forward(shape, pack.images, precision)
    layers = language if has_adapters else language + vision
    work = language + vision + _backward(layers, is_frozen=has_adapters)
    work += Work(moved=_gradient_bytes(shape, precision) * pack.tokens, operations=-_call_operations(model, pack))
    if not has_adapters:
        work += Work(matmul=-2.0 * shape.patch_matrix * pack.patches)
    if model.is_checkpointing:
        work += layers
    if model.has_logits:
        logits = logits_forward(shape, pack.targets, with_entropy=with_entropy)
        work += logits + _backward(logits, is_frozen=has_adapters)
        if pack.targets > LOGIT_CHUNK:
            work += logits
    if model.rank is not None:
        work += Work(matmul=6.0 * adapter_parameters(shape, model.rank, only_active=True) * pack.tokens)
    work += _gathering(model) * 2 + Work(moved=12.0 * trained_parameters(model) / model.num_shards)
    between = 2.0 * FLOAT * shape.total / model.num_shards if model.copies > 1 else 0.0
    return work + exchange(model, FLOAT * shape.total) + Work(exchanged=between)


def _layers_forward(model: Model, pack: Pack) -> Work:
    """Flex attention computes the visible pairs; by branch those that masks forbid are computed, too.

    By branch 4b · heads · head_dim are moved for each token, whose output is put together with others and turned, and
    for each key that a branch has of its prompt and itself; 3 for each number of a mask while it is made.
    """
    shape, precision = model.shape, model.precision
    if not model.attends_by_branch:
        return language_forward(shape, pack.tokens, pack.visible, precision, mask=0)
    work = language_forward(shape, pack.tokens, pack.visible + pack.hidden, precision, mask=pack.masked)
    copied = 4 * BYTES[precision] * shape.heads * shape.head_dim * (pack.tokens + pack.joined)
    return work + Work(
        moved=float(shape.layers * (copied + 3 * pack.masked)),
        operations=_call_operations(model, pack),
    )


def _call_operations(model: Model, pack: Pack) -> float:
    return float(model.shape.layers * CALL_OPERATIONS * pack.calls) if model.attends_by_branch else 0.0


def _backward(forward: Work, *, is_frozen: bool) -> Work:
    return Work(
        matmul=forward.matmul * (1 if is_frozen else 2),
        attention=forward.attention * 2.5,
        moved=forward.moved * 2,
        operations=forward.operations * 2,
    )


def _gradient_bytes(shape: ModelShape, precision: Precision) -> float:
    """Moved per token by the backward pass of the language layers beyond twice what the forward pass moves."""
    b = BYTES[precision]
    per_layer = (20 + 17 * b) * shape.hidden
    if shape.num_experts:
        per_layer += shape.top_k * b * (2 * shape.hidden + 3.5 * shape.intermediate)
    return shape.layers * per_layer


def _gathering(model: Model) -> Work:
    """Each rank reads its own part in float32, and what comes in, rounded, is written, read and put in its place."""
    if model.shards is None:
        return NOTHING
    b, total = BYTES[model.precision], model.shape.total
    return Work(moved=total * (FLOAT / model.shards + 3 * b)) + exchange(model, b * total)


def exchange(model: Model, size: float) -> Work:
    """`size` bytes that every rank of a copy of the weights has of, or gives to, the others of that copy."""
    if model.num_shards == 1:
        return NOTHING
    return Work(exchanged_inside=float(size)) if model.inside_machine else Work(exchanged=float(size))


def optimizer_step(model: Model) -> Work:
    """AdamW and clipping over this rank's trained parameters: 20 + 3 reads and writes of float32 for each, and some 15
    operations for each of the 11 tensors of a language layer and the 12 of a vision block."""
    trained = trained_parameters(model) / model.num_shards
    return Work(moved=92.0 * trained, operations=15.0 * (11 * model.shape.layers + 12 * model.shape.depth))


def adapter_parameters(shape: ModelShape, rank: int, *, only_active: bool = False) -> int:
    """Of adapters of `rank`, A (rank · in) and B (out · rank) beside every matrix of attention and MLP, each expert
    having its own (gate and up together); `only_active` counts those that one token meets."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * (shape.hidden + queries) + 2 * (shape.hidden + keys)
    if not shape.num_experts:
        return rank * shape.layers * (attention + 3 * (shape.hidden + shape.intermediate))
    experts = shape.top_k if only_active else shape.num_experts
    expert = (shape.hidden + 2 * shape.intermediate) + (shape.intermediate + shape.hidden)
    return rank * shape.layers * (attention + experts * expert)


def trained_parameters(model: Model) -> int:
    """All of them; with adapters those and the routers."""
    if model.rank is None:
        return model.shape.total
    return adapter_parameters(model.shape, model.rank) + model.shape.layers * model.shape.router
