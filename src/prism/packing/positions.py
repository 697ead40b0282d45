"""Positions of a prompt in Qwen3-VL's three-row rotary scheme (mRoPE)."""

import torch
from jaxtyping import Int
from torch import Tensor

from prism.errors import DataError


def mrope_positions(
    token_ids: Int[Tensor, "tokens"],
    image_grid_thw: Int[Tensor, "images 3"] | None,
    *,
    image_token_id: int,
    merge_size: int,
) -> tuple[Int[Tensor, "3 tokens"], int]:
    """(time, height, width) positions, and the position of whatever token comes next.

    A text token advances all three rows by one. The merged tokens of an image share one time
    position and take their row and column in the image as height and width; the text after them
    goes on at the longer of both sides, so an image costs few positions however many its tokens.
    Grids count patches before merging. Raises DataError when tokens and grids disagree.
    """
    places = (token_ids == image_token_id).nonzero().flatten().tolist()
    grids = [] if image_grid_thw is None else image_grid_thw.tolist()
    pieces: list[Tensor] = []
    cursor = position = used = 0
    for number, (num_times, num_rows, num_columns) in enumerate(grids, start=1):
        merged = (num_times, num_rows // merge_size, num_columns // merge_size)
        count = merged[0] * merged[1] * merged[2]
        own = places[used : used + count]
        if len(own) < count or own[-1] - own[0] != count - 1:
            raise DataError(f"image {number} needs {count} adjacent placeholder tokens, the prompt has {len(own)} left")
        num_text = own[0] - cursor
        pieces.append(_text_positions(position, num_text))
        position += num_text
        pieces.append(_image_positions(position, merged))
        position += max(merged[1:])
        cursor = own[-1] + 1
        used += count
    if used != len(places):
        raise DataError(f"the prompt has {len(places)} placeholder tokens, its {len(grids)} images need {used}")
    num_text = token_ids.numel() - cursor
    pieces.append(_text_positions(position, num_text))
    return torch.cat(pieces, dim=1), position + num_text


def _text_positions(start: int, count: int) -> Int[Tensor, "3 tokens"]:
    return torch.arange(start, start + count).expand(3, -1)


def _image_positions(start: int, merged_grid: tuple[int, int, int]) -> Int[Tensor, "3 tokens"]:
    axes = [torch.arange(size) for size in merged_grid]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")]) + start
