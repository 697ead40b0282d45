"""What makes a Hugging Face directory a usable Qwen3-VL checkpoint."""

import json
from os import PathLike
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from prism.errors import ModelError

# A bar for every file that is loaded or written would bury the one line that says what a stage does.
disable_progress_bar()

Dtype = Literal["float32", "bfloat16", "float16"]
MODEL_TYPES = ("qwen3_vl", "qwen3_vl_moe")
INPUT_WEIGHT, OUTPUT_WEIGHT = "model.language_model.embed_tokens.weight", "lm_head.weight"

LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)
"""What kind of damage it meets decides which of these transformers raises."""


def read_config(path: str | PathLike[str]) -> PreTrainedConfig:
    """The configuration of a Qwen3-VL; ModelError if there is none or it is another model's."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no readable config.json: {first_line(error)}") from error
    if config.model_type not in MODEL_TYPES:
        raise ModelError(
            f"{path}: model type {config.model_type!r} is not Qwen3-VL; use one of {', '.join(MODEL_TYPES)}"
        )
    return config


def check_loading_report(path: str | PathLike[str], report: dict) -> None:
    """Raises ModelError unless every tensor of the model was in the files and the files held no other."""
    for kind in ("missing", "unexpected", "mismatched"):
        names = sorted(map(str, report.get(f"{kind}_keys") or ()))
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise ModelError(f"{path}: {len(names)} {kind} weights: {shown}; use a complete checkpoint of this model")


def read_weight_shapes(path: str | PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the safetensors files of a directory, from their headers alone.

    An output layer that is tied to the embedding is left out, though some checkpoints hold it twice.
    Raises ModelError where there are no such files or they cannot be read.
    """
    directory, is_tied = Path(path), read_config(path).tie_word_embeddings
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for file in _weight_files(directory):
            with safe_open(file, framework="pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{directory}: no readable safetensors files: {first_line(error)}") from error
    return {name: shape for name, shape in shapes.items() if not (is_tied and name == OUTPUT_WEIGHT)}


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return [directory / "model.safetensors"]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [directory / name for name in sorted(set(names))]


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
