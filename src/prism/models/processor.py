"""Prompts and completions to what the model reads: tokens, positions, pixels."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from prism.data.images import fit_to_grid, grid_size, image_size, open_image, read_bytes
from prism.data.questions import question_parts
from prism.errors import DataError, ModelError
from prism.models.checkpoint import first_line, read_config
from prism.models.hub_processor import Qwen3VLProcessor, read_chat_template, read_video_settings
from prism.models.tokenization import TextTokenizer, span_mask
from prism.packing.positions import mrope_positions
from prism.packing.tree import EncodedPrompt, Pixels
from prism.records import Prompt

IMAGE_TOKEN = "<|image_pad|>"
# Stands for the n-th user text while the template is rendered; private-use characters, in no template.
_TEXT_SLOT = re.compile("\ue000([0-9]+)\ue001")


class PromptEncoder:
    """Chat template, tokenizer and image sizing of one Qwen3-VL checkpoint.

    `vocab_size` counts the rows of the embedding, which may exceed the tokenizer's vocabulary. The
    pixel budget is the image processor's `size`. The last `cache_size` prompts stay encoded.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Qwen2VLImageProcessorPil,
        chat_template: str | None = None,
        *,
        vocab_size: int,
        video_settings: dict | None = None,
        cache_size: int = 32,
    ) -> None:
        template = chat_template or tokenizer.chat_template
        if not isinstance(template, str):
            raise ModelError("the tokenizer has no chat template: pass chat_template")
        self._template = template
        self._text = TextTokenizer(tokenizer)
        if tokenizer.eos_token not in self._text.control_ids or IMAGE_TOKEN not in self._text.control_ids:
            raise ModelError(f"the tokenizer needs an eos_token and {IMAGE_TOKEN}, both as special tokens")
        self.processor = Qwen3VLProcessor(image_processor, tokenizer, template, video_settings=video_settings)
        self.end_token_id: int = self._text.control_ids[tokenizer.eos_token]
        self.image_token_id: int = self._text.control_ids[IMAGE_TOKEN]
        known_ids = set(tokenizer.get_vocab().values())
        refused = {*self._text.control_ids.values(), *(set(range(vocab_size)) - known_ids)} - {self.end_token_id}
        self.banned_token_ids: tuple[int, ...] = tuple(sorted(refused))
        self._cache: OrderedDict[tuple, EncodedPrompt] = OrderedDict()
        self._cache_size = cache_size

    @classmethod
    def from_pretrained(
        cls, path: str | PathLike[str], *, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> Self:
        """Reads a Hugging Face directory or Hub name; the budgets replace those recorded there.

        Raises ModelError when something is missing or the tokenizer, the image settings and the
        model configuration contradict each other.
        """
        config = read_config(path)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
            image_processor = Qwen2VLImageProcessorPil.from_pretrained(path)
            template, video_settings = read_chat_template(path, tokenizer), read_video_settings(path)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: no usable processor files: {first_line(error)}") from error
        for edge, pixels in (("shortest_edge", min_pixels), ("longest_edge", max_pixels)):
            if pixels is not None:
                image_processor.size[edge] = pixels
        smallest, largest = (image_processor.size[edge] for edge in ("shortest_edge", "longest_edge"))
        if smallest > largest:
            raise ModelError(f"{path}: images of {smallest} pixels at least and {largest} at most: raise max_pixels")
        _check_agreement(path, config, tokenizer, image_processor)
        vocab_size = config.text_config.vocab_size
        return cls(tokenizer, image_processor, template, vocab_size=vocab_size, video_settings=video_settings)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processor.tokenizer

    @property
    def merge_size(self) -> int:
        return self.processor.image_processor.merge_size

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt up to the point where the assistant's turn begins. Equal prompts share one result.

        Of images only the sizes are found; `pixels` decodes them. Raises DataError, naming the prompt, for
        an unusable image or when `<image>` marks and images disagree in number.
        """
        try:
            digests = tuple(hashlib.sha256(read_bytes(source)).digest() for source in prompt.images)
            key = (prompt.system, prompt.question, digests)
            encoded = self._cache.pop(key, None) or self._encode(prompt)
        except DataError as error:
            raise DataError(f"prompt {prompt.id!r}: {error}") from error
        self._cache[key] = encoded
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return encoded

    def prompt_length(self, prompt: Prompt, sizes: Sequence[tuple[int, int]] | None = None) -> int:
        """Tokens of `encode(prompt)`; `sizes` are `fitted_sizes` of its images, where they are known. Raises DataError
        like it."""
        if sizes is None:
            sizes = self.image_sizes(prompt)
        num_image_tokens = sum(width * height // self._grid["factor"] ** 2 for width, height in sizes)
        return len(self.unexpanded_ids(prompt)) - len(sizes) + num_image_tokens

    def image_sizes(self, prompt: Prompt) -> list[tuple[int, int]]:
        """Width and height of each of `fitted_images`."""
        return self.fitted_sizes(map(image_size, prompt.images))

    def fitted_sizes(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of images of these sizes. Raises DataError for one that fits no grid."""
        return [grid_size(*size, **self._grid) for size in sizes]

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        token_ids = self.unexpanded_ids(prompt)
        patch = self.processor.image_processor.patch_size
        sizes = [(1, height // patch, width // patch) for width, height in self.image_sizes(prompt)]
        grid = torch.tensor(sizes) if sizes else None
        counts = [height * width // self.merge_size**2 for _, height, width in sizes]
        remaining = iter(counts)
        expanded: list[int] = []
        for token_id in token_ids:
            expanded += [token_id] * (next(remaining) if token_id == self.image_token_id else 1)
        ids = torch.tensor(expanded, dtype=torch.long)
        positions, following = mrope_positions(
            ids, grid, image_token_id=self.image_token_id, merge_size=self.merge_size
        )
        pixels = None if grid is None else Pixels(lambda: self._pixels(prompt, grid))
        return EncodedPrompt(ids, positions, following, pixels, grid)

    def fitted_images(self, prompt: Prompt) -> list[Image.Image]:
        """The prompt's images in their final size, as every backend must see them."""
        return [fit_to_grid(open_image(source), **self._grid) for source in prompt.images]

    @property
    def _grid(self) -> dict[str, int]:
        settings = self.processor.image_processor
        return {
            "factor": settings.patch_size * settings.merge_size,
            "min_pixels": settings.size["shortest_edge"],
            "max_pixels": settings.size["longest_edge"],
        }

    def _pixels(self, prompt: Prompt, grid: Tensor) -> Tensor:
        try:
            images = self.fitted_images(prompt)
        except DataError as error:
            raise DataError(f"prompt {prompt.id!r}: {error}") from error
        features = self.processor.image_processor(images=images, do_resize=False, return_tensors="pt")
        if not torch.equal(features["image_grid_thw"], grid):
            raise DataError(f"prompt {prompt.id!r}: an image has changed its size since the prompt was read")
        return features["pixel_values"]

    def unexpanded_ids(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens with a single placeholder token per image."""
        texts: list[str] = []

        def slot(text: str) -> str:
            texts.append(text)
            return f"\ue000{len(texts) - 1}\ue001"

        messages: list[dict[str, Any]] = []
        if prompt.system is not None:
            messages.append({"role": "system", "content": slot(prompt.system)})
        content = [
            {"type": "image"} if text is None else {"type": "text", "text": slot(text)}
            for text in question_parts(prompt)
        ]
        messages.append({"role": "user", "content": content})
        rendered: Any = self.tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        pieces = _TEXT_SLOT.split(rendered)
        if pieces[1::2] != [str(index) for index in range(len(texts))]:
            raise ModelError("the chat template drops, repeats or reorders parts of a message; use another template")
        token_ids = self._text.encode_template(
            [(texts[int(piece)], False) if index % 2 else (piece, True) for index, piece in enumerate(pieces)]
        )
        if token_ids.count(self.image_token_id) != len(prompt.images):
            raise ModelError(f"the chat template does not write one {IMAGE_TOKEN} per image; use another template")
        return token_ids

    def completion_ids(self, text: str) -> list[int]:
        """Tokens of `text`, none of them a control token, and the end token."""
        return [*self._text.encode_text(text), self.end_token_id]

    def completion_mask(self, text: str, spans: Sequence[tuple[int, int]] | None) -> list[bool]:
        """For each of `completion_ids(text)`, whether it has a character in one of `spans` (None: all true).

        The end token belongs to a span that reaches the end of the text.
        """
        offsets = self._text.token_offsets(text)
        if spans is None:
            return [True] * (len(offsets) + 1)
        is_end_inside = any(start <= len(text) <= end for start, end in spans)
        return [*span_mask(offsets, spans), is_end_inside]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a completion, without the end token if it has one; any other token is kept."""
        ids = list(token_ids)
        if ids and ids[-1] == self.end_token_id:
            ids.pop()
        text: Any = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def save_pretrained(self, directory: str | PathLike[str]) -> None:
        """Writes tokenizer, image settings and chat template where `AutoProcessor` looks for them."""
        self.processor.save_pretrained(directory)


def _check_agreement(
    path: str | PathLike[str],
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: Qwen2VLImageProcessorPil,
) -> None:
    vision = config.vision_config
    pairs = {
        "patch size": (image_processor.patch_size, vision.patch_size),
        "merge size": (image_processor.merge_size, vision.spatial_merge_size),
        "temporal patch size": (image_processor.temporal_patch_size, vision.temporal_patch_size),
        "image token id": (tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), config.image_token_id),
    }
    for name, (ours, models) in pairs.items():
        if ours != models:
            raise ModelError(f"{path}: {name} is {ours} in the processor files but {models} in config.json")
    if len(tokenizer) > config.text_config.vocab_size:
        raise ModelError(f"{path}: {len(tokenizer)} tokens but only {config.text_config.vocab_size} embedding rows")
