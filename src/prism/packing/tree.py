"""Prompt trees: one prompt and the branches that continue it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """A prompt ready for the model: tokens with image placeholders expanded, positions, pixels.

    `token_ids` (tokens,), `position_ids` (3, tokens) for time, height and width, `next_position` the
    position of the first token after the prompt. `pixel_values` (patches, values) and
    `image_grid_thw` (images, 3) are None for a prompt without images.
    """

    token_ids: Tensor
    position_ids: Tensor
    next_position: int
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None

    def __len__(self) -> int:
        return self.token_ids.numel()


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One continuation: `token_ids` (tokens,) and `mask` (tokens,), true where a token is a target."""

    token_ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, token_ids: list[int] | tuple[int, ...]) -> "Branch":
        """A branch all of whose tokens are targets."""
        ids = torch.tensor(token_ids, dtype=torch.long)
        return cls(ids, torch.ones_like(ids, dtype=torch.bool))

    def __len__(self) -> int:
        return self.token_ids.numel()


@dataclass(frozen=True, slots=True, eq=False)
class PromptTree:
    """One prompt and the branches that share it; no branch sees another."""

    prompt: EncodedPrompt
    branches: tuple[Branch, ...]
