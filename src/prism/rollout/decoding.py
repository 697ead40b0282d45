"""Decoding a prompt tree by shared-prefix attention: keys and values of a prompt stand once, however many samples go on
from it.

A batch of rows, each with its prompt in it, would hold a prompt as often as it is sampled, read all of that for every
token, and copy it, too, where the cache makes room for the token by concatenation. Here the queries of all samples of a
prompt meet its keys in one product, and each sample's own keys, of which all rows have equally many, lie in a buffer
with room for more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, Cache
from transformers.cache_utils import DynamicLayer

DECODING = "prompt_trees_decoding"
"""Its name among the attention functions of `transformers`, which knows no mask function for it and gives no mask."""

ROOM = 128
"""Tokens that a buffer has room for at first, and gets room for when it is full."""


@dataclass(slots=True)
class SharedPrompts:
    """Prompts that were read, padded on the left, and which of them each row goes on from.

    `layers` has keys and values per layer; `mask`, to be added to scores, is -inf where a prompt is padded. A prompt's
    rows stand side by side in a grid of prompts × `width`. `places` has the row and the column of each of them, and is
    None where they fill the grid in order.
    """

    layers: list[tuple[Float[Tensor, "prompts heads length head"], Float[Tensor, "prompts heads length head"]]]
    mask: Float[Tensor, "prompts heads 1 length"]
    width: int
    places: tuple[Int[Tensor, "rows"], Int[Tensor, "rows"]] | None = None

    @classmethod
    def of(cls, cache: Cache, is_key: Bool[Tensor, "prompts length"], num_samples: int) -> "SharedPrompts":
        """Of a cache that has read prompts alone, from each of which `num_samples` rows are to go on."""
        read: list[Any] = cache.layers
        heads, dtype = read[0].keys.shape[1], read[0].keys.dtype
        mask = torch.zeros(is_key.shape, dtype=dtype, device=is_key.device).masked_fill_(~is_key, -torch.inf)
        return cls(
            [(layer.keys, layer.values) for layer in read], mask[:, None, None].repeat(1, heads, 1, 1), num_samples
        )

    def keep(self, rows: Int[Tensor, "kept"]) -> None:
        """Keeps `rows` of the present ones, in order, and the prompts that these go on from."""
        before = rows // self.width if self.places is None else self.places[0][rows]
        prompts, of_row, counts = before.unique_consecutive(return_inverse=True, return_counts=True)
        first = counts.cumsum(0) - counts
        self.width = int(counts.max())
        self.places = of_row, torch.arange(len(rows), device=rows.device) - first[of_row]
        if len(prompts) < len(self.mask):
            self.mask = self.mask[prompts]
            # One layer after the other, so that no more than one is there twice.
            for index, (keys, values) in enumerate(self.layers):
                self.layers[index] = (keys[prompts], values[prompts])

    def to_grid(self, rows: Float[Tensor, "rows_heads groups size"]) -> Float[Tensor, "prompts_heads many size"]:
        """The rows of each prompt, head by head, side by side; zeros where it has fewer than others."""
        num_prompts, heads = self.mask.shape[:2]
        rows = rows.unflatten(0, (-1, heads))
        if self.places is None:
            grid = rows.unflatten(0, (num_prompts, self.width)).transpose(1, 2)
        else:
            grid = rows.new_zeros(num_prompts, heads, self.width, *rows.shape[2:])
            grid.transpose(1, 2)[self.places] = rows
        return grid.reshape(num_prompts * heads, -1, rows.shape[-1])

    def to_rows(self, grid: Float[Tensor, "prompts_heads many size"]) -> Float[Tensor, "rows_heads groups size"]:
        num_prompts, heads = self.mask.shape[:2]
        groups, size = grid.shape[1] // self.width, grid.shape[2]
        rows = grid.view(num_prompts, heads, self.width, groups, size).transpose(1, 2)
        if self.places is not None:
            rows = rows[self.places]
        return rows.reshape(-1, groups, size)


class SampleCache(Cache):
    """Keys and values of the rows' own tokens. `batch_select_indices` drops rows."""

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[_Buffers() for _ in range(num_layers)])


class _Buffers(DynamicLayer):
    """`keys` and `values` are the parts in use of buffers that grow by `ROOM` tokens."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._buffers = [
            states.new_empty(*states.shape[:2], 0, states.shape[3]) for states in (key_states, value_states)
        ]
        self._length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self._length = self._length, self._length + key_states.shape[2]
        self.keys = self.values = None  # views of buffers that may have to be given up for larger ones
        for index, states in enumerate((key_states, value_states)):
            while self._buffers[index].shape[2] < self._length:
                room = states.new_empty(*states.shape[:2], ROOM, states.shape[3])
                self._buffers[index] = torch.cat([self._buffers[index], room], dim=2)
            self._buffers[index][:, :, start : self._length] = states
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if not self.is_initialized:
            return
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)


@contextmanager
def decoding_attention(policy: Any) -> Iterator[None]:
    """Within it the language layers of `policy`, a Qwen3-VL, expect a `SampleCache` and `prompts`, `SharedPrompts`."""
    config = policy.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = DECODING
    try:
        yield
    finally:
        config._attn_implementation = before


def attend_decoding(
    module: Any,
    query: Float[Tensor, "rows heads 1 head"],
    key: Float[Tensor, "rows key_heads length head"],
    value: Float[Tensor, "rows key_heads length head"],
    attention_mask: None,
    *,
    prompts: SharedPrompts,
    scaling: float,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows 1 heads head"], None]:
    """One token of every row sees its prompt and what the row has so far, itself included.

    Scores are products in the states' precision; they are scaled, and their softmax is taken, in float32.
    """
    prompt_keys, prompt_values = (states.flatten(0, 1) for states in prompts.layers[module.layer_idx])
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    # Heads that share keys are further queries of these.
    queries = query.reshape(len(keys), -1, query.shape[-1])
    # Scores have no names, here and below, so that two of the grid's size are in memory, and no more.
    weights = _scores(queries, keys, prompt_keys, prompts).mul_(scaling).softmax(-1).to(values.dtype)
    of_prompt, own = weights.split([prompt_keys.shape[1], keys.shape[1]], dim=-1)
    output = own @ values + prompts.to_rows(prompts.to_grid(of_prompt) @ prompt_values)
    return output.view(len(key), 1, -1, key.shape[-1]), None


def _scores(
    queries: Float[Tensor, "rows_heads groups head"],
    keys: Float[Tensor, "rows_heads own head"],
    prompt_keys: Float[Tensor, "prompts_heads length head"],
    prompts: SharedPrompts,
) -> Float[Tensor, "rows_heads groups length_own"]:
    of_prompts = (prompts.mask.flatten(0, 1), prompts.to_grid(queries), prompt_keys.transpose(1, 2))
    return torch.cat([prompts.to_rows(torch.baddbmm(*of_prompts)), queries @ keys.transpose(1, 2)], dim=-1).float()


AttentionInterface.register(DECODING, attend_decoding)
