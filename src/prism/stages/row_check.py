"""Which rows the stages can use: every image decodes, and prompt and completion fit their budgets."""

from dataclasses import dataclass

from prism.data.decoding import Decoded
from prism.data.readers import UNDECODABLE, Record, prompt_of
from prism.data.rejects import RowError
from prism.errors import DataError
from prism.models import PromptEncoder
from prism.records import Demonstration, Example, Prompt


@dataclass(frozen=True, slots=True)
class RowCheck:
    """Raises RowError for a record that does not fit. Nothing is ever cut to make it fit.

    A prompt may have `max_prompt_tokens` with its images' tokens and `max_images` (None: any number), a completion
    `max_response_tokens` with its end token (None: there is none to look at).
    """

    encoder: PromptEncoder
    max_prompt_tokens: int
    max_response_tokens: int | None = None
    max_images: int | None = None

    def __call__(self, record: Record, images: Decoded) -> None:
        self._check_prompt(prompt_of(record), images)
        for text in _completions(record):
            length = len(self.encoder.completion_ids(text))
            if self.max_response_tokens is not None and length > self.max_response_tokens:
                raise RowError(
                    "completion", "is longer than max_response_tokens", f"{length} > {self.max_response_tokens} tokens"
                )

    def _check_prompt(self, prompt: Prompt, images: Decoded) -> None:
        if self.max_images is not None and len(prompt.images) > self.max_images:
            raise RowError("images", "are more than rollout.max_images", f"{len(prompt.images)} > {self.max_images}")
        try:
            sizes = self.encoder.fitted_sizes(images.sizes)
            check_decoded(prompt, images)
            length = self.encoder.prompt_length(prompt, sizes)
        except DataError as error:
            raise RowError("images", UNDECODABLE, str(error)) from None
        if length > self.max_prompt_tokens:
            measured = f"{length} > {self.max_prompt_tokens} tokens"
            remedy = "; max_pixels in the recipe scales images down" if prompt.images else ""
            raise RowError("prompt", "is longer than max_prompt_tokens", measured + remedy)


def check_decoded(record: Record, images: Decoded) -> None:
    """Raises RowError where one of the record's images does not decode."""
    if images.error is not None:
        raise RowError("images", UNDECODABLE, images.error)


def _completions(record: Record) -> tuple[str, ...]:
    match record:
        case Prompt():
            return ()
        case Example():
            return (record.completion,)
        case Demonstration():
            return (record.response.text,)
        case _:
            return (record.teacher.text, record.student.text)
