"""The record types that travel the whole path: prompt → response → rollout group → training batch.

All are frozen. Text offsets are character offsets into the text they belong to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGE_MARK = "<image>"
"""Marks, inside a question, the place of the next image (the ShareGPT convention)."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it was when its rows were read: by size and time of change it is told from what may replace it."""

    path: Path
    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class StoredImage:
    """The place of an encoded image inside a row of a parquet file.

    `row` counts from 0 within the row group `group`. `keys`, names of struct fields and places in lists, lead from the
    row's value in `column` to the bytes.
    """

    file: FileVersion
    group: int
    row: int
    column: str
    keys: tuple[str | int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An encoded image (PNG, JPEG, …): a file, the bytes themselves or their place in a parquet file, exactly one."""

    path: Path | None = None
    data: bytes | None = None
    stored: StoredImage | None = None

    def __post_init__(self) -> None:
        if [self.path, self.data, self.stored].count(None) != 2:
            raise ValueError("an ImageSource has a path, data or a place in a file, and only one of them")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question about zero or more images, with the answer a verifier checks against.

    `question` holds one `<image>` per image where each belongs; with no mark at all the images come
    first. `kind` names the data source or sub-benchmark, `metadata` whatever the source adds.
    """

    id: str
    question: str
    images: tuple[ImageSource, ...] = ()
    answer: str = ""
    kind: str = ""
    choices: tuple[str, ...] = ()
    equivalents: tuple[str, ...] = ()
    system: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One text split into visual description, reasoning and answer.

    The three parts are the stripped contents of their tags and the spans are where those stripped
    contents lie in `text`; all are None unless the text is valid. `reason` names why it is not.
    """

    text: str
    is_valid: bool
    reason: str | None = None
    caption: str | None = None
    think: str | None = None
    answer: str | None = None
    caption_span: tuple[int, int] | None = None
    think_span: tuple[int, int] | None = None
    answer_span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and a completion to imitate; `loss_spans` limits the loss to parts of it (None: all of it)."""

    prompt: Prompt
    completion: str
    loss_spans: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A teacher's response to a prompt, already parsed and known to be valid."""

    prompt: Prompt
    response: Response


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion.

    `token_ids` ends with the end token exactly when `is_finished`. It is empty where the engine is a
    server that tells only the text; `reported_tokens` is then the server's own count, if it gave one.
    `logprobs` are those of `token_ids` as an engine with a forward of its own computed them when it sampled.
    """

    sample: int
    token_ids: tuple[int, ...]
    text: str
    is_finished: bool
    reported_tokens: int | None = None
    logprobs: tuple[float, ...] | None = None

    @property
    def num_tokens(self) -> int | None:
        """The completion's length, the end token included; None where nobody counted."""
        return len(self.token_ids) or self.reported_tokens


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All completions sampled for one prompt by one policy version."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
