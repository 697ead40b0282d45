"""Loads and saves policies: any Hugging Face Qwen3-VL, dense or mixture-of-experts."""

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from prism.errors import ModelError
from prism.models.adapters import merged_parameters
from prism.models.checkpoint import LOAD_ERRORS, Dtype, check_loading_report, first_line, read_config
from prism.models.patches import project_patches
from prism.models.processor import PromptEncoder
from prism.models.sharding import whole

_EXPERT_MATRICES = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")


def load_policy(
    path: str | PathLike[str], *, dtype: Dtype = "float32", device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """A Qwen3-VL in evaluation mode, from a Hugging Face directory or Hub name; safetensors only.

    Raises ModelError for another architecture and unless the weights in the files are exactly those
    of the model: a checkpoint with a missing tensor would otherwise train from random numbers.
    """
    read_config(path)
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"{path}: cannot load weights: {first_line(error)}") from error
    model, report = loaded
    check_loading_report(path, report)
    project_patches(model)
    return model.to(device)


def save_policy(
    model: PreTrainedModel,
    encoder: PromptEncoder,
    directory: str | PathLike[str],
    *,
    state_dict: dict[str, Tensor] | None = None,
) -> None:
    """Writes a plain Hugging Face directory: weights, configuration, processor.

    `state_dict` replaces the model's own, for a sharded model whose full weights the caller has gathered.
    """
    model.save_pretrained(directory, state_dict=state_dict)
    encoder.save_pretrained(directory)


def checkpoint_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The parameters as Qwen publishes them, one at a time, whole and detached, with adapters added; tied ones once.

    transformers keeps the matrices of experts transposed, and writes them so as well.
    """
    for name, parameter in merged_parameters(model):
        tensor = whole(parameter)
        yield name, tensor.transpose(1, 2) if name.endswith(_EXPERT_MATRICES) else tensor


@torch.no_grad()
def take_weights(model: PreTrainedModel, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copies `weights`, as from `checkpoint_weights` of a model of the same architecture, into `model`."""
    own = dict(checkpoint_weights(model))
    for name, tensor in weights:
        if name not in own:
            raise ModelError(f"the model has no weight {name}, or was given it twice")
        own.pop(name).copy_(tensor)
    if own:
        raise ModelError(f"{len(own)} weights were not given, {next(iter(own))} the first")
