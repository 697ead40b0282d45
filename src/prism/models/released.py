"""Reads the published discriminators of the PRISM paper.

They hold the weights of a Qwen3-VL-MoE as transformers 4.57 wrote them, with the score head among
them. That version stored experts as (experts, in, out); transformers 5 stores (experts, out, in).
"""

import json
import re
from os import PathLike
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig

from prism.errors import ModelError
from prism.models.checkpoint import LOAD_ERRORS, first_line

_HEAD = re.compile(r"(?:^|\.)(?:v_head\.1|score)\.weight$")
_BODY = re.compile(r"(?:^|\.)((?:language_model|visual)\..+)$")
_LANGUAGE_HEAD = re.compile(r"(?:^|\.)lm_head\.weight$")
_EXPERTS = re.compile(r"\.mlp\.experts\.(gate_up|down)_proj$")


def read_released(directory: str | PathLike[str], config: PreTrainedConfig) -> tuple[dict[str, Tensor], Tensor]:
    """The body's weights under the names and in the layout of transformers 5, and the head (1, hidden).

    Prefixes of wrapping modules are dropped, the language-model head is left out. Raises ModelError
    for files that are missing or damaged, a tensor of unknown name, and a missing or second head.
    """
    body: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    for name, weight in _read_tensors(Path(directory)).items():
        match = _BODY.search(name)
        if _HEAD.search(name):
            heads[name] = weight
        elif match and match.group(1) not in body:
            body[match.group(1)] = weight
        elif not _LANGUAGE_HEAD.search(name):
            raise ModelError(f"{directory}: tensor {name!r} is unknown or there twice: not a released discriminator")
    if len(heads) != 1:
        found = ", ".join(heads) or "none"
        raise ModelError(f"{directory}: expected one score head (v_head.1.weight or score.weight), found {found}")
    _convert_experts(directory, body, config)
    return body, next(iter(heads.values()))


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    index = directory / "model.safetensors.index.json"
    try:
        names = ["model.safetensors"]
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= load_file(directory / name)
        return tensors
    except LOAD_ERRORS as error:
        raise ModelError(f"{directory}: cannot read safetensors weights: {first_line(error)}") from error


def _convert_experts(directory: str | PathLike[str], body: dict[str, Tensor], config: PreTrainedConfig) -> None:
    """Transposes the expert tensors in place where they are in the older layout.

    A square tensor fits both layouts, but `gate_up` (2·inter by hidden) and `down` (hidden by inter)
    are never both square, so the shapes of the two together always tell.
    """
    text = config.get_text_config()
    shapes: dict[str, tuple[int, int]] = {}
    if config.model_type == "qwen3_vl_moe":
        inter, hidden = text.moe_intermediate_size, text.hidden_size
        shapes = {"gate_up": (2 * inter, hidden), "down": (hidden, inter)}
    experts = {name: match.group(1) for name in body if (match := _EXPERTS.search(name))}
    layouts: set[str] = set()
    for name, kind in experts.items():
        shape, expected = tuple(body[name].shape[1:]), shapes.get(kind)
        fitting = {"current"} if shape == expected else set()
        fitting |= {"older"} if expected is not None and shape == expected[::-1] else set()
        if not fitting:
            raise ModelError(f"{directory}: {name} of shape {tuple(body[name].shape)} does not fit config.json")
        layouts |= fitting if len(fitting) == 1 else set()
    if len(layouts) > 1:
        raise ModelError(f"{directory}: expert tensors are in two layouts; write the checkpoint again with one version")
    if layouts == {"older"}:
        for name in experts:
            body[name] = body[name].transpose(1, 2).contiguous()
