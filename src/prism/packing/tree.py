"""Prompt trees: one prompt and the branches that continue it."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor


class Pixels:
    """What the vision tower reads of a prompt's images, prepared when first asked for and kept until it is released.

    Every process knows all prompts of a step, and prepares the images only of those that it runs itself.
    """

    def __init__(self, read: Callable[[], Float[Tensor, "patches values"]]) -> None:
        self._read = read
        self._values: Tensor | None = None
        self._lock = Lock()

    def prepare(self) -> None:
        """Makes `values` ready, once, whichever threads ask. Raises what `values` does."""
        _ = self.values

    @property
    def values(self) -> Float[Tensor, "patches values"]:
        """Raises DataError, naming the prompt, for an image that cannot be read to its end."""
        with self._lock:
            if self._values is None:
                self._values = self._read()
            return self._values

    def release(self) -> None:
        """Gives the memory back; whoever asks again has them prepared again."""
        with self._lock:
            self._values = None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """A prompt ready for the model: tokens with image placeholders expanded, positions, pixels.

    `token_ids` (tokens,), `position_ids` (3, tokens) for time, height and width, `next_position` the
    position of the first token after the prompt. `pixels` and `image_grid_thw` (images, 3) are None
    for a prompt without images.
    """

    token_ids: Tensor
    position_ids: Tensor
    next_position: int
    pixels: Pixels | None = None
    image_grid_thw: Tensor | None = None

    @property
    def pixel_values(self) -> Float[Tensor, "patches values"] | None:
        return None if self.pixels is None else self.pixels.values

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
