"""Bytes that one rank needs: what stays between passes, what a pass keeps for its gradient, what sampling takes.

b is the bytes of a number in the layers' precision. Weights that train, their gradients and AdamW's two moments are in
float32. Tensors that a pass keeps were counted in transformers 5.23 and are checked against autograd in the tests.
"""

from prism.packing.forward import LOGIT_CHUNK
from prism.planning.packs import Pack
from prism.planning.shapes import ModelShape
from prism.planning.work import BYTES, FLOAT, Model, trained_parameters

_IDS = 32
"""Bytes of a token's id and of its three positions."""


def weights(model: Model) -> float:
    """4 · parameters / ranks; with adapters b · parameters + 4 · those of the adapters, on every rank."""
    if model.rank is None:
        return FLOAT * model.shape.total / model.num_shards
    return BYTES[model.precision] * model.shape.total + FLOAT * trained_parameters(model)


def gradients(model: Model) -> float:
    return FLOAT * trained_parameters(model) / model.num_shards


def optimizer_states(model: Model) -> float:
    """Two moments."""
    return 2 * FLOAT * trained_parameters(model) / model.num_shards


def gathered(model: Model) -> float:
    """Whole weights that exist at one time where FSDP gathers them: those outside layers and two layers, rounded to the
    layers' precision, and the gradients of the former and of one layer, the latter also in float32."""
    if model.shards is None:
        return 0.0
    b, layer, outside = BYTES[model.precision], model.shape.largest_layer, model.shape.outside_layers
    return float(b * (2 * outside + 3 * layer) + FLOAT * layer)


def kept_activations(model: Model, pack: Pack) -> float:
    """What the backward pass over `pack` needs of the forward pass, logits left out.

    With activation checkpointing the inputs of all layers, and all of one layer while it is computed again.
    """
    shape, b = model.shape, BYTES[model.precision]
    layer = layer_activations(model, pack)
    block = 0.0 if model.rank is not None else block_activations(shape, pack.patches, b)
    top = pack.tokens * (shape.hidden * (b + FLOAT) + 2 * shape.head_dim * b)
    top += pack.patches * FLOAT * pixels(shape)
    if model.rank is None:
        top += pack.patches * 3.5 * shape.num_mergers * shape.vision_hidden * b
        top += pack.patches * pixels(shape) * b if b < FLOAT else 0
    if not model.is_checkpointing:
        return top + shape.layers * layer + shape.depth * block
    inputs = shape.layers * pack.tokens * shape.hidden * b
    if model.rank is None:
        inputs += shape.depth * pack.patches * shape.vision_hidden * b
    return top + inputs + max(layer, block)


def pixels(shape: ModelShape) -> int:
    """Numbers that one patch is made of."""
    return shape.patch_matrix // shape.vision_hidden


def layer_activations(model: Model, pack: Pack) -> float:
    """One language layer. Per token, all weights training: (4b + 8) · hidden + (6b + 4) · heads · head_dim
    + (b + 4) · kv_heads · head_dim + 4b · intermediate, the last for each expert used, with 2b · hidden for what goes
    in and comes out; norms and sums of attention. Of that, attention by branch has 3b · heads · head_dim in keys and
    values repeated to all heads and in outputs put together; flex attention has 2b · kv_heads · head_dim instead.

    A branch beside others adds, by branch, 2b · heads · head_dim · (prompt + l) for its prompt's and its own keys and
    values, and b · l · (prompt + l) for its mask, made anew in every layer.

    With adapters frozen norms and matrices keep less, but adapters keep their inputs, in float32, and those of experts
    the adapted matrices of all experts.
    """
    shape, b, tokens = model.shape, BYTES[model.precision], pack.tokens
    queries, keys_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    small = FLOAT * (2 + shape.kv_heads + 2 * shape.heads)
    repeated = 2 * b * (queries if model.attends_by_branch else keys_width)
    branches = b * (2 * queries * pack.joined + pack.masked) if model.attends_by_branch else 0
    output = b * queries if model.attends_by_branch else 0
    experts = 2 * b * shape.hidden * shape.top_k if shape.num_experts else 0
    if model.rank is None:
        attention = (4 * b + 8) * shape.hidden + (3 * b + 4) * queries + (b + 4) * keys_width + repeated + output
        return float(tokens * (attention + 4 * b * shape.intermediate * shape.top_k + experts + small) + branches)
    has_casts = b < FLOAT
    inputs = 2 if not has_casts else 4 if shape.num_experts else 5
    attention = (8 + FLOAT * inputs) * shape.hidden + (2 * b + 4) * queries + 4 * keys_width + repeated
    attention += FLOAT * queries if has_casts else output
    mlp = 4 * b * shape.top_k if shape.num_experts else 3 * b + 4
    adapted = b * shape.num_experts * shape.mlp
    return float(tokens * (attention + mlp * shape.intermediate + experts + small) + branches + adapted)


def block_activations(shape: ModelShape, patches: int, b: int) -> float:
    """One block of the vision tower: per patch (11 · hidden + 2 · intermediate) · b, norms and sums of attention."""
    per_patch = b * (11 * shape.vision_hidden + 2 * shape.vision_intermediate) + FLOAT * (4 + shape.vision_heads)
    return float(patches * per_patch)


def logits(shape: ModelShape, targets: int, *, with_entropy: bool) -> float:
    """Float32 copies of the logits of one chunk of targets that exist at one time: five with entropies, else three."""
    return float((5 if with_entropy else 3) * FLOAT * shape.vocab * min(targets, LOGIT_CHUNK))


def passing(model: Model, tokens: int) -> float:
    """What computing a layer takes besides what is kept: per token 3b · intermediate for each expert used and
    4b · hidden. Attention, which is over by then, takes less: it has the mask of one branch at a time."""
    shape, b = model.shape, BYTES[model.precision]
    return float(tokens * b * (3 * shape.intermediate * shape.top_k + 4 * shape.hidden))


def training_pass(model: Model, pack: Pack, *, with_entropy: bool = False) -> dict[str, float]:
    """Activations and logits at the end of the forward pass, when most is there; a layer's backward pass in their place
    where that is more."""
    head = logits(model.shape, pack.targets, with_entropy=with_entropy) if model.has_logits else 0.0
    activations = kept_activations(model, pack)
    return {"activations": activations + max(0.0, passing(model, pack.tokens) - head), "logits": head}


def scoring_pass(model: Model, pack: Pack) -> dict[str, float]:
    """A pass without a gradient keeps nothing."""
    head = logits(model.shape, pack.targets, with_entropy=False) if model.has_logits else 0.0
    return {"activations": passing(model, pack.tokens), "logits": head}


def kv_cache(shape: ModelShape, sequences: int, length: int, b: int) -> float:
    """Keys and values: 2 · layers · kv_heads · head_dim · b for each token of each sequence."""
    return 2.0 * shape.layers * shape.kv_heads * shape.head_dim * b * sequences * length


def reading(model: Model, prompts: int, longest: int, patches: int) -> float:
    """What `TransformersEngine` takes to read a batch's prompts, padded to `longest`, besides keys and values.

    Per token of a layer b · (4 · heads · head_dim + 3 · hidden) in attention, keys and values being repeated to all
    heads, and b for each pair in a mask; or its MLP, if that takes more. The vision tower comes before: it takes
    (5b + 24) · hidden per patch where it rotates queries and keys, in float32. Pixels stay throughout, also in float32,
    and so does a mask of booleans. Logits are those of each prompt's last token, no more than are drawn from later.
    """
    shape, b = model.shape, BYTES[model.precision]
    tokens, pairs = prompts * longest, prompts * longest**2
    attention = tokens * (b * (4 * shape.heads * shape.head_dim + 3 * shape.hidden) + FLOAT * shape.heads) + b * pairs
    layer = max(attention, passing(model, tokens)) + tokens * (2 * b * shape.head_dim + _IDS) + pairs
    features = b * (shape.vision_hidden + 2 * shape.num_mergers * shape.hidden / shape.merge**2)
    tower = (5 * b + 6 * FLOAT) * shape.vision_hidden + 3 * FLOAT * shape.vision_hidden / shape.vision_heads
    tower += b * pixels(shape) if b < FLOAT else 0
    return patches * FLOAT * pixels(shape) + max(layer + patches * features, patches * tower)


def growing(model: Model, sequences: int, prompt: int, own: int) -> float:
    """What one token more of each sequence takes besides the cache, `own` tokens of each, prompts apart.

    One layer's own keys, copied where their buffers get room; or the scores of all tokens so far by one layer's heads,
    in float32 and twice; or, where the token is drawn, its logits and three copies of them in float64.
    """
    shape, b = model.shape, BYTES[model.precision]
    copied = kv_cache(shape, sequences, own, b) / (2 * shape.layers)
    scores = 2.0 * FLOAT * shape.heads * sequences * (prompt + own)
    return max(copied, scores, (b + 24.0) * shape.vocab * sequences)
