"""Rollouts from a server: the model is wherever an OpenAI-compatible endpoint serves it."""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from prism.data.image_references import image_suffix
from prism.data.images import describe_source, read_bytes
from prism.data.questions import question_parts
from prism.errors import DataError
from prism.records import ImageSource, Prompt, Rollout, RolloutGroup
from prism.rollout.openai_client import ChatReply, ChatRequest, chat
from prism.rollout.openai_server import ChatServer
from prism.rollout.sampling import Sampling, streams
from prism.runtime.seeding import derive_small_seed

_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".webp": "image/webp",
}


class OpenAIEngine:
    """One request per sample, each with its own seed; images travel as the encoded files they are.

    The server decides how far a seed binds: the same request gives the same sample from vLLM and SGLang
    up to round-off, and from hosted models only nearly so.

    A server with a reasoning parser hands over the reasoning apart from the text. It is put back in front,
    in `<think>` tags, because the rollout's text is what the model wrote. Such a parser drops whatever
    stood before the reasoning, so serve models that describe the image first without one.

    A rollout is finished when the model ended it, not the length limit or the server's content filter.
    """

    def __init__(self, server: ChatServer) -> None:
        self._server = server

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        """Raises RolloutError where the server refuses or keeps failing, DataError for an unusable prompt."""
        rollouts: dict[int, Rollout] = {}

        def keep(number: int, reply: ChatReply) -> None:
            rollouts[number] = _rollout(number % num_samples, reply)

        chat(self._server, _requests(prompts, num_samples, sampling, seed), keep)
        return [
            RolloutGroup(prompt, tuple(rollouts[index * num_samples + sample] for sample in range(num_samples)))
            for index, prompt in enumerate(prompts)
        ]


def _requests(prompts: Sequence[Prompt], num_samples: int, sampling: Sampling, seed: int) -> Iterator[ChatRequest]:
    for prompt, stream in zip(prompts, streams(prompts, seed), strict=True):
        messages = chat_messages(prompt)
        for sample in range(num_samples):
            yield ChatRequest(
                label=f"prompt {prompt.id!r}",
                messages=messages,
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                seed=derive_small_seed(*stream, sample),
            )


def chat_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt as the chat API takes it, with an image part at each `<image>` mark, or first without marks.

    Raises DataError, naming the prompt, for an unusable image, text without a UTF-8 form, or when marks
    and images disagree in number.
    """
    try:
        content = _content(prompt)
        f"{prompt.system}{prompt.question}".encode()
    except (DataError, UnicodeEncodeError) as error:
        raise DataError(f"prompt {prompt.id!r}: {error}") from error
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": content}]


def _content(prompt: Prompt) -> str | list[dict[str, Any]]:
    parts = question_parts(prompt)
    if not prompt.images:
        return prompt.question
    images = iter(prompt.images)
    return [
        {"type": "image_url", "image_url": {"url": _data_uri(next(images))}}
        if text is None
        else {"type": "text", "text": text}
        for text in parts
    ]


def _data_uri(source: ImageSource) -> str:
    data = read_bytes(source)
    media_type = _MEDIA_TYPES.get(image_suffix(data) or "")
    if media_type is None:
        known = ", ".join(suffix.lstrip(".") for suffix in _MEDIA_TYPES)
        raise DataError(f"{describe_source(source)}: not a kind of image that servers take ({known}); convert it")
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _rollout(sample: int, reply: ChatReply) -> Rollout:
    is_finished = reply.ending == "stop"
    text = reply.content
    if reply.reasoning:
        # Cut off while it was still reasoning: the tag stays open, as it would have in the text.
        closing = "</think>" if text or is_finished else ""
        text = f"<think>{reply.reasoning}{closing}{text}"
    return Rollout(sample, reply.token_ids, text, is_finished, reply.num_completion_tokens)
