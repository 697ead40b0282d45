"""The discriminator: a Qwen3-VL body with a scalar head."""

import json
from os import PathLike
from pathlib import Path
from typing import Self, get_args

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel, Qwen3VLModel, Qwen3VLMoeModel

from prism.errors import ModelError
from prism.models.checkpoint import LOAD_ERRORS, Dtype, check_loading_report, first_line, read_config
from prism.models.patches import project_patches
from prism.models.released import read_released
from prism.models.routing import dedicate_experts
from prism.models.views import Mode, views_of
from prism.packing.forward import at_least_float32

HEAD_FILE = "head.safetensors"
HEAD_KEY = "head.weight"
MODE_FILE = "discriminator.json"


class Discriminator(nn.Module):
    """D(x, y): `model` is the body, a mixture of experts or (mode `dense`) a dense one; `head` maps the
    hidden state of a branch's end token to its score. In mode `dedicated` each view has a head of its own.

    The head starts at zero: a fresh discriminator prefers nothing, its Bradley-Terry loss is log 2,
    and the first step moves the head alone. Raises ModelError for a body that does not suit the mode.
    """

    def __init__(self, model: PreTrainedModel, *, mode: Mode | None = None, score_limit: float | None = 10.0) -> None:
        super().__init__()
        if not isinstance(model, Qwen3VLMoeModel | Qwen3VLModel):
            raise ModelError(f"a discriminator's body is a Qwen3VLMoeModel or Qwen3VLModel, not {type(model).__name__}")
        project_patches(model)
        self.model = model
        self.mode: Mode = mode or ("moe" if isinstance(model, Qwen3VLMoeModel) else "dense")
        wanted = Qwen3VLModel if self.mode == "dense" else Qwen3VLMoeModel
        if not isinstance(model, wanted):
            raise ModelError(f"mode {self.mode!r} needs a {wanted.__name__} as its body, not a {type(model).__name__}")
        self.views = views_of(self.mode)
        self._token_views = dedicate_experts(model, len(self.views)) if self.mode == "dedicated" else None
        hidden_size = model.config.get_text_config().hidden_size
        num_heads = len(self.views) if self.mode == "dedicated" else 1
        self.head = nn.Linear(hidden_size, num_heads, bias=False, dtype=model.dtype, device=model.device)
        nn.init.zeros_(self.head.weight)
        self.score_limit = score_limit

    def read_as(self, token_views: Int[Tensor, "length"] | None) -> None:
        """Names the view (its place in `views`, −1 for the prompt) of every token of the sequence to be read next."""
        if self._token_views is not None:
            self._token_views.current = token_views

    def score(
        self, hidden: Float[Tensor, "branches hidden"], views: Int[Tensor, "branches"] | None = None
    ) -> Float[Tensor, "branches"]:
        """Scores within ±`score_limit`, as in the released code; beyond it they have no gradient.

        `views` says which head reads a branch where there are several. Whatever the weights' precision, the
        product is taken in float32 at least: rounded to bfloat16, close scores would be equal.
        """
        weight = at_least_float32(self.head.weight)
        scores = functional.linear(hidden.to(weight.dtype), weight)
        if scores.shape[-1] > 1:
            if views is None:
                raise ValueError("a discriminator with a head per view needs the views of the branches")
            scores = scores.gather(-1, views[:, None])
        scores = scores[:, 0]
        return scores if self.score_limit is None else scores.clamp(-self.score_limit, self.score_limit)

    def save_pretrained(self, directory: str | PathLike[str], *, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the body as a plain Hugging Face checkpoint and the head beside it.

        `state_dict` replaces the module's own, for sharded weights that the caller has gathered.
        """
        state = self.state_dict() if state_dict is None else state_dict
        body = {name.removeprefix("model."): weight for name, weight in state.items() if name.startswith("model.")}
        self.model.save_pretrained(directory, state_dict=body)
        save_file({HEAD_KEY: state[HEAD_KEY].detach().cpu().contiguous()}, Path(directory) / HEAD_FILE)
        (Path(directory) / MODE_FILE).write_text(json.dumps({"mode": self.mode}) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        directory: str | PathLike[str],
        *,
        dtype: Dtype = "float32",
        device: str = "cpu",
        mode: Mode | None = None,
        score_limit: float | None = 10.0,
    ) -> Self:
        """Reads what `save_pretrained` wrote, or a released discriminator. ModelError for anything else.

        `mode` is that of the file; naming another one is refused, except for a released discriminator,
        which does not say.
        """
        config = read_config(directory)
        head_file = Path(directory) / HEAD_FILE
        if head_file.is_file():
            body, head_weight = _read_body(directory, dtype), _read_head(head_file)
        else:
            state, head_weight = read_released(directory, config)
            body = AutoModel.from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
            _load_exactly(directory, body, state)
        recorded = recorded_mode(directory)
        if mode is not None and recorded is not None and mode != recorded:
            raise ModelError(f"{directory}: a discriminator of mode {recorded!r}, where {mode!r} is asked for")
        try:
            discriminator = cls(body, mode=recorded or mode, score_limit=score_limit).eval()
        except ModelError as error:
            raise ModelError(f"{directory}: {error}") from error
        if head_weight.shape != discriminator.head.weight.shape:
            shape = tuple(head_weight.shape)
            raise ModelError(f"{directory}: head of shape {shape} does not fit the body in mode {discriminator.mode!r}")
        with torch.no_grad():
            discriminator.head.weight.copy_(head_weight)
        return discriminator.to(device)


def _read_body(directory: str | PathLike[str], dtype: Dtype) -> PreTrainedModel:
    try:
        body, report = AutoModel.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"{directory}: cannot load weights: {first_line(error)}") from error
    check_loading_report(directory, report)
    return body


def recorded_mode(directory: str | PathLike[str]) -> Mode | None:
    """The mode of a saved discriminator, None of a released one, which does not say."""
    file = Path(directory) / MODE_FILE
    if not file.is_file():
        return None
    try:
        mode = json.loads(file.read_text(encoding="utf-8"))["mode"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: names no mode of a discriminator") from error
    if mode not in get_args(Mode):
        raise ModelError(f"{file}: {mode!r} is no mode of a discriminator ({', '.join(get_args(Mode))})")
    return mode


def _read_head(file: Path) -> Tensor:
    try:
        return load_file(file)[HEAD_KEY]
    except LOAD_ERRORS as error:
        raise ModelError(f"{file}: no readable {HEAD_KEY}: {first_line(error)}") from error


def _load_exactly(directory: str | PathLike[str], body: PreTrainedModel, state: dict[str, Tensor]) -> None:
    try:
        report = body.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{directory}: weights do not fit config.json: {first_line(error)}") from error
    check_loading_report(directory, {"missing_keys": report.missing_keys, "unexpected_keys": report.unexpected_keys})
