"""The `prism` command, to be run as a script, in which the second process meets an image that it cannot read."""

import os
import sys
from itertools import count
from typing import Any

from prism.cli import main
from prism.errors import DataError
from prism.models.processor import PromptEncoder

READABLE = 1
"""Prompts whose images the second process reads before: the first step is done by then."""


def break_images() -> None:
    read: Any = PromptEncoder._pixels
    numbers = count(1)

    def read_or_fail(encoder: PromptEncoder, prompt: Any, grid: Any) -> Any:
        if next(numbers) > READABLE:
            raise DataError(f"prompt {prompt.id!r}: its image is gone")
        return read(encoder, prompt, grid)

    PromptEncoder._pixels = read_or_fail  # type: ignore[method-assign]


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        break_images()
    sys.exit(main(sys.argv[1:]))
