"""The image half of Hugging Face's Qwen3-VL processor, which works without torchvision."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from transformers.utils.hub import cached_file

from prism.errors import ModelError

_VIDEO_FILE = "video_preprocessor_config.json"


class Qwen3VLProcessor(transformers.Qwen3VLProcessor):
    """Reads and writes images only. `video_settings` is written out untouched.

    It bears the name of its parent because that name is what `save_pretrained` records: whoever has
    torchvision loads the directory as the full processor.
    """

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("image", "video", "vision_start", "vision_end"):
            token = f"<|{name}_pad|>" if name in ("image", "video") else f"<|{name}|>"
            setattr(self, f"{name}_token", token)
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
        self.video_settings = kwargs.pop("video_settings", None) or default_video_settings(image_processor)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"video_processor": self.video_settings}


def default_video_settings(image_processor: Qwen2VLImageProcessorPil) -> dict[str, Any]:
    """What a loader with video support needs beside the image settings of a model that never saw video."""
    return {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "patch_size": image_processor.patch_size,
        "temporal_patch_size": image_processor.temporal_patch_size,
        "merge_size": image_processor.merge_size,
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
    }


def read_video_settings(path: str | PathLike[str]) -> dict[str, Any] | None:
    """The video settings of a checkpoint, in either of the two files they may stand in; None without any."""
    nested = transformers.Qwen3VLProcessor.get_processor_dict(path)[0].get("video_processor")
    if nested is not None:
        return nested
    try:
        resolved = cached_file(path, _VIDEO_FILE)
    except OSError:
        return None
    return json.loads(Path(resolved).read_text(encoding="utf-8")) if resolved else None


def read_chat_template(path: str | PathLike[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """The default chat template of a checkpoint, from its processor or else from its tokenizer."""
    found = transformers.Qwen3VLProcessor.get_processor_dict(path)[0].get("chat_template") or tokenizer.chat_template
    if isinstance(found, dict):
        found = found.get("default")
    if not found:
        raise ModelError(f"{path}: no chat template; add a chat_template.jinja to the directory")
    return found
